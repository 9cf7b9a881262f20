"""Stochastic variational inference: its settings and steps, and the benchmark beside the exact way.

The bound and the predictions stand in tests/gp/test_inducing.py.
"""

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from amt.gp.grid import CurveGrid
from amt.gp.inducing import InducingPoints, SparseGP
from amt.gp.model import MultiTaskGP
from amt.gp.noise import SeparableNoise
from amt.inference.svgp import REFERENCE, SVGPSettings, advance, begin, fit_svgp
from amt.parameters import stack, unconstrain
from amt.search.simulate import simulate
from tests.problems import small_curves

CURVES = small_curves(4, 4, 3)


def problem(dtype=jnp.float64, **kernels):
    sources, target = CURVES.split(CURVES.tasks[:3], CURVES.tasks[3])
    model = MultiTaskGP.init(sources, jax.random.key(0), dtype=dtype, **kernels)
    return model, CurveGrid.of(sources, dtype), jax.device_put(target.scores[0].astype(dtype))


MODEL, GRID, _ = problem(task="icm", config="matern", fidelity="matern", noise="task_epoch")
SIZE = GRID.scores.size


def test_the_preset_has_the_numbers_of_the_reference():
    reference = SVGPSettings(
        num_inducing=1000,
        batch_size=1000,
        passes=200,
        later_passes=100 * 3,
        optimizer="sgd",
        learning_rate=0.02,
        momentum=0.8,
        warmup=0.01,
        noise=math.log(2),
        start="prior",
        jitter=None,
    )
    assert reference == REFERENCE
    assert REFERENCE.batches(30_000) == (30, 1000)
    assert REFERENCE.batches(30_999) == (30, 1000)  # the last batch is dropped
    rate = jax.jit(REFERENCE.rate)
    # transformers.get_linear_schedule_with_warmup, a step of it after every pass
    for done, share in [(0, 0), (1, 0.2), (5, 1), (6, 494 / 495), (199, 301 / 495), (500, 0)]:
        assert_allclose(rate(float(done)), 0.02 * share, rtol=1e-12)


def test_sgd_steps_are_those_of_momentum_also_side_by_side():
    """Two passes of two batches, by hand."""
    settings = SVGPSettings(
        num_inducing=4,
        batch_size=SIZE // 2,
        passes=2,
        optimizer="sgd",
        learning_rate=0.01,
        momentum=0.8,
        warmup=0.5,
        noise=0.3,
        start="prior",
    )
    start = jax.jit(lambda key: begin(MODEL, GRID, key, settings))
    states = [start(jax.random.key(seed)) for seed in range(2)]
    state = states[1]
    assert_allclose(state.gp().model.noise.variance, 0.3)
    go = jax.jit(lambda states: jax.vmap(lambda s: advance(s, GRID, settings, 2))(stack(states)))
    after, values = jax.tree.map(lambda leaf: leaf[1], jax.device_get(go(states)))
    free, constrain = unconstrain(state.start)
    slope = jax.jit(jax.value_and_grad(lambda f, i: -constrain(f).elbo_of_batch(GRID, i) / SIZE))
    key, free, velocity, expected = state.key, jax.device_get(free), [0.0] * len(free), []
    for rate in (0.0, 0.01):
        key, order = jax.random.split(key)
        for index in np.reshape(jax.random.permutation(order, SIZE), (2, -1)):
            value, gradient = jax.device_get(slope(free, index))
            velocity = [0.8 * v + g for v, g in zip(velocity, gradient, strict=True)]
            free = tuple(f - rate * v for f, v in zip(free, velocity, strict=True))
            expected.append(-SIZE * value)
    assert_allclose(values, expected, rtol=1e-9)
    for a, b in zip(after.free, free, strict=True):
        assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("kernels", "options"),
    [
        ({"task": "at2", "config": "deep_poly", "fidelity": "at2"}, {"optimizer": "sgd"}),
        ({"task": "icm", "config": "tree", "fidelity": "fabolas"}, {"batch_size": None}),
    ],
)
def test_learns_and_tunes_in_float32(kernels, options):
    model, grid, target = problem(jnp.float32, noise="task_epoch", **kernels)
    start = {"num_inducing": 10, "batch_size": 12, "passes": 30, "noise": 0.1}
    settings = replace(SVGPSettings(**start), **options)

    @jax.jit
    def run(key):
        fit = fit_svgp(model, grid, key, settings=settings)
        return fit, simulate(fit.posterior(grid), target, budget=4)

    fit, trajectory = jax.device_get(run(jax.random.key(1)))
    assert fit.elbo.shape == (30 if settings.batch_size is None else 90,)
    assert fit.elbo.dtype == trajectory.score.dtype == jnp.float32
    assert np.isfinite(fit.elbo).all()
    assert fit.elbo[-6:].mean() > fit.elbo[:3].mean()
    assert np.isfinite(trajectory.score).all()
    pairs = set(zip(trajectory.config.tolist(), trajectory.epoch.tolist(), strict=True))
    assert len(pairs) == 4


def test_the_benchmark_runs():
    path = Path(__file__).parents[2] / "scripts" / "benchmark_inference.py"
    spec = importlib.util.spec_from_file_location("benchmark_inference", path)
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark
    spec.loader.exec_module(benchmark)
    for result in benchmark.main(["--smoke", "--config", "matern"]).values():
        assert math.isfinite(result["same_exact"])
        assert math.isfinite(result["same_svgp"])

    # The time to the level that both reach, of the first points that do.
    def trace(name, *lpd):
        points = [benchmark.Point(i, 10.0 * i, 0.0, {"a": v}) for i, v in enumerate(lpd, 1)]
        return benchmark.Trace(name, 0.0, points)

    exact, sparse = trace("exact", 0.5, 0.1, 2.0), trace("svgp", 0.0, 0.4, 0.3, 0.2)
    result = benchmark.compare(exact, sparse, "a")
    assert (result["same_lpd"], result["same_exact"], result["ratio"]) == (0.4, 10.0, 2.0)
    assert (result["best_exact"], result["best_svgp"]) == (30.0, math.inf)

    # All points as inducing points predict as the exact way does.
    problem = benchmark.hold_out(small_curves(3, 8, 6), 0, "matern")("float64")
    grid = problem.grid
    noise = SeparableNoise(np.asarray([1e-3, 2e-3, 5e-3]), np.asarray(0.7))
    model = eqx.tree_at(lambda m: m.noise, problem.start, noise)

    @jax.jit
    def predictions(model):
        gp = SparseGP.init(
            model, grid, InducingPoints.at(grid, jnp.arange(grid.scores.size)), jitter=1e-12
        )
        means = model.log_likelihood(grid).means
        gp = eqx.tree_at(lambda gp: gp.mean, gp, means).with_optimal(grid)
        exact = model.source_posterior(grid)
        inputs = [(new.features, new.epochs) for new in problem.held_out.values()]
        return [(gp.predict(*new), exact.curves(*new)) for new in inputs]

    for sparse, exact in jax.device_get(predictions(model)):
        for got, want in zip(sparse, exact, strict=True):
            assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"optimizer": "lbfgs"}, {"start": "middle"}, {"passes": 0}, {"batch_size": -1}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        SVGPSettings(**wrong)
