"""One tuner on many cells at once.

A pure tuner runs as compiled functions of a cell: the stages of what it learns from the sources,
and the loop. They are vmapped over the cells of a chunk, and these sharded over all devices. One
compilation serves all chunks of a shape, as a chunk that is not full repeats its last cell. A tuner
on the host runs in processes, one cell and order each.

```python
experiment = Experiment(budget=50)
splits = make_splits("lcbench", amt.databases.load("lcbench"), repeat=0)
for chunk in make_chunks(make_cells(splits, seeds=1), size=5):
    trajectory = experiment.run(TUNERS["amt"].make(), chunk).trajectory
```
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from amt.evaluation.splits import Cell
from amt.evaluation.stages import stage_of
from amt.precision import check_dtype
from amt.search.replay import Trajectory
from amt.tuners.checks import check_positive
from amt.tuners.record import Host, HostProblem, Prepared, Problem, Pure
from amt.tuners.replay import replay_all, replay_pure


class ChunkResult(NamedTuple):
    """The outcome of one tuner on a chunk.

    Attributes:
        trajectory: NumPy arrays with leading axes of cells and of orders.
        diagnostics: of each cell, such as those of a fit; empty where there are none.
        seconds: of compilation, and of running each stage.
        memory: bytes that one run of the tuner needs at most, beyond what the process has: of
            arrays of its stages, the code of compilation left out, or on the host of all.
    """

    trajectory: Trajectory
    diagnostics: Sequence[Mapping[str, float]]
    seconds: dict[str, float]
    memory: float


class Experiment:
    """Runs tuners on chunks of cells.

    Args:
        budget: epochs that a tuner may spend on the target.
        precision: float64 or float32.
        chunk: number of cells that every chunk is filled up to by repeating its last cell, so that
            compilations are shared; a longer chunk runs as it is. Another size rounds otherwise,
            which changes the result of a fit that has not converged: runs of one size compare.
        devices: for pure tuners; by default all.
        executor: of processes for tuners on the host; None for this process.

    Raises:
        ValueError: no such precision, or a number out of range.
    """

    def __init__(
        self,
        *,
        budget: int,
        precision: str = "float64",
        chunk: int = 1,
        devices: Sequence[Any] | None = None,
        executor: Executor | None = None,
    ):
        check_positive("budget", budget)
        check_dtype(precision)
        self._budget, self._dtype, self._chunk = budget, jnp.dtype(precision), chunk
        self._mesh = Mesh(jax.devices() if devices is None else devices, ("cell",))
        self._executor = executor

    def run(
        self,
        tuner: Pure | Host,
        cells: Sequence[Cell],
        *,
        orders: int = 1,
        report: Callable[[str], None] = lambda stage: None,
    ) -> ChunkResult:
        """Run a tuner on each cell.

        Args:
            cells: of the same shape.
            orders: how often, each time from another key.
            report: is called with the name of each stage before it starts.
        """
        if isinstance(tuner, Pure):
            return self._run_pure(tuner, cells, orders, report)
        return self._run_host(tuner, cells, orders, report)

    def _run_pure(
        self, tuner: Pure, cells: Sequence[Cell], orders: int, report: Callable[[str], None]
    ) -> ChunkResult:
        devices = self._mesh.size
        size = -(-max(self._chunk, len(cells)) // devices) * devices
        filled = [*cells, *[cells[-1]] * (size - len(cells))]
        problems = [self._problem(cell) for cell in filled]
        targets = jnp.stack([jnp.asarray(c.split.target.scores[0], self._dtype) for c in filled])
        seconds, memory = {"compile": 0.0}, [0.0]

        def stage(name: str, function: Callable[..., Any], *args: Any, **static: Any) -> Any:
            report(name)
            run = stage_of(function)(self._mesh, *args, **static)
            seconds["compile"] += run.compiling
            seconds[name] = seconds.get(name, 0.0) + run.running
            memory.append(run.memory / size / orders)
            return run.output

        prepared = Prepared(None, [{}] * size)
        if tuner.prepare is None:
            arrays = [Problem.of(problem, self._dtype) for problem in problems]
            prepared = prepared._replace(problems=_stack(arrays))
        else:
            keys = [jax.random.split(cell.key)[0] for cell in filled]
            prepared = tuner.prepare(problems, keys, self._dtype, stage)
        run_keys = jnp.stack([_run_keys(cell, orders) for cell in filled])
        how = {"init": tuner.init, "step": tuner.step, "budget": self._budget}
        trajectory = stage("loop", replay_pure, run_keys, prepared.problems, targets, **how)
        trajectory = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(cells)], trajectory)
        return ChunkResult(trajectory, prepared.diagnostics[: len(cells)], seconds, max(memory))

    def _run_host(
        self, tuner: Host, cells: Sequence[Cell], orders: int, report: Callable[[str], None]
    ) -> ChunkResult:
        report("loop")
        seeds = [[int(jax.random.bits(k)) for k in _run_keys(cell, orders)] for cell in cells]
        problems = [self._problem(cell) for cell in cells]
        targets = [cell.split.target.scores[0].astype(self._dtype) for cell in cells]
        runs = replay_all(self._executor, tuner, seeds, problems, targets)
        seconds = {"compile": 0.0, "loop": runs.seconds}
        return ChunkResult(runs.trajectory, [{}] * len(cells), seconds, runs.memory)

    def _problem(self, cell: Cell) -> HostProblem:
        return HostProblem(f"split {cell.split.index}", cell.split.sources, self._budget)


def _run_keys(cell: Cell, orders: int) -> PRNGKeyArray:
    """A key for each order, the first of which does not depend on their number."""
    key = jax.random.split(cell.key)[1]
    return jnp.stack([key, *(jax.random.fold_in(key, order) for order in range(1, orders))])


def _stack(problems: Sequence[Problem]) -> Problem:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems)
