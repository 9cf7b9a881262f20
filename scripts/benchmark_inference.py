"""Exact inference and the sparse variational one side by side: time to the same prediction.

    python scripts/benchmark_inference.py [--minutes 10] [--dtype float32] [--output FILE] [--smoke]

Both learn the same model, from the same starting point, from the sources of HyperRec's pair 0
(those of the bundled database where the files of HyperRec are not there): by maximum likelihood on
the grid (`fit_mle`), and by stochastic gradient steps on the ELBO with the settings of the AT2
reference (`REFERENCE`).

What they are compared by is held out, for either way, from all source tasks: every fifth epoch, and
a fifth of the configurations (`--seed` says which) with all their epochs. The figure is the mean
log predictive density (LPD) of single scores, noise included, of two kinds:

    epochs   the held-out epochs of configurations that were learned from
    configs  all epochs of the held-out configurations

The likelihood of the deep config kernels can overfit a hundred configurations: it rises while the
second kind falls. Therefore both are shown. `--config matern` names another config kernel.

Time is that of fitting alone. Compilation is listed apart, and prediction, which either needs once,
is not counted. Of exact inference every point is a fit of its own, with so many steps; of the
sparse one, whose learning rate is fixed by the reference's schedule, all points are of one run.
The time to an LPD is that of the first point that reaches it.
"""

import argparse
import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from rich.console import Console
from rich.table import Table

from amt.curves import LearningCurves
from amt.databases import load, paper_pairs
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.posterior import CurvePrediction
from amt.inference.mle import fit_mle
from amt.inference.svgp import REFERENCE, SVGPSettings, advance, begin

STEPS = (5, 10, 20, 40, 80, 160, 300)
KINDS = ("epochs", "configs")


@dataclass
class Point:
    """A point of a trace: steps, seconds of fitting, likelihood per observation, LPD by kind."""

    done: int
    seconds: float
    objective: float
    lpd: dict[str, float]


class Problem(NamedTuple):
    start: MultiTaskGP
    grid: CurveGrid
    held_out: dict[str, CurveGrid]


@dataclass
class Trace:
    name: str
    compile_seconds: float
    points: list[Point]

    def reach(self, kind: str, level: float) -> float:
        """Seconds to the first point with this LPD; infinite if there is none."""
        return min((p.seconds for p in self.points if p.lpd[kind] >= level), default=math.inf)

    def best(self, kind: str) -> float:
        return max(p.lpd[kind] for p in self.points)


def database() -> tuple[str, LearningCurves]:
    """A name, and the sources of pair 0."""
    for name in ("hyperrec", "bundled"):
        try:
            curves = load(name).repeat(0)
            return f"{name}, pair 0", curves.select(tasks=paper_pairs(name)[0][0])
        except FileNotFoundError:
            continue
    raise AssertionError("the bundled database is part of the package")


def hold_out(sources: LearningCurves, seed: int, config: str) -> Callable[[str], Problem]:
    """The problem, in any dtype: what to learn from, and what is held out."""
    order = np.random.default_rng(seed).permutation(sources.num_configs)
    other, configs = np.split(order, [max(sources.num_configs // 5, 1)])
    index = np.arange(sources.num_epochs)
    epochs, between = index[index % 5 != 2], index[index % 5 == 2]
    learned = sources.select(configs=configs.tolist(), epochs=sources.epochs[epochs].tolist())

    def problem(dtype: str) -> Problem:
        grid = jax.device_get(CurveGrid.of(sources, dtype))

        def part(configs, epochs):
            scores = grid.scores[:, configs][:, :, epochs]
            return jax.device_put(CurveGrid(scores, grid.features[configs], grid.epochs[epochs]))

        start = MultiTaskGP.init(learned, jax.random.key(0), dtype=dtype, config=config)
        held_out = {"epochs": part(configs, between), "configs": part(other, index)}
        return Problem(start, part(configs, epochs), held_out)

    return problem


def log_density(
    prediction: CurvePrediction, model: MultiTaskGP, held_out: CurveGrid
) -> Float[Array, ""]:
    """Mean log predictive density of the held-out scores."""
    mean, variance = prediction
    task_noise, epoch_noise = model.noise.factors(len(mean), held_out.epochs)
    variance = variance + task_noise[:, None, None] * epoch_noise
    squared = jnp.square(held_out.scores - mean) / variance
    return -jnp.mean(jnp.log(2 * jnp.pi * variance) + squared) / 2


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = perf_counter()
    result = jax.block_until_ready(call())
    return result, perf_counter() - start


def exact(problem: Problem, steps: Sequence[int]) -> Trace:
    trace = Trace("exact", 0.0, [])
    grid = problem.grid
    starts = jax.tree.map(lambda leaf: leaf[None], problem.start)

    @jax.jit
    def evaluate(model):
        posterior = model.source_posterior(grid)
        return {
            kind: log_density(posterior.curves(new.features, new.epochs), model, new)
            for kind, new in problem.held_out.items()
        }

    for number in steps:
        fit = jax.jit(partial(fit_mle, steps=number))
        compiled, compiling = timed(lambda fit=fit: fit.lower(starts, grid).compile())
        fitted, seconds = timed(lambda compiled=compiled: compiled(starts, grid))
        best = float(fitted.log_likelihood.max()) / grid.scores.size
        trace.points.append(
            Point(number, seconds, best, jax.tree.map(float, evaluate(fitted.model)))
        )
        trace.compile_seconds = max(trace.compile_seconds, compiling)
    return trace


def sparse(
    problem: Problem,
    settings: SVGPSettings,
    minutes: float,
    report: Callable[[Point], None],
) -> Trace:
    start, grid, held_out = problem
    state = jax.jit(lambda: begin(start, grid, jax.random.key(1), settings))()
    one = jax.jit(lambda state: advance(state, grid, settings, passes=1))
    compiled, compiling = timed(lambda: one.lower(state).compile())

    @jax.jit
    def evaluate(state):
        gp = state.gp()
        return {
            kind: log_density(gp.predict(new.features, new.epochs), gp.model, new)
            for kind, new in held_out.items()
        }

    trace, spent = Trace("svgp", compiling, []), 0.0
    for done in range(1, settings.passes + 1):
        (state, elbo), seconds = timed(lambda state=state: compiled(state))
        spent += seconds
        objective = float(elbo.mean()) / grid.scores.size
        trace.points.append(Point(done, spent, objective, jax.tree.map(float, evaluate(state))))
        report(trace.points[-1])
        if spent > 60 * minutes or not math.isfinite(objective):
            break
    return trace


def compare(exact: Trace, sparse: Trace, kind: str) -> dict[str, float]:
    """Times to the best LPD that both reach, and to the best of either."""
    best = {"exact": exact.best(kind), "svgp": sparse.best(kind)}
    result = {}
    for name, level in {"same": min(best.values()), "best": max(best.values())}.items():
        result[f"{name}_lpd"] = level
        result[f"{name}_exact"] = exact.reach(kind, level)
        result[f"{name}_svgp"] = sparse.reach(kind, level)
    return {**result, "ratio": result["same_svgp"] / result["same_exact"]}


def within(trace: Trace, seconds: float) -> str:
    if math.isfinite(seconds):
        return f"{trace.name} {seconds:.2f} s"
    return f"{trace.name} not in {trace.points[-1].seconds:.2f} s"


def show(console: Console, trace: Trace, unit: str, rows: int = 15) -> None:
    table = Table(unit, "seconds", "objective / observation", *KINDS, title=trace.name)
    every = max(len(trace.points) // rows, 1)
    for index, point in enumerate(trace.points):
        if index % every == 0 or index == len(trace.points) - 1:
            table.add_row(
                str(point.done),
                f"{point.seconds:.2f}",
                f"{point.objective:.4f}",
                *(f"{point.lpd[kind]:.4f}" for kind in KINDS),
            )
    console.print(table)
    console.print(f"compilation, apart: {trace.compile_seconds:.1f} s")


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="of fitting the sparse one")
    parser.add_argument("--seed", type=int, default=0, help="which configurations are held out")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float64", "float32"],
        help="of the sparse one (the reference's is float32); exact inference is in float64",
    )
    parser.add_argument("--config", default="deep_poly", help="name of the config kernel")
    parser.add_argument("--output", type=Path, help="JSON file for the traces")
    parser.add_argument("--smoke", action="store_true", help="a tiny problem, for seconds")
    args = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)

    console = Console()
    name, sources = database()
    settings, steps = REFERENCE, STEPS
    if args.smoke:
        sources = sources.select(configs=range(10), epochs=sources.epochs[:6].tolist())
        settings, steps = replace(REFERENCE, num_inducing=16, batch_size=64, passes=3), (5,)
    problem = hold_out(sources, args.seed, args.config)
    ours = problem("float64")
    tasks, configs, epochs = ours.grid.scores.shape
    cores = len(os.sched_getaffinity(0))
    console.print(
        f"{name}: {tasks} sources, {configs} of {sources.num_configs} configurations, {epochs} of "
        f"{sources.num_epochs} epochs; config kernel {args.config}; {platform.machine()}, {cores} "
        f"cores; exact in float64, svgp in {args.dtype}"
    )

    ours = exact(ours, steps)
    show(console, ours, "steps")

    def report(point: Point) -> None:
        lpd = ", ".join(f"{kind} {value:.3f}" for kind, value in point.lpd.items())
        console.print(f"pass {point.done}: {point.seconds:.0f} s, LPD of {lpd}")

    theirs = sparse(problem(args.dtype), settings, args.minutes, report)
    show(console, theirs, "passes")

    results = {kind: compare(ours, theirs, kind) for kind in KINDS}
    for kind, result in results.items():
        console.print(
            f"{kind}: LPD {result['same_lpd']:.3f} by {within(ours, result['same_exact'])}, "
            f"{within(theirs, result['same_svgp'])}: {result['ratio']:.0f} times as long; "
            f"LPD {result['best_lpd']:.3f} by {within(ours, result['best_exact'])}, "
            f"{within(theirs, result['best_svgp'])}"
        )
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        traces = {trace.name: asdict(trace) for trace in (ours, theirs)}
        args.output.write_text(json.dumps({"database": name, **results, **traces}, indent=1))
    return results


if __name__ == "__main__":
    main()
