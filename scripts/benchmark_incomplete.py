"""Final scores that incomplete learning curves leave open: amt, a subset-dense GP, and BoTorch.

    python scripts/benchmark_incomplete.py [--botorch-python PATH] [--minutes 2.5] [--output FILE]
    python scripts/benchmark_incomplete.py --large

The sources of HyperRec's pair 0 lose 30% of their (task, configuration) cells, and of the curves
that are left 50% end at a random epoch (`--seed` says which). Held out are the final scores of both
kinds; they are scored by the mean log predictive density (LPD) of single scores, noise included,
and by the root mean squared error (RMSE). Contenders, each in a process of its own, whose peak
memory is its own (`ru_maxrss`), one after the other, on the same file:

    amt      `fit_mle` of `MultiTaskGP` on all observations, and its posterior's `curves`
    subset   the same model, means and optimiser on `--dense` random observations, by dense Cholesky
             factorisations
    botorch  `LatentKroneckerGP` on all observations by `fit_gpytorch_mll` in its
             `use_iterative_methods`, for `--minutes` at most

BoTorch's rows are (task, configuration) cells, with a kernel that is a product of an `IndexKernel`
of full rank on tasks and of Matern-5/2 with a lengthscale for each feature; its columns are epochs,
with its own Matern-5/2 on their logarithms. (A batch of tasks would share nothing, and must miss
the same entries.) amt has the same two, a free-form task kernel of full rank and ARD Matern, and
freeze-thaw's on epochs, the best of small rank in the kernel ablation (`--kernels` names others);
and what BoTorch's has not, a noise variance and a nugget of each task. (`--plain` is without
either, and of rank 2.) Scores are centred by task for BoTorch, which then standardises them.

BoTorch's likelihood is stochastic, and `fit_gpytorch_mll` by itself spends its time in the line
searches of L-BFGS (3 iterations in 150 s on a busy machine, the third worse than the second). So it
gets Adam (`fit_gpytorch_mll_torch`) with amt's learning rate; `--botorch-optimizer lbfgs` is one
run of the other. (Probes that stay the same would suit L-BFGS, but `deterministic_probes` makes a
step ten times as long, by a dense root of the preconditioner.)

It predicts by its `posterior`: means, and variances of 64 of its pathwise samples. (What
`posterior.variance` does took more than 4 minutes by conjugate gradients, and more than 15 GiB by
a Cholesky factorisation.)

Either is scored after several numbers of steps. Of amt, every one is a fit of its own; of BoTorch,
they are from one run, of which the end and the middle are scored. Time is that of fitting and one
prediction, compilation told apart; the time to an LPD is that of the first point that reaches it.

The interpreter `--botorch-python` needs BoTorch and NumPy alone, not amt. Without it, and where
this one has no BoTorch, the two others are compared.

`--large` times amt alone, plain, on all 27 tasks of HyperRec with half of all entries missing: 30%
of cells as above, and 4/7 of the other curves truncated.
"""

# pyright: reportMissingImports=false
# BoTorch and PyTorch may be another interpreter's, and amt is not there: what the contenders need
# they import themselves.

import argparse
import importlib.util
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

KINDS = ("truncated", "missing")
SAMPLES = 64
LARGE = {"tolerance": 0.5, "rank": 10, "probes": 4, "lanczos": 32, "samples": SAMPLES}


class Point(NamedTuple):
    """A contender's result: steps of its optimiser, seconds until then, of prediction, and the
    prediction of final scores, noise included, of shape (task, config).
    """

    steps: int
    seconds: float
    predicting: float
    mean: np.ndarray
    variance: np.ndarray


class Score(NamedTuple):
    lpd: float
    rmse: float


def lengths(
    shape: tuple[int, int, int], seed: int, missing: float = 0.3, truncated: float = 0.5
) -> np.ndarray:
    """Number of epochs that each (task, config) cell has, 0 where it is missing.

    `truncated` is the share of the curves that are not missing; they end uniformly at random
    before the last epoch.
    """
    rng = np.random.default_rng(seed)
    tasks, configs, epochs = shape
    cells = rng.permutation(tasks * configs)
    none = round(missing * len(cells))
    some = none + round(truncated * (len(cells) - none))
    length = np.full(len(cells), epochs)
    length[cells[:none]] = 0
    length[cells[none:some]] = rng.integers(1, epochs, some - none)
    return length.reshape(tasks, configs)


def kept(scores: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The scores, NaN behind the end of each curve."""
    return np.where(np.arange(scores.shape[2]) < length[:, :, None], scores, np.nan)


def held_out(length: np.ndarray, epochs: int) -> dict[str, np.ndarray]:
    return {"truncated": (length > 0) & (length < epochs), "missing": length == 0}


def score(point: Point, final: np.ndarray, held_out: np.ndarray) -> Score:
    """Score predictions of the final scores where `held_out` says so."""
    error = (final - point.mean)[held_out]
    variance = point.variance[held_out]
    lpd = -np.mean(np.log(2 * np.pi * variance) + np.square(error) / variance) / 2
    return Score(float(lpd), float(np.sqrt(np.mean(np.square(error)))))


def reach(points: Sequence[Point], scores: Sequence[float], level: float) -> float:
    """Seconds of fitting and predicting of the first point with that score; inf without one."""
    seconds = (p.seconds + p.predicting for p, s in zip(points, scores, strict=True) if s >= level)
    return min(seconds, default=math.inf)


def database(settings: dict[str, Any]):
    """The learning curves, all their scores in place."""
    from amt.databases import load, paper_pairs

    name = settings["database"]
    curves = load(name).repeat(0)
    if not settings["large"]:
        curves = curves.select(tasks=paper_pairs(name)[0][0])
    if settings["smoke"]:
        curves = curves.select(configs=range(12), epochs=curves.epochs[:8].tolist())
    return curves


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    import jax

    start = perf_counter()
    result = jax.block_until_ready(call())
    return result, perf_counter() - start


def compiled(function: Callable, *args) -> tuple[Callable, float]:
    import jax

    return timed(lambda: jax.jit(function).lower(*args).compile())


def amt(
    settings: dict[str, Any], scores: np.ndarray, subset: bool
) -> Iterator[tuple[Point, float]]:
    """Points, and what compilation took."""
    from dataclasses import replace

    import jax

    jax.config.update("jax_enable_x64", True)
    from amt.gp.grid import CurveGrid
    from amt.gp.model import MultiTaskGP, select_solver
    from amt.gp.solvers import Iterative, Settings
    from amt.inference.mle import fit_mle
    from amt.kernels import make_kernel

    curves = replace(database(settings), scores=scores)
    grid = CurveGrid.of(curves)
    names = dict(zip(("task", "config", "fidelity"), settings["kernels"].split(","), strict=True))
    key, plain = jax.random.key(settings["seed"]), settings["plain"] or settings["large"]
    start: Any = MultiTaskGP.init(
        curves,
        key,
        **names,
        noise="homoscedastic" if plain else "task",
        nugget=not plain,
    )
    if names["task"] == "icm" and not plain:
        start = replace(start, task=make_kernel("task", "icm", curves, key, rank=len(scores)))
    if subset:
        seen = np.argwhere(np.isfinite(scores))
        number = min(settings["dense"], len(seen))
        at = np.random.default_rng(settings["seed"]).choice(seen, number, replace=False)
        solver, predict = subset_gp(at.T)
    else:
        solver, predict = select_solver(start, grid).solver, final_scores
        if isinstance(solver, Iterative) and settings["large"]:
            solver = Iterative(Settings(**LARGE))
    starts = jax.tree.map(lambda leaf: leaf[None], start)

    def fit_by(starts, grid, solver, **options):
        return fit_mle(starts, grid, solver=solver, **options)

    predict, predict_compiling = compiled(predict, start, grid, solver)
    for steps in settings["dense_steps"] if subset else settings["steps"]:
        fit = partial(fit_by, steps=steps, learning_rate=settings["learning_rate"])
        fit, compiling = compiled(fit, starts, grid, solver)
        result, seconds = timed(lambda fit=fit: fit(starts, grid, solver))
        prediction, predicting = timed(lambda model=result.model: predict(model, grid, solver))
        mean, variance = (np.asarray(array) for array in prediction)
        yield Point(steps, seconds, predicting, mean, variance), compiling + predict_compiling


def final_scores(model, grid, solver):
    """Mean and variance of the last scores by the library's posterior, noise included."""
    prediction = model.source_posterior(grid, solver=solver).curves()
    task_noise, epoch_noise = model.noise.factors(len(grid.scores), grid.epochs)
    noise = task_noise[:, None] * epoch_noise[-1]
    return prediction.mean[:, :, -1], prediction.variance[:, :, -1] + noise


def subset_gp(at: np.ndarray):
    """A solver that sees some scores alone, by dense Cholesky factorisations, and its prediction.

    Args:
        at: tasks, configurations and epochs of these scores, one in each column.
    """
    import jax
    import jax.numpy as jnp

    from amt.gp.solvers import AbstractSolver, Solution
    from amt.linalg import cholesky, solve_cholesky, solve_lower

    def covariance(factors, points):
        """Covariances of the observations with points."""
        task, config, fidelity = factors.grams
        curves = task[at[0][:, None], points[0]] * config[at[1][:, None], points[1]]
        if factors.nugget is not None:
            same = (at[0][:, None] == points[0]) & (at[1][:, None] == points[1])
            curves += jnp.where(same, factors.nugget[at[0]][:, None], 0)
        return curves * fidelity[at[2][:, None], points[2]]

    def solved(factors, scores):
        """Cholesky factor, task means, and scores and means' columns solved for with the factor."""
        noise = factors.task_noise[at[0]] * factors.epoch_noise[at[2]]
        factor = cholesky(covariance(factors, at) + jnp.diag(noise))
        which = jnp.eye(len(scores))[at[0]]
        half = solve_lower(factor, jnp.concatenate([scores[*at][:, None], which], 1))
        design = half[:, 1:]
        ridge = 1e-9 * jnp.eye(design.shape[1])  # a task may have no score among them
        means = solve_cholesky(cholesky(design.T @ design + ridge), design.T @ half[:, :1])[:, 0]
        return factor, jax.lax.stop_gradient(means), half

    class Subset(AbstractSolver):
        def solve(self, factors, scores):
            factor, means, half = solved(factors, scores)
            squares = jnp.sum(jnp.square(half[:, 0] - half[:, 1:] @ means))
            log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
            value = -0.5 * (squares + log_det + len(factor) * math.log(2 * math.pi))
            return Solution(value, means, jnp.asarray(True))

        def posterior(self, sources, rank=None):
            raise TypeError("only final scores are predicted, by the function beside this solver")

    def prediction(model, grid, solver):
        factors = model.factors(grid)
        factor, means, half = solved(factors, grid.scores)
        tasks, configs, _ = grid.scores.shape
        final = np.indices(grid.scores.shape)[..., -1].reshape(3, -1)
        gain = solve_lower(factor, covariance(factors, final))
        residual = half[:, 0] - half[:, 1:] @ means
        task, config, fidelity = factors.grams
        prior = jnp.diagonal(task)[:, None] * jnp.diagonal(config)
        if factors.nugget is not None:
            prior += factors.nugget[:, None]
        prior *= fidelity[-1, -1]
        explained = jnp.sum(jnp.square(gain), 0).reshape(tasks, configs)
        noise = factors.task_noise[:, None] * factors.epoch_noise[-1]
        variance = jnp.maximum(prior - explained, 0) + noise
        return means[:, None] + (residual @ gain).reshape(tasks, configs), variance

    return Subset(), prediction


def botorch(settings: dict[str, Any], problem: Any) -> Iterator[tuple[Point, float]]:
    import warnings

    import torch
    from botorch.exceptions.errors import ModelFittingError
    from botorch.fit import fit_gpytorch_mll
    from botorch.models.latent_kronecker_gp import LatentKroneckerGP
    from botorch.optim.fit import fit_gpytorch_mll_scipy, fit_gpytorch_mll_torch
    from gpytorch.kernels import IndexKernel, MaternKernel, ProductKernel
    from gpytorch.mlls import ExactMarginalLogLikelihood

    warnings.filterwarnings("ignore")
    torch.manual_seed(settings["seed"])
    scores, features = problem["scores"], torch.as_tensor(problem["features"])
    tasks, configs, epochs = scores.shape
    center = np.nanmean(scores, (1, 2))
    task = torch.arange(tasks, dtype=torch.float64).repeat_interleave(configs)
    X = torch.cat([task[:, None], features.repeat(tasks, 1)], 1)
    T = torch.log(torch.as_tensor(problem["epochs"], dtype=torch.float64))[:, None]
    T = (T - T[0]) / (T[-1] - T[0])
    columns = list(range(1, X.shape[1]))
    model = LatentKroneckerGP(
        X,
        T,
        torch.as_tensor(scores - center[:, None, None]).reshape(tasks * configs, epochs),
        covar_module_X=ProductKernel(
            IndexKernel(tasks, rank=tasks, active_dims=[0]),
            MaternKernel(ard_num_dims=len(columns), active_dims=columns),
        ),
    ).double()
    mll = ExactMarginalLogLikelihood(model.likelihood, model)
    start, path = perf_counter(), []

    def record(_, result):
        values = [p.detach().clone() for p in model.parameters()]
        path.append((result.step, perf_counter() - start, values))

    options: dict[str, Any] = {"callback": record, "timeout_sec": 60 * settings["minutes"]}
    if settings["botorch_optimizer"] == "lbfgs":
        optimizer = fit_gpytorch_mll_scipy
    else:
        optimizer = fit_gpytorch_mll_torch
        options["optimizer"] = partial(torch.optim.Adam, lr=settings["learning_rate"])
    with model.use_iterative_methods():
        try:
            fit_gpytorch_mll(mll, optimizer=optimizer, optimizer_kwargs=options, max_attempts=1)
        except ModelFittingError:
            print(f"botorch's line search failed after {perf_counter() - start:.0f} s")
    if not path:
        raise SystemExit("botorch made no step: give it more --minutes")
    seconds = path[-1][1]

    # The end, and what was reached in half of the time.
    half = [p for p in path[:-1] if p[1] <= seconds / 2][-1:]
    for step, until, values in (*half, path[-1]):
        begin = perf_counter()
        model.train()
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), values, strict=True):
                parameter.copy_(value)
        model.eval()
        with torch.no_grad(), model.use_iterative_methods():
            posterior = model.posterior(X, T[-1:])
            mean = posterior.mean
            samples = posterior.rsample(torch.Size([SAMPLES])).reshape(SAMPLES, -1)
        scale = model.outcome_transform.stdvs.item()
        mean = mean.reshape(tasks, configs).numpy() * scale
        mean = mean + model.outcome_transform.means.item() + center[:, None]
        variance = samples.var(0).reshape(tasks, configs).numpy()
        variance = variance + model.likelihood.noise.item() * scale**2
        yield Point(step, until, perf_counter() - begin, mean, variance), 0.0


def contend(name: str, folder: Path) -> None:
    """In a process of its own: write the points of a contender, its compilation and memory."""
    settings = json.loads((folder / "settings.json").read_text())
    with np.load(folder / "problem.npz") as problem:
        if name == "botorch":
            rows = list(botorch(settings, problem))
        else:
            rows = list(amt(settings, problem["scores"], subset=name == "subset"))
    points, compiling = zip(*rows, strict=True)
    values = map(np.array, zip(*points, strict=True))
    columns: Any = dict(zip(Point._fields, values, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    np.savez(folder / f"{name}.npz", compiling=max(compiling), peak=peak, **columns)


class Result(NamedTuple):
    points: list[Point]
    compiling: float
    peak: float


def run(name: str, folder: Path, python: str) -> Result:
    cores = str(len(os.sched_getaffinity(0)))
    threads = {"OPENBLAS_NUM_THREADS": cores, "OMP_NUM_THREADS": cores}
    command = [python, str(Path(__file__).resolve()), "--contender", name, "--folder", str(folder)]
    subprocess.run(command, check=True, env={**os.environ, **threads})
    with np.load(folder / f"{name}.npz") as data:
        columns = (data[field].tolist() for field in Point._fields[:3])
        arrays = (data[field] for field in Point._fields[3:])
        points = [Point(*row) for row in zip(*columns, *arrays, strict=True)]
        return Result(points, float(data["compiling"]), float(data["peak"]))


def botorch_python(given: str | None) -> str | None:
    """An interpreter that has BoTorch."""
    if given is None:
        return sys.executable if importlib.util.find_spec("botorch") else None
    there = subprocess.run([given, "-c", "import botorch"], capture_output=True, check=False)
    return given if there.returncode == 0 else None


def main(arguments: Sequence[str] | None = None) -> dict[str, Any] | None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--botorch-python", help="interpreter that has BoTorch; default: this one")
    parser.add_argument("--minutes", type=float, default=2.5, help="of fitting BoTorch's, at most")
    parser.add_argument("--botorch-optimizer", default="adam", choices=["lbfgs", "adam"])
    kernels = "icm,matern,freeze_thaw"
    parser.add_argument("--kernels", default=kernels, help="task, config, fidelity")
    parser.add_argument("--plain", action="store_true", help="amt of rank 2, one noise, no nugget")
    parser.add_argument("--steps", type=int, nargs="+", help="of Adam, one fit each")
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--dense", type=int, default=1500, help="observations of the subset")
    parser.add_argument("--dense-steps", type=int, nargs="+", default=[100])
    parser.add_argument("--seed", type=int, default=0, help="which curves end, and where")
    parser.add_argument("--large", action="store_true", help="27 tasks, half missing, amt alone")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--smoke", action="store_true", help="a tiny problem, for seconds")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.contender:
        return contend(args.contender, args.folder)

    from rich.console import Console
    from rich.table import Table

    console = Console(width=120)
    settings = {k: v for k, v in vars(args).items() if k not in ("output", "folder")}
    settings["database"] = "bundled" if args.smoke else "hyperrec"
    settings["steps"] = args.steps or ([50] if args.large else [25, 50, 100, 200])
    if args.smoke:
        settings.update(steps=[3], dense_steps=[3], dense=60, minutes=0.05)
    curves = database(settings)
    length = lengths(curves.scores.shape, args.seed, truncated=4 / 7 if args.large else 0.5)
    final = curves.scores[:, :, -1]
    kinds = held_out(length, curves.num_epochs)
    scores = kept(curves.scores, length)
    observed = np.isfinite(scores)
    cores = len(os.sched_getaffinity(0))
    console.print(
        f"{settings['database']}: {curves.num_tasks} tasks x {curves.num_configs} configurations x "
        f"{curves.num_epochs} epochs, {observed.sum()} scores observed ({observed.mean():.0%}); "
        f"held out {', '.join(f'{kinds[k].sum()} {k}' for k in KINDS)}; {cores} cores, load "
        f"{os.getloadavg()[0]:.1f}; kernels {args.kernels}{', plain' if args.plain else ''}"
    )

    pythons: dict[str, str | None] = {"amt": sys.executable}
    if not args.large:
        pythons.update(subset=sys.executable, botorch=botorch_python(args.botorch_python))
        if pythons["botorch"] is None:
            where = args.botorch_python or sys.executable
            console.print(f"{where} has no BoTorch: compared without it (see --botorch-python)")
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "settings.json").write_text(json.dumps(settings))
        np.savez(
            folder / "problem.npz", scores=scores, features=curves.features, epochs=curves.epochs
        )
        for contender, python in pythons.items():
            if python is not None:
                results[contender] = run(contender, folder, python)
                console.print(f"{contender} is done; load {os.getloadavg()[0]:.1f}")

    table = Table("", "steps", "fit", "predict", "compile", "peak GiB")
    for kind in KINDS:
        table.add_column(f"LPD {kind}")
        table.add_column(f"RMSE {kind}")
    scored = {
        contender: {k: [score(p, final, kinds[k]) for p in result.points] for k in KINDS}
        for contender, result in results.items()
    }
    for contender, result in results.items():
        for index, point in enumerate(result.points):
            values = (scored[contender][kind][index] for kind in KINDS)
            table.add_row(
                contender,
                str(point.steps),
                f"{point.seconds:.1f} s",
                f"{point.predicting:.1f} s",
                f"{result.compiling:.1f} s",
                f"{result.peak:.1f}",
                *(f"{number:.3f}" for value in values for number in value),
            )
    console.print(table)

    ratios: dict[str, dict[str, float]] = {}
    compiling = results["amt"].compiling
    for peer in list(results)[1:]:
        for kind in KINDS:
            lpd = {name: [s.lpd for s in scored[name][kind]] for name in ("amt", peer)}
            level = max(lpd[peer])
            ours = reach(results["amt"].points, lpd["amt"], level)
            theirs = reach(results[peer].points, lpd[peer], level) + results[peer].compiling
            ratio = theirs / (ours + compiling)
            ratios.setdefault(peer, {})[kind] = ratio
            console.print(
                f"{kind}: LPD {level:.3f}, {peer}'s best, after {theirs:.1f} s by {peer}; "
                + (
                    f"at least that by amt after {ours + compiling:.1f} s: {ratio:.1f} times faster"
                    if math.isfinite(ours)
                    else f"not by amt, whose best is {max(lpd['amt']):.3f}"
                )
                + " (compilation included)"
            )
    summary = {
        name: {
            "compile_seconds": result.compiling,
            "peak_gib": result.peak,
            "points": [
                {
                    "steps": point.steps,
                    "fit_seconds": point.seconds,
                    "predict_seconds": point.predicting,
                    **{kind: scored[name][kind][i]._asdict() for kind in KINDS},
                }
                for i, point in enumerate(result.points)
            ],
        }
        for name, result in results.items()
    }
    summary["ratios"] = ratios
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(summary, indent=1))
    return summary


if __name__ == "__main__":
    main()
