"""Times the two inner steps: the marginal likelihood with its gradient, and one query of the loop.

    python scripts/benchmark_core.py [--dtype float32] [--repeats 7] [--seconds 1] [--parts ...]

Learning curves are synthetic, of the sizes of the real databases; times do not depend on values.
The parts, of which `--parts` names some:

    multi_task   of `MultiTaskGP`. Beside each exact likelihood stands the same by tinygp's dense
                 Cholesky factorisation on the first `--dense` points of the grid alone, and the
                 ratio of the two times.
    likelihoods  of task regression: those of every task given all others, the whole fit with
                 compilation (none of 10^7 scores), and the memory that the process grows by.
    queries      of task regression: a step of its loop with room for 100 and 1,000 observations.
    targets      of task regression: fit and loop of all 27 targets of HyperRec's size given the
                 other tasks, compilation included.
"""

import argparse
import platform
import timeit
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tinygp
from ConfigSpace import ConfigurationSpace, Float
from rich.console import Console
from rich.table import Table

from amt.curves import LearningCurves
from amt.evaluation.experiment import Experiment
from amt.evaluation.splits import make_cells, make_chunks, make_splits
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP, fidelity_rank
from amt.gp.points import KroneckerKernel, grid_points
from amt.gp.task_regression.model import TaskRegression
from amt.memory import PeakMemory
from amt.parameters import unconstrain
from amt.search.fitting import fit_sources, source_grid
from amt.search.replay import replay
from amt.search.simulate import simulate
from amt.tuners import TUNERS, task_regression

SHAPES = [(4, 100, 75), (26, 100, 75), (34, 100, 52), (100, 500, 100)]
HYPERREC = (27, 100, 75)
FITTED = [(HYPERREC, 0.0), ((12, 1000, 51), 0.07)]  # and the share of runs that are missing
LARGEST = (1000, 200, 50)
DIMENSIONS = 7


def synthetic(shape: tuple[int, int, int], seed: int = 0) -> LearningCurves:
    """Curves that rise to a level which depends on the task and smoothly on the configuration."""
    tasks, configs, epochs = shape
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(configs, DIMENSIONS))
    level = 0.6 + 0.1 * np.sin(x @ rng.normal(size=(DIMENSIONS, tasks))).T
    rate = 5 * np.exp(x @ rng.normal(size=DIMENSIONS) / 3)
    curve = 1 - np.exp(-rate[:, None] * np.linspace(0, 1, epochs + 1)[1:])
    scores = level[:, :, None] * curve + 0.01 * rng.normal(size=shape)
    names = [f"x{i}" for i in range(DIMENSIONS)]
    return LearningCurves(
        configs=[dict(zip(names, row, strict=True)) for row in x],
        space=ConfigurationSpace({name: Float(name, (0, 1)) for name in names}),
        tasks=[f"task {i}" for i in range(tasks)],
        scores=scores,
    )


def seconds(call, repeats: int, at_least: float) -> tuple[float, float]:
    """Median and fastest time of a call, over `repeats` series of at least that many seconds."""
    jax.block_until_ready(call())
    once = timeit.timeit(lambda: jax.block_until_ready(call()), number=1)
    number = max(int(at_least / once), 1)
    series = timeit.repeat(lambda: jax.block_until_ready(call()), number=number, repeat=repeats)
    return float(np.median(series)) / number, min(series) / number


def value_and_grad(model: Any, grid: CurveGrid, total: Callable[[Any], jax.Array]):
    free, constrain = unconstrain(model)
    function = jax.value_and_grad(lambda free, g: total(constrain(free).log_likelihood(g)))
    compiled = jax.jit(function).lower(free, grid).compile()
    return lambda: compiled(free, grid)


def dense_value_and_grad(model: MultiTaskGP, grid: CurveGrid, points: int):
    tasks = jnp.arange(grid.scores.shape[0])
    X = jax.tree.map(lambda x: x[:points], grid_points(tasks, grid.features, grid.epochs))
    y = grid.scores.ravel()[:points]
    free, constrain = unconstrain(model)

    def function(free):
        model = constrain(free)
        kernel = KroneckerKernel(model.task, model.config, model.fidelity)
        gp = tinygp.GaussianProcess(kernel, X, diag=model.noise.variance[0])
        return gp.log_probability(y)

    compiled = jax.jit(jax.value_and_grad(function)).lower(free).compile()
    return lambda: compiled(free)


def loop(model: MultiTaskGP, grid: CurveGrid, budget: int):
    source = model.source_posterior(grid, rank=fidelity_rank(model, grid))
    target = grid.scores[0] + 0.01
    run = eqx.filter_jit(lambda source, target: simulate(source, target, budget=budget))
    return lambda: run(source, target)


def multi_task(args: argparse.Namespace, console: Console) -> None:
    dense = f"dense, {args.dense} points"
    table = Table("tasks, configs, epochs", "value and gradient", "fastest", dense, "ratio")
    for shape in SHAPES:
        curves = synthetic(shape)
        grid = CurveGrid.of(curves, args.dtype)
        model = MultiTaskGP.init(curves, jax.random.key(0), dtype=args.dtype)
        ours, fastest = seconds(
            value_and_grad(model, grid, lambda found: found.value), args.repeats, args.seconds
        )
        peer, _ = seconds(dense_value_and_grad(model, grid, args.dense), args.repeats, 0)
        table.add_row(
            str(shape),
            f"{1e3 * ours:.2f} ms",
            f"{1e3 * fastest:.2f} ms",
            f"{1e3 * peer:.2f} ms",
            f"{peer / ours:.1f}",
        )
        if shape == SHAPES[0]:
            run, fastest_run = seconds(loop(model, grid, args.budget), args.repeats, args.seconds)
    console.print(table)
    console.print(
        f"one query of the loop {SHAPES[0]}, budget {args.budget}: "
        f"{1e3 * run / args.budget:.2f} ms (fastest {1e3 * fastest_run / args.budget:.2f} ms)"
    )


def with_missing(curves: LearningCurves, share: float) -> LearningCurves:
    """Remove a random share of the learning curves."""
    gone = np.random.default_rng(0).uniform(size=curves.scores.shape[:2]) < share
    return replace(curves, scores=np.where(gone[:, :, None], np.nan, curves.scores))


def likelihoods(args: argparse.Namespace, console: Console) -> None:
    table = Table("tasks, configs, epochs", "missing", "likelihoods and gradient", "GiB", "fit")
    for shape, missing in [*FITTED, (LARGEST, 0.0)]:
        curves = with_missing(synthetic(shape), missing)
        with PeakMemory() as memory:
            grid = source_grid(curves, "task_regression", args.dtype)
            model = TaskRegression.init(curves, jax.random.key(0), dtype=args.dtype)
            ours, _ = seconds(value_and_grad(model, grid, jnp.sum), args.repeats, args.seconds)
        fit = ""
        if shape != LARGEST:
            start = perf_counter()
            jax.block_until_ready(fit_sources(curves, 0, dtype=args.dtype)[0].log_density)
            fit = f"{perf_counter() - start:.1f} s"
        size = f"{memory.bytes / 2**30:.2f}"
        table.add_row(str(shape), f"{missing:.0%}", f"{1e3 * ours:.1f} ms", size, fit)
    console.print(table)


def queries(args: argparse.Namespace, console: Console) -> None:
    curves = synthetic((HYPERREC[0] - 1, *HYPERREC[1:]))
    grid = CurveGrid.of(curves, args.dtype)
    model = TaskRegression.init(curves, jax.random.key(0), dtype=args.dtype)
    prior = jax.jit(TaskRegression.target_prior)(model, grid)
    table = Table("observations", "a query of the loop")
    for room in (100, 1000):
        learned = task_regression.Learned(prior, None, room)

        @eqx.filter_jit
        def run(learned: task_regression.Learned, target: jax.Array):
            state = task_regression.init(jax.random.key(0), learned)
            return replay(state, task_regression.step, target, budget=args.budget)

        call = partial(run, learned, grid.scores[0] + 0.01)
        time, _ = seconds(call, args.repeats, args.seconds)
        table.add_row(str(room), f"{1e3 * time / args.budget:.2f} ms")
    console.print(table)


def targets(args: argparse.Namespace, console: Console) -> None:
    splits = make_splits("synthetic", synthetic(HYPERREC), kind="leave_one_out")
    experiment = Experiment(budget=args.budget, precision=args.dtype, chunk=5)
    tuner = TUNERS["task_regression"].make()
    start = perf_counter()
    spent = [experiment.run(tuner, c).seconds for c in make_chunks(make_cells(splits), size=5)]
    total = perf_counter() - start
    parts = ", ".join(f"{name} {sum(s[name] for s in spent):.1f} s" for name in spent[0])
    console.print(f"fit and loop of {len(splits)} targets {HYPERREC}: {total:.1f} s ({parts})")


PARTS = {
    "multi_task": multi_task,
    "likelihoods": likelihoods,
    "queries": queries,
    "targets": targets,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dtype", default="float64", choices=["float64", "float32"])
    parser.add_argument("--repeats", type=int, default=7, help="series, of which the median")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a series, at least")
    parser.add_argument("--budget", type=int, default=100, help="queries of the loop")
    parser.add_argument("--dense", type=int, default=1500, help="points of the dense likelihood")
    parser.add_argument("--parts", nargs="+", default=[*PARTS], choices=PARTS)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", args.dtype == "float64")
    console = Console()
    device = jax.devices()[0]
    console.print(f"{platform.machine()}, {device.platform} ({device.device_kind}), {args.dtype}")
    for part in args.parts:
        PARTS[part](args, console)


if __name__ == "__main__":
    main()
