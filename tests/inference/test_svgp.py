"""Sparse variational inference against dense algebra."""

import importlib.util
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpyro.distributions import constraints

from amt.gp.grid import CurveGrid
from amt.gp.inducing import InducingPoints, SparseGP, SparsePosterior
from amt.gp.model import MultiTaskGP
from amt.gp.noise import SeparableNoise
from amt.gp.posterior import Observations, Regression
from amt.gp.solvers.dense import DenseGP
from amt.gp.solvers.kronecker import KroneckerKernel, grid_points
from amt.inference.svgp import REFERENCE, SVGPSettings, advance, begin, fit_svgp
from amt.kernels.task import GivenGram, TaskKernel
from amt.parameters import parameter, unconstrain
from amt.search.fitting import stack
from amt.search.simulate import simulate
from tests.problems import small_curves

CURVES = small_curves(4, 4, 3)
SEEDS = st.integers(0, 2**31 - 1)


class KnownTask(TaskKernel):
    """Task covariances of the sources and the target, root root', whatever is observed."""

    root: jax.Array = parameter(constraints.real, prior=None)

    def gram(self):
        return (self.root @ self.root.T)[:-1, :-1]

    def with_target(self, observations):
        return GivenGram(self.root @ self.root.T)


def problem(task=None, dtype=jnp.float64, **kernels):
    sources, target = CURVES.split(CURVES.tasks[:3], CURVES.tasks[3])
    grid = CurveGrid.of(sources, dtype)
    names = {"config": "matern", "fidelity": "matern", "noise": "task_epoch"} | kernels
    model = MultiTaskGP.init(sources, jax.random.key(0), task=task or "at2", dtype=dtype, **names)
    if task is None:
        root = np.random.default_rng(0).normal(size=(4, 4)) / 2
        model = eqx.tree_at(lambda m: m.task, model, KnownTask(jnp.asarray(root, dtype)))
    return model, grid, jnp.asarray(target.scores[0], dtype)


MODEL, GRID, TARGET = problem()
SIZE = GRID.scores.size


def varied(gp, seed, scale=0.5):
    """The same with all parameters, inducing points and q moved at random."""
    rng = np.random.default_rng(seed)
    free, constrain = unconstrain(gp)
    return constrain(
        tuple(f + scale * jnp.asarray(rng.normal(size=f.shape), f.dtype) for f in free)
    )


def everywhere(model, grid=GRID, jitter=1e-13):
    points = InducingPoints.at(grid, jnp.arange(grid.scores.size))
    return SparseGP.init(model, grid, points, jitter=jitter)


def somewhere(model, grid=GRID, number=9, jitter=1e-10):
    points = InducingPoints.sample(grid, number, jax.random.key(3))
    return SparseGP.init(model, grid, points, jitter=jitter)


@jax.jit
def exact_log_likelihood(gp):
    """The log marginal likelihood at the means of `gp`, by dense algebra."""
    process = DenseGP(gp.model).process(GRID)
    return process.log_probability((GRID.scores - gp.mean[:, None, None]).ravel())


@jax.jit
def dense_posterior(gp, observations):
    """Given the means of `gp`, not those of generalized least squares."""
    posterior = DenseGP(gp.model).posterior(GRID)
    process = DenseGP(gp.model).process(GRID)
    residual = (GRID.scores - gp.mean[:, None, None]).ravel()
    weights = jnp.linalg.solve(process.covariance, residual).reshape(GRID.scores.shape)
    config = gp.model.config(GRID.features, GRID.features)
    response = config @ weights @ gp.model.fidelity(GRID.epochs, GRID.epochs)
    posterior = eqx.tree_at(lambda p: (p.source_mean, p.response), posterior, (gp.mean, response))
    return posterior.condition(observations)


def observe(target, count, capacity=6):
    observations = Observations.empty(capacity, target.dtype)
    for cell in range(count):
        config, epoch = cell % 3, cell // 3
        observations = observations.append(config, epoch, target[config, epoch] + 0.1)
    return observations._replace(score=observations.score.at[count:].set(7.0))


condition = jax.jit(lambda gp, o, rank=None: SparsePosterior.of(gp, GRID, rank).condition(o))
elbo = jax.jit(lambda gp: gp.elbo(GRID))
optimal = jax.jit(lambda gp: gp.with_optimal(GRID))


# The bound


@given(SEEDS)
def test_elbo_never_exceeds_the_marginal_likelihood(seed):
    gp = varied(somewhere(MODEL), seed)
    exact = exact_log_likelihood(gp)
    best = optimal(gp)
    slack = 1e-8 * abs(exact)
    assert elbo(gp) <= elbo(best) + slack
    assert elbo(best) <= exact + slack


@given(SEEDS)
def test_elbo_is_the_marginal_likelihood_at_the_optimal_q_of_all_points(seed):
    rng = np.random.default_rng(seed)
    free, constrain = unconstrain(MODEL)
    model = constrain(tuple(f + 0.3 * rng.normal(size=f.shape) for f in free))
    gp = optimal(everywhere(model))
    assert_allclose(elbo(gp), exact_log_likelihood(gp), rtol=1e-6, atol=1e-6)


def test_batches_average_to_the_whole_bound():
    gp = varied(somewhere(MODEL), 1)
    batches = jax.random.permutation(jax.random.key(0), SIZE).reshape(-1, 6)
    of_batch = jax.jit(jax.vmap(lambda gp, index: gp.elbo_of_batch(GRID, index), (None, 0)))
    assert_allclose(of_batch(gp, batches).mean(), elbo(gp), rtol=1e-9)
    whole = gp.elbo_of_batch(GRID, jnp.arange(SIZE))
    assert_allclose(whole, elbo(gp), rtol=1e-9)


def test_gradients_of_both_bounds_agree_and_are_finite():
    gp = varied(somewhere(MODEL), 2)
    free, constrain = unconstrain(gp)
    whole = jax.jit(jax.grad(lambda free: constrain(free).elbo(GRID)))(free)
    batch = jax.jit(
        jax.grad(lambda free: constrain(free).elbo_of_batch(GRID, jnp.arange(SIZE)[::-1]))
    )(free)
    for a, b in zip(whole, batch, strict=True):
        assert jnp.isfinite(a).all()
        assert_allclose(a, b, rtol=1e-5, atol=1e-6 * max(float(jnp.abs(a).max()), 1))


def test_the_optimal_q_is_a_stationary_point():
    gp = optimal(varied(somewhere(MODEL), 3))
    slope = eqx.filter_jit(eqx.filter_grad(lambda gp: gp.elbo(GRID)))(gp)
    assert_allclose(slope.center, 0, atol=1e-6)
    assert_allclose(jnp.tril(slope.root), 0, atol=1e-6)


@pytest.mark.parametrize("name", ["center", "root"])
def test_what_is_learned_of_an_inducing_point(name):
    gp = somewhere(MODEL)
    moved = varied(gp, 4)
    assert (moved.inducing.task == gp.inducing.task).all()
    assert (moved.inducing.features != gp.inducing.features).all()
    assert (moved.inducing.epoch > 0).all()
    assert (moved.inducing.epoch != gp.inducing.epoch).all()
    assert (getattr(moved, name) != getattr(gp, name)).any()


# Prediction


@pytest.mark.parametrize("count", [0, 5])
def test_agrees_with_dense_when_every_point_is_an_inducing_point(count):
    gp = optimal(everywhere(MODEL))
    got, want = condition(gp, observe(TARGET, count)), dense_posterior(gp, observe(TARGET, count))
    assert_allclose(got.mean, want.mean, atol=1e-6)
    assert_allclose(got.variance, want.variance, atol=1e-6)


def test_optimising_q_alone_agrees_with_dense_to_1e3():
    start = everywhere(MODEL, jitter=1e-8)
    best = optimal(start)

    @jax.jit
    def newton(gp):
        # The bound is a parabola in m, whose curvature is the inverse of the best S.
        slope = eqx.filter_grad(lambda gp: gp.elbo(GRID))(gp)
        return gp.center + best.root @ best.root.T @ slope.center

    assert_allclose(newton(start), best.center, atol=1e-6)
    dense = dense_posterior(best, observe(TARGET, 3))
    assert_allclose(condition(best, observe(TARGET, 3)).mean, dense.mean, atol=1e-3)
    assert_allclose(condition(best, observe(TARGET, 3)).variance, dense.variance, atol=1e-3)


@partial(jax.jit, static_argnames="count")
def brute_force(gp, observations, count):
    """The Gaussian of the target's function on the grid given q(u), then given observations."""
    z, model, (tasks, configs, epochs) = gp.inducing, gp.model, GRID.scores.shape
    gram = model.task.root @ model.task.root.T
    points = grid_points(jnp.full(1, tasks), GRID.features, GRID.epochs)
    Z = type(points)(z.task, z.features, z.epoch)
    kernel = KroneckerKernel(GivenGram(gram), model.config, model.fidelity)
    Kzz = kernel(Z, Z)
    Kzz += gp.jitter * jnp.trace(Kzz) / len(Kzz) * jnp.eye(len(Kzz))
    L = jnp.linalg.cholesky(Kzz)
    S = L @ jnp.tril(gp.root) @ jnp.tril(gp.root).T @ L.T  # of u
    solve = jnp.linalg.solve(Kzz, kernel(Z, points))
    mean = gp.mean.mean() + solve.T @ L @ gp.center
    covariance = kernel(points, points) + gp.mean.var(ddof=1)
    covariance += solve.T @ (S - Kzz) @ solve

    index = observations.config[:count] * epochs + observations.epoch[:count]
    task_noise, epoch_noise = model.noise.factors(tasks, GRID.epochs)
    noise = jnp.exp(jnp.log(task_noise).mean()) * epoch_noise[observations.epoch[:count]]
    gain = jnp.linalg.solve(covariance[index][:, index] + jnp.diag(noise), covariance[index]).T
    mean += gain @ (observations.score[:count] - mean[index])
    variance = jnp.diagonal(covariance - gain @ covariance[index])
    return mean.reshape(configs, epochs), variance.reshape(configs, epochs)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_posterior_equals_brute_force(count):
    for seed in range(4):
        gp, observations = varied(somewhere(MODEL, jitter=1e-3), seed, 0.3), observe(TARGET, count)
        got = condition(gp, observations)
        mean, variance = brute_force(gp, observations, count)
        assert_allclose(got.mean, mean, rtol=1e-8, atol=1e-8)
        assert_allclose(got.variance, variance, rtol=1e-8, atol=1e-8 * variance.max())


def test_a_low_rank_of_the_fidelity_changes_nothing():
    model, *_ = problem(fidelity="fabolas")
    gp, observations = varied(somewhere(model, jitter=1e-3), 0, 0.3), observe(TARGET, 4)
    limited = jax.jit(lambda: SparsePosterior.of(gp, GRID, 2).condition(observations))()
    for a, b in zip(limited, condition(gp, observations), strict=True):
        assert_allclose(a, b, rtol=1e-7, atol=1e-8)


def test_a_task_kernel_that_moves_the_sources_stays_consistent():
    """Of sources whose covariances change with the target, q keeps its own."""
    gp = optimal(somewhere(MODEL))
    posterior = SparsePosterior.of(gp, GRID)
    new = np.random.default_rng(5).normal(size=(4, 4))
    new = jnp.asarray(new @ new.T)
    row, scale, *_ = Regression.of(posterior.task.gram(), new)
    regression = jnp.linalg.solve(new[:-1, :-1], new[:-1, -1])
    assert_allclose(row, posterior.task.gram() @ regression, rtol=1e-5)
    rest = new[-1, -1] - regression @ new[:-1, -1]
    assert_allclose(scale, rest + regression @ posterior.task.gram() @ regression, rtol=1e-5)


def test_an_indefinite_task_kernel_gives_nan():
    indefinite = 100 * jnp.asarray(
        [[1.0, 0, 0, 0.9], [0, 1, 0, 0.9], [0, 0, 1, 0], [0.9, 0.9, 0, 1]]
    )

    class Indefinite(KnownTask):
        def with_target(self, observations):
            return GivenGram(indefinite)

    root = jnp.eye(4) * 10
    gp = everywhere(eqx.tree_at(lambda m: m.task, MODEL, Indefinite(root)), jitter=1e-8)
    assert jnp.isnan(condition(optimal(gp), observe(TARGET, 2)).variance).all()


# The fit


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
    # transformers.get_linear_schedule_with_warmup, a step of it after every pass
    for done, share in [(0, 0), (1, 0.2), (5, 1), (6, 494 / 495), (199, 301 / 495), (500, 0)]:
        assert_allclose(REFERENCE.rate(jnp.asarray(float(done))), 0.02 * share, rtol=1e-12)


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
    states = [begin(MODEL, GRID, jax.random.key(seed), settings) for seed in range(2)]
    state = states[1]
    assert_allclose(state.gp().model.noise.variance, 0.3)
    go = jax.jit(jax.vmap(lambda state: advance(state, GRID, settings, 2)))
    after, values = jax.tree.map(lambda leaf: leaf[1], go(stack(states)))
    free, constrain = unconstrain(state.start)
    slope = jax.jit(jax.value_and_grad(lambda f, i: -constrain(f).elbo_of_batch(GRID, i) / SIZE))
    key, velocity, expected = state.key, [0.0] * len(free), []
    for rate in (0.0, 0.01):
        key, order = jax.random.split(key)
        for index in jax.random.permutation(order, SIZE).reshape(2, -1):
            value, gradient = slope(free, index)
            velocity = [0.8 * v + g for v, g in zip(velocity, gradient, strict=True)]
            free = tuple(f - rate * v for f, v in zip(free, velocity, strict=True))
            expected.append(-SIZE * value)
    assert_allclose(values, jnp.stack(expected), rtol=1e-9)
    for a, b in zip(after.free, free, strict=True):
        assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("task", "kernels", "options"),
    [
        ("at2", {"config": "deep_poly", "fidelity": "at2"}, {"optimizer": "sgd"}),
        ("icm", {"config": "tree", "fidelity": "fabolas"}, {"batch_size": None}),
    ],
)
def test_learns_and_tunes_in_float32(task, kernels, options):
    model, grid, target = problem(task, jnp.float32, **kernels)
    start = {"num_inducing": 10, "batch_size": 12, "passes": 30, "noise": 0.1}
    settings = replace(SVGPSettings(**start), **options)

    @jax.jit
    def run(key):
        fit = fit_svgp(model, grid, key, settings=settings)
        return fit, simulate(fit.posterior(grid), target, budget=4)

    fit, trajectory = run(jax.random.key(1))
    assert fit.elbo.shape == (30 if settings.batch_size is None else 90,)
    assert fit.elbo.dtype == trajectory.score.dtype == jnp.float32
    assert jnp.isfinite(fit.elbo).all()
    assert fit.elbo[-6:].mean() > fit.elbo[:3].mean()
    assert jnp.isfinite(trajectory.score).all()
    pairs = set(zip(trajectory.config.tolist(), trajectory.epoch.tolist(), strict=True))
    assert len(pairs) == 4


def test_the_benchmark_runs():
    path = Path(__file__).parents[2] / "scripts" / "benchmark_inference.py"
    spec = importlib.util.spec_from_file_location("benchmark_inference", path)
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = benchmark
    spec.loader.exec_module(benchmark)
    for result in benchmark.main(["--smoke"]).values():
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
    noise = SeparableNoise(jnp.asarray([1e-3, 2e-3, 5e-3]), jnp.asarray(0.7))
    model = eqx.tree_at(lambda m: m.noise, problem.start, noise)

    @jax.jit
    def predictions(model, new):
        gp = SparseGP.init(
            model, grid, InducingPoints.at(grid, jnp.arange(grid.scores.size)), jitter=1e-12
        )
        means = model.log_likelihood(grid)[1]
        gp = eqx.tree_at(lambda gp: gp.mean, gp, means).with_optimal(grid)
        return gp.predict(new), benchmark.predict(model, grid, new)

    for new in problem.held_out.values():
        for got, want in zip(*predictions(model, new), strict=True):
            assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"optimizer": "lbfgs"}, {"start": "middle"}, {"passes": 0}, {"batch_size": -1}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        SVGPSettings(**wrong)
