"""The closed tuning loop on many splits of a database at once.

A *cell* is one split (source tasks and a target task) and one seed. Cells of the same shape are
stacked in *chunks* of a fixed size, and each chunk runs as four compiled functions of a cell: `fit`
(inference on the sources), `condition` (what they say of any target), `loop` (the tuner on the
target) and `baselines`. They are vmapped over the cells of a chunk, and these sharded over all
devices.

Compilation is ahead of time, so that its seconds are counted apart. It is shared by all
experiments of a process: the loop, for example, depends on the task kernel and on the shapes, not
on the other kernels. One compilation serves all chunks of a shape, as a chunk that is not full
repeats its last cell.

Which cells share a chunk follows from the list of cells alone, never from what has been computed
before. A run that was interrupted therefore goes on to the same numbers, bit by bit.

```python
experiment = Experiment(Settings(budget=50))
splits = make_splits("lcbench", amt.databases.load("lcbench"), repeat=0)
for chunk in make_chunks(make_cells(splits, seeds=1), size=5):
    trajectories = experiment.run(chunk).trajectories
```
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PRNGKeyArray

from amt.curves import LearningCurves
from amt.databases import paper_pairs
from amt.gp.grid import CurveGrid, require_complete
from amt.gp.model import MultiTaskGP
from amt.gp.noise import NoiseKind
from amt.inference import INFERENCE
from amt.inference.mle import Optimizer
from amt.inference.svgp import PRESETS
from amt.kernels import KERNELS
from amt.precision import check_dtype
from amt.search.acquisition import ACQUISITIONS
from amt.search.simulate import Trajectory, simulate
from amt.search.fitting import fidelity_rank, stack
from amt.tuners import BASELINES

METHODS = ("amt", *BASELINES)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is computed in each cell.

    Attributes:
        task, config, fidelity: kernels, by their names in `amt.KERNELS`.
        noise: kind of `amt.gp.model.SeparableNoise`.
        nugget: whether every curve has a part of its own (`amt.gp.model.MultiTaskGP`); for inference
            by mle and map.
        precision: float64 or float32.
        inference: a name in `amt.inference.INFERENCE`.
        inference_options: its options, such as `{"steps": 100}`.
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
    nugget: bool = False
    precision: str = "float64"
    inference: str = "mle"
    inference_options: Mapping[str, Any] = field(default_factory=dict)
    restarts: int = 1
    acquisition: str = "ucb"
    acquisition_options: Mapping[str, float] = field(default_factory=dict)
    budget: int = 100

    def __post_init__(self):
        for axis, kernels in KERNELS.items():
            _check_choice(f"{axis} kernel", getattr(self, axis), kernels)
        _check_choice("noise", self.noise, get_args(NoiseKind))
        _check_choice("inference", self.inference, INFERENCE)
        _check_choice("acquisition", self.acquisition, ACQUISITIONS)
        known = {"optimizer": get_args(Optimizer), "preset": tuple(PRESETS)}
        for name, registry in (("inference", INFERENCE), ("acquisition", ACQUISITIONS)):
            function = registry[getattr(self, name)]
            for option, value in getattr(self, f"{name}_options").items():
                there = list(inspect.signature(function).parameters)[3:]
                _check_choice(f"option of {getattr(self, name)}", option, there)
                if option in known:
                    _check_choice(option, value, known[option])
        for name in ("steps", "passes", "chains", "draws", "kept"):
            if self.inference_options.get(name) is not None:
                _check_positive(name, self.inference_options[name])
        for name in ("restarts", "budget"):
            _check_positive(name, getattr(self, name))
        check_dtype(self.precision)
        if self.nugget and self.inference not in ("mle", "map"):
            raise ValueError(f"{self.inference} knows no nugget: use mle or map")


class Split(NamedTuple):
    """Source tasks, a target task, and their number in the list of all splits.

    Attributes:
        repeat: training run of the database; -1 for the mean of all.
    """

    index: int
    sources: LearningCurves
    target: LearningCurves
    repeat: int = 0


class Cell(NamedTuple):
    """One split and one seed: the unit that results are averaged over."""

    split: Split
    seed: int

    @property
    def key(self) -> PRNGKeyArray:
        """Everything random in the cell comes from this key; the same for all repeats."""
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
    repeat: int | Sequence[int] | Literal["all"] | None = None,
) -> list[Split]:
    """Splits of a database into source tasks and a target task.

    Args:
        database: name in `amt.databases.DATABASES`.
        curves: its learning curves.
        kind: "paper" (the published pairs) or "leave_one_out" (every task in turn is the target
            of all others).
        pair: only these, by their position (from 0); None for all.
        repeat: training runs of the database, all splits of one after those of another; None for
            their mean. Curves of a single run are its repeat 0.

    Raises:
        ValueError: no such kind, pair or repeat.
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
    there = 1 if curves.repeats is None else len(curves.repeats)
    if repeat is None:
        runs = {-1: curves}
    else:
        chosen = range(there) if repeat == "all" else np.atleast_1d(np.asarray(repeat)).tolist()
        for run in chosen:
            _check_choice("repeat", run, range(there))
        runs = {run: curves if curves.repeats is None else curves.repeat(run) for run in chosen}
    return [
        Split(index, *of_run.split(*names[index]), run)
        for run, of_run in runs.items()
        for index in wanted
    ]


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
    """A function of one cell that runs on many, side by side on all devices.

    It is compiled ahead of time, once for each shape of its arguments and each value of its
    keywords, for the whole process.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self._compiled: dict[Any, Callable[..., Any]] = {}

    def __call__(self, mesh: Mesh, *args: Any, **static: Any) -> tuple[Any, float, float]:
        """What comes out, and seconds of compilation, tracing included, and of running.

        Args:
            mesh: devices to spread the cells over, evenly.
            args: with a leading axis of cells.
            static: hashable.
        """
        by_cell = PartitionSpec(mesh.axis_names)
        args = jax.device_put(args, NamedSharding(mesh, by_cell))
        leaves, structure = jax.tree.flatten(args)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        key = mesh, structure, shapes, tuple(static.items())
        start = perf_counter()
        if key not in self._compiled:
            function = jax.shard_map(
                jax.vmap(partial(self._function, **static)),
                mesh=mesh,
                in_specs=by_cell,
                out_specs=by_cell,
                check_vma=False,
            )
            self._compiled[key] = jax.jit(function).lower(*args).compile()
        compiled = perf_counter()
        output = jax.block_until_ready(self._compiled[key](*args))
        return output, compiled - start, perf_counter() - compiled


Options = tuple[tuple[str, Any], ...]


def _fit(starts, grid, key, *, estimate: Callable[..., Any], options: Options):
    return estimate(starts, grid, key, **dict(options))


def _condition(fitted, grid, *, rank: int):
    return fitted.posterior(grid, rank)


def _loop(source, target, *, budget: int, acquisition: Callable[..., Any], options: Options):
    return simulate(
        source, target, budget=budget, acquisition=partial(acquisition, **dict(options))
    )


def _baselines(key, scores, target, *, budget: int):
    return {name: run(key, scores, target, budget=budget) for name, run in BASELINES.items()}


_STAGES = {
    "fit": Stage(_fit),
    "condition": Stage(_condition),
    "loop": Stage(_loop),
    "baselines": Stage(_baselines),
}


class ChunkResult(NamedTuple):
    """What came out of a chunk.

    Attributes:
        trajectories: of each of `METHODS`, NumPy arrays with a leading axis of cells.
        diagnostics: of the fit of each cell (such as `amt.inference.Fit.diagnostics`).
        seconds: of compilation, and of running each stage.
    """

    trajectories: dict[str, Trajectory]
    diagnostics: list[dict[str, float]]
    seconds: dict[str, float]


class Experiment:
    """Runs chunks of cells.

    Args:
        settings: what to compute.
        chunk: number of cells that every chunk is filled up to by repeating its last cell, so that
            compilations are shared; a longer chunk runs as it is.
        devices: where; by default all.
    """

    def __init__(self, settings: Settings, *, chunk: int = 1, devices: Sequence[Any] | None = None):
        self.settings = settings
        self._chunk = chunk
        self._mesh = Mesh(jax.devices() if devices is None else devices, ("cell",))

    def run(
        self, cells: Sequence[Cell], report: Callable[[str], None] = lambda stage: None
    ) -> ChunkResult:
        """Fit, tune and run the baselines on each cell.

        Args:
            cells: of the same shape.
            report: is called with the name of each stage before it starts.

        Raises:
            ValueError: source curves are incomplete, or there are too many of them for dense
                inference.
        """
        s, devices = self.settings, self._mesh.size
        size = -(-max(self._chunk, len(cells)) // devices) * devices
        filled = [*cells, *[cells[-1]] * (size - len(cells))]
        dtype = jnp.dtype(s.precision)
        keys = [jax.random.split(cell.key) for cell in filled]
        grids = [CurveGrid.of(cell.split.sources, dtype) for cell in filled]
        for cell, grid in zip(filled, grids, strict=True):
            require_complete(grid, f"an experiment with split {cell.split.index}")
        grids = stack(grids)
        targets = jnp.stack([jnp.asarray(c.split.target.scores[0], dtype) for c in filled])
        starts = [self._starts(cell, key[0]) for cell, key in zip(filled, keys, strict=True)]
        fit_keys = jnp.stack([jax.random.fold_in(key[0], s.restarts) for key in keys])
        seconds = {"compile": 0.0, **dict.fromkeys(_STAGES, 0.0)}

        def stage(name: str, *args: Any, **static: Any) -> Any:
            report(name)
            output, compiling, running = _STAGES[name](self._mesh, *args, **static)
            seconds["compile"] += compiling
            seconds[name] += running
            return output

        options = tuple(sorted(s.inference_options.items()))
        estimate = INFERENCE[s.inference]
        fits = stage("fit", stack(starts), grids, fit_keys, estimate=estimate, options=options)
        rank = fidelity_rank(fits.model, grids)
        sources = stage("condition", fits, grids, rank=rank)
        acquisition, options = ACQUISITIONS[s.acquisition], tuple(s.acquisition_options.items())
        rule = {"budget": s.budget, "acquisition": acquisition, "options": options}
        tuned = stage("loop", sources, targets, **rule)
        run_keys = jnp.stack([key[1] for key in keys])
        others = stage("baselines", run_keys, grids.scores, targets, budget=s.budget)

        cut = partial(jax.tree.map, lambda leaf: np.asarray(leaf)[: len(cells)])
        trajectories = {"amt": cut(tuned), **{name: cut(others[name]) for name in BASELINES}}
        fits = cut(fits)
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], fits) for i in range(len(cells))]
        return ChunkResult(trajectories, [fit.diagnostics() for fit in each], seconds)

    def _starts(self, cell: Cell, key: PRNGKeyArray) -> MultiTaskGP:
        s = self.settings
        options: dict[str, Any] = {axis: getattr(s, axis) for axis in KERNELS}
        options |= {"noise": s.noise, "nugget": s.nugget, "dtype": s.precision}
        return stack(
            [
                MultiTaskGP.init(cell.split.sources, k, **options)
                for k in jax.random.split(key, s.restarts)
            ]
        )


def _check_choice(what: str, value: Any, known: Any) -> None:
    if value not in known:
        raise ValueError(f"no {what} {value!r}; there are {', '.join(map(str, known)) or 'none'}")


def _check_positive(what: str, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} must be a whole number from 1, not {value!r}")
