"""The closed tuning loop on many splits of a database at once.

A *cell* is one split (source tasks and a target task) and one seed. Cells of the same shape are
stacked in *chunks* of a fixed size, and each chunk runs as three compiled functions, vmapped over
its cells: `fit` (maximum likelihood on the sources), `loop` (the tuner on the target) and
`baselines`. Compilation is ahead of time, so that its seconds are counted apart, and one
compilation serves all chunks of a shape: a chunk that is not full repeats its last cell.

Which cells share a chunk follows from the list of cells alone, never from what has been computed
before. A run that was interrupted therefore goes on to the same numbers, bit by bit.

```python
experiment = Experiment(Settings(budget=50))
cells = make_cells(make_splits("lcbench", amt.databases.load("lcbench").repeat(0)), seeds=1)
for chunk in make_chunks(cells, size=5):
    trajectories = experiment.run(chunk)
```
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from amt.acquisition import ACQUISITIONS
from amt.baselines import BASELINES
from amt.curves import LearningCurves
from amt.databases import paper_pairs
from amt.inference import POINT_ESTIMATES
from amt.inference.mle import Optimizer
from amt.kernels import KERNELS
from amt.model import CurveGrid, MultiTaskGP, NoiseKind, require_complete
from amt.precision import check_dtype
from amt.simulate import Trajectory, simulate
from amt.tuner import fidelity_rank, stack

METHODS = ("amt", *BASELINES)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is computed in each cell.

    Attributes:
        task, config, fidelity: kernels, by their names in `amt.KERNELS`.
        noise: kind of `amt.model.SeparableNoise`.
        precision: float64 or float32.
        inference: a name in `amt.inference.POINT_ESTIMATES`.
        optimizer, steps, learning_rate: its options.
        restarts: starting points of the fit.
        acquisition: a name in `amt.ACQUISITIONS`.
        acquisition_options: its options, such as `{"beta": 0.25}`.
        budget: epochs that the tuner may spend on the target.

    Raises:
        ValueError: a name that is not there (the message lists those there are), or a number out
            of range.
    """

    task: str = "at2"
    config: str = "deep_poly"
    fidelity: str = "at2"
    noise: str = "homoscedastic"
    precision: str = "float64"
    inference: str = "mle"
    optimizer: str = "adam"
    steps: int = 300
    learning_rate: float = 0.05
    restarts: int = 1
    acquisition: str = "ucb"
    acquisition_options: Mapping[str, float] = field(default_factory=dict)
    budget: int = 100

    def __post_init__(self):
        for axis, kernels in KERNELS.items():
            _check_choice(f"{axis} kernel", getattr(self, axis), kernels)
        _check_choice("noise", self.noise, get_args(NoiseKind))
        _check_choice("inference", self.inference, POINT_ESTIMATES)
        _check_choice("optimizer", self.optimizer, get_args(Optimizer))
        _check_choice("acquisition", self.acquisition, ACQUISITIONS)
        options = inspect.signature(ACQUISITIONS[self.acquisition]).parameters
        for option in self.acquisition_options:
            _check_choice(f"option of {self.acquisition}", option, list(options)[3:])
        for name in ("steps", "restarts", "budget"):
            _check_positive(name, getattr(self, name))
        check_dtype(self.precision)


class Split(NamedTuple):
    """Source tasks, a target task, and their number in the list of all splits."""

    index: int
    sources: LearningCurves
    target: LearningCurves


class Cell(NamedTuple):
    """One split and one seed: the unit that results are averaged over."""

    split: Split
    seed: int

    @property
    def key(self) -> PRNGKeyArray:
        """Everything random in the cell comes from this key."""
        return jax.random.fold_in(jax.random.key(self.seed), self.split.index)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.split.sources.scores.shape


def make_splits(
    database: str,
    curves: LearningCurves,
    *,
    kind: str = "paper",
    pair: int | Sequence[int] | None = None,
) -> list[Split]:
    """Splits of a database into source tasks and a target task.

    Args:
        database: name in `amt.databases.DATABASES`.
        curves: its learning curves.
        kind: "paper" (the published pairs) or "leave_one_out" (every task in turn is the target
            of all others).
        pair: only these, by their position (from 0); None for all.

    Raises:
        ValueError: no such kind or pair.
    """
    _check_choice("split", kind, ("paper", "leave_one_out"))
    if kind == "paper":
        names = paper_pairs(database)
    else:
        names = [(tuple(t for t in curves.tasks if t != one), one) for one in curves.tasks]
    wanted = range(len(names)) if pair is None else [pair] if isinstance(pair, int) else list(pair)
    for index in wanted:
        if not 0 <= index < len(names):
            raise ValueError(
                f"no pair {index}; {kind} of {database} has pairs 0 to {len(names) - 1}"
            )
    return [Split(index, *curves.split(*names[index])) for index in wanted]


def make_cells(splits: Sequence[Split], *, seeds: int = 1) -> list[Cell]:
    """Every split with seeds 0, 1, ..."""
    _check_positive("seeds", seeds)
    return [Cell(split, seed) for split in splits for seed in range(seeds)]


def make_chunks(cells: Sequence[Cell], *, size: int) -> list[list[Cell]]:
    """Cells of the same shape, in their order, at most `size` together."""
    _check_positive("chunk", size)
    by_shape: dict[tuple[int, ...], list[Cell]] = {}
    for cell in cells:
        by_shape.setdefault(cell.shape, []).append(cell)
    return [
        group[start : start + size]
        for group in by_shape.values()
        for start in range(0, len(group), size)
    ]


class Stage:
    """A function that is compiled ahead of time, once for each shape of its arguments.

    Attributes:
        compile_seconds, run_seconds: seconds spent so far, tracing counting as compilation.
    """

    def __init__(self, function: Callable[..., Any]):
        self.compile_seconds = self.run_seconds = 0.0
        self._function = function
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *args: Any, **static: Any) -> Any:
        leaves, structure = jax.tree.flatten(args)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        key = structure, shapes, tuple(static.items())
        start = perf_counter()
        if key not in self._compiled:
            function = jax.jit(partial(self._function, **static))
            self._compiled[key] = function.lower(*args).compile()
            self.compile_seconds += perf_counter() - start
            start = perf_counter()
        output = jax.block_until_ready(self._compiled[key](*args))
        self.run_seconds += perf_counter() - start
        return output


class Experiment:
    """Runs chunks of cells and counts the seconds.

    Args:
        settings: what to compute.
        chunk: number of cells that every chunk is filled up to by repeating its last cell, so that
            compilations are shared; a longer chunk runs as it is.

    Attributes:
        not_converged: fits so far that had not converged (`amt.inference.Fit.converged`).
    """

    def __init__(self, settings: Settings, *, chunk: int = 1):
        s = self.settings = settings
        self.not_converged = 0
        self._chunk = chunk
        acquisition = partial(ACQUISITIONS[s.acquisition], **s.acquisition_options)

        def fit(starts, grids):
            options: Any = {"optimizer": s.optimizer, "steps": s.steps}
            estimate = partial(
                POINT_ESTIMATES[s.inference], learning_rate=s.learning_rate, **options
            )
            return jax.vmap(estimate)(starts, grids)

        def loop(models, grids, targets, *, rank):
            def one(model, grid, target):
                source = model.source_posterior(grid, rank=rank)
                return simulate(source, target, budget=s.budget, acquisition=acquisition)

            return jax.vmap(one)(models, grids, targets)

        def baselines(keys, grids, targets):
            run = {name: jax.vmap(partial(b, budget=s.budget)) for name, b in BASELINES.items()}
            return {name: baseline(keys, grids.scores, targets) for name, baseline in run.items()}

        self._stages = {"fit": Stage(fit), "loop": Stage(loop), "baselines": Stage(baselines)}

    def run(
        self, cells: Sequence[Cell], report: Callable[[str], None] = lambda stage: None
    ) -> dict[str, Trajectory]:
        """Trajectories of each of `METHODS`, as NumPy arrays with a leading axis of cells.

        Args:
            cells: of the same shape.
            report: is called with the name of each stage before it starts.
        """
        dtype = jnp.dtype(self.settings.precision)
        filled = [*cells, *[cells[-1]] * (self._chunk - len(cells))]
        keys = [jax.random.split(cell.key) for cell in filled]
        grids = [CurveGrid.of(cell.split.sources, dtype) for cell in filled]
        for cell, grid in zip(filled, grids, strict=True):
            require_complete(grid, f"an experiment with split {cell.split.index}")
        grids = stack(grids)
        targets = jnp.stack([jnp.asarray(c.split.target.scores[0], dtype) for c in filled])
        starts = [self._starts(cell, key[0]) for cell, key in zip(filled, keys, strict=True)]

        report("fit")
        fits = self._stages["fit"](stack(starts), grids)
        best = np.take_along_axis(np.asarray(fits.converged), np.asarray(fits.best)[:, None], 1)
        self.not_converged += int((~best[: len(cells)]).sum())
        report("loop")
        rank = fidelity_rank(fits.model, grids)
        tuned = self._stages["loop"](fits.model, grids, targets, rank=rank)
        report("baselines")
        others = self._stages["baselines"](jnp.stack([k[1] for k in keys]), grids, targets)
        cut = partial(jax.tree.map, lambda leaf: np.asarray(leaf)[: len(cells)])
        return {"amt": cut(tuned), **{name: cut(others[name]) for name in BASELINES}}

    def _starts(self, cell: Cell, key: PRNGKeyArray) -> MultiTaskGP:
        s = self.settings
        noise: Any = s.noise
        kernels = {axis: getattr(s, axis) for axis in KERNELS}
        return stack(
            [
                MultiTaskGP.init(cell.split.sources, k, noise=noise, dtype=s.precision, **kernels)
                for k in jax.random.split(key, s.restarts)
            ]
        )

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent so far on compiling, and on running each stage."""
        compiling = sum(stage.compile_seconds for stage in self._stages.values())
        running = {name: stage.run_seconds for name, stage in self._stages.items()}
        return {"compile": compiling, **running}


def _check_choice(what: str, value: Any, known: Any) -> None:
    if value not in known:
        raise ValueError(f"no {what} {value!r}; there are {', '.join(map(str, known)) or 'none'}")


def _check_positive(what: str, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} must be a whole number from 1, not {value!r}")
