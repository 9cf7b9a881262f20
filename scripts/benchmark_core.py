"""Times the two inner steps: the marginal likelihood with its gradient, and one query of the loop.

    python scripts/benchmark_core.py [--dtype float32] [--repeats 7] [--seconds 1]

Learning curves are synthetic, of the sizes of the real databases; times do not depend on values.
Beside each exact likelihood stands the same by tinygp's dense Cholesky factorisation on the first
`--dense` points of the grid alone, and the ratio of the two times.
"""

import argparse
import platform
import timeit

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tinygp
from ConfigSpace import ConfigurationSpace, Float
from rich.console import Console
from rich.table import Table

from amt.curves import LearningCurves
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.points import KroneckerKernel, grid_points
from amt.parameters import unconstrain
from amt.search.fitting import fidelity_rank
from amt.search.simulate import simulate

SHAPES = [(4, 100, 75), (26, 100, 75), (34, 100, 52), (100, 500, 100)]
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


def value_and_grad(model: MultiTaskGP, grid: CurveGrid):
    free, constrain = unconstrain(model)
    function = jax.value_and_grad(lambda free: constrain(free).log_likelihood(grid).value)
    compiled = jax.jit(function).lower(free).compile()
    return lambda: compiled(free)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dtype", default="float64", choices=["float64", "float32"])
    parser.add_argument("--repeats", type=int, default=7, help="series, of which the median")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a series, at least")
    parser.add_argument("--budget", type=int, default=100, help="queries of the loop")
    parser.add_argument("--dense", type=int, default=1500, help="points of the dense likelihood")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", args.dtype == "float64")

    console = Console()
    device = jax.devices()[0]
    console.print(f"{platform.machine()}, {device.platform} ({device.device_kind}), {args.dtype}")
    dense = f"dense, {args.dense} points"
    table = Table("tasks, configs, epochs", "value and gradient", "fastest", dense, "ratio")
    for shape in SHAPES:
        curves = synthetic(shape)
        grid = CurveGrid.of(curves, args.dtype)
        model = MultiTaskGP.init(curves, jax.random.key(0), dtype=args.dtype)
        ours, fastest = seconds(value_and_grad(model, grid), args.repeats, args.seconds)
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


if __name__ == "__main__":
    main()
