"""Sparse Gaussian processes: the bound, and predictions against the definition of q."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from numpy.testing import assert_allclose
from numpyro.distributions import constraints
from tinygp.kernels import Constant, Kernel

from amt.gp.grid import CurveGrid
from amt.gp.inducing import InducingPoints, InducingPosterior, SparseGP
from amt.gp.model import MultiTaskGP
from amt.gp.observations import Observations
from amt.gp.points import GridPoints, KroneckerKernel, grid_points
from amt.kernels.task import GivenGram, TaskKernel
from amt.parameters import parameter, unconstrain
from tests import oracle
from tests.gp.problems import SEEDS
from tests.problems import moved, small_curves

CURVES = small_curves(4, 4, 3)


class LearnedTask(TaskKernel):
    """Covariances of the sources and the target, root root', whatever is observed."""

    root: jax.Array = parameter(constraints.real, prior=None)

    @property
    def full(self):
        return self.root @ self.root.T

    def gram(self):
        return self.full[:-1, :-1]

    def with_target(self, observations):
        return GivenGram(self.full)


def problem(**kernels):
    sources, target = CURVES.split(CURVES.tasks[:3], CURVES.tasks[3])
    names = {"config": "matern", "fidelity": "matern", "noise": "task_epoch"} | kernels
    model = MultiTaskGP.init(sources, jax.random.key(0), task="icm", **names)
    root = np.random.default_rng(0).normal(size=(4, 4)) / 2
    model = eqx.tree_at(lambda m: m.task, model, LearnedTask(jnp.asarray(root)))
    return model, CurveGrid.of(sources), target.scores[0]


MODEL, GRID, TARGET = problem()
SIZE = GRID.scores.size
EXTRA = np.asarray(GRID.features)[:3] + np.array([[0.1], [-0.2], [0.3]])


@jax.jit
def _everywhere(model):
    return SparseGP.init(model, GRID, InducingPoints.at(GRID, jnp.arange(SIZE)), jitter=0)


@jax.jit
def _somewhere(model):
    points = InducingPoints.sample(GRID, 9, jax.random.key(3))
    return SparseGP.init(model, GRID, points, jitter=0)


def everywhere(model, jitter=1e-13):
    return dataclasses.replace(_everywhere(model), jitter=jitter)


def somewhere(model, jitter=1e-10):
    return dataclasses.replace(_somewhere(model), jitter=jitter)


@jax.jit
def exact_log_likelihood(gp):
    """The log marginal likelihood at the means of `gp`, by dense algebra."""
    return oracle.of_model(gp.model, GRID).log_density(oracle.design(GRID.scores) @ gp.mean)


@jax.jit
def dense_posterior(gp, observations):
    """Given the means of `gp`, not those of generalized least squares."""
    sources = gp.model.sources(GRID)
    return oracle.condition(sources, gp.model.task.full, observations, means=gp.mean)


def observe(target, count, capacity=6):
    """Scores of the target, and padding that has values too."""
    entries = [(cell % 3, cell // 3) for cell in range(count)]
    entries = [(c, e, target[c, e] + 0.1) for c, e in entries]
    observations = Observations.of(entries, capacity, target.dtype)
    padding = np.arange(capacity) >= count
    return observations._replace(score=np.where(padding, 7.0, observations.score))


condition = jax.jit(lambda gp, *arguments: InducingPosterior.of(gp, GRID).condition(*arguments))
elbo = jax.jit(lambda gp: gp.elbo(GRID))
optimal = jax.jit(lambda gp: gp.with_optimal(GRID))


# The bound


@given(SEEDS)
def test_elbo_never_exceeds_the_marginal_likelihood(seed):
    gp = moved(somewhere(MODEL), seed, 0.5)
    exact, bound, best = map(float, (exact_log_likelihood(gp), elbo(gp), elbo(optimal(gp))))
    slack = 1e-8 * abs(exact)
    assert bound <= best + slack
    assert best <= exact + slack


@given(SEEDS)
def test_elbo_is_the_marginal_likelihood_at_the_optimal_q_of_all_points(seed):
    gp = optimal(everywhere(moved(MODEL, seed, 0.3)))
    assert_allclose(elbo(gp), exact_log_likelihood(gp), rtol=1e-6, atol=1e-6)


def test_batches_average_to_the_whole_bound():
    gp = moved(somewhere(MODEL), 1, 0.5)
    batches = np.random.default_rng(0).permutation(SIZE).reshape(-1, 6)
    of_batch = jax.jit(jax.vmap(lambda gp, index: gp.elbo_of_batch(GRID, index), (None, 0)))
    assert_allclose(np.mean(of_batch(gp, batches)), elbo(gp), rtol=1e-9)
    whole = jax.jit(lambda gp: gp.elbo_of_batch(GRID, jnp.arange(SIZE)))(gp)
    assert_allclose(whole, elbo(gp), rtol=1e-9)


def test_gradients_of_both_bounds_agree_and_are_finite():
    gp = moved(somewhere(MODEL), 2, 0.5)
    free, constrain = unconstrain(gp)
    whole = jax.jit(jax.grad(lambda free: constrain(free).elbo(GRID)))(free)
    batch = jax.jit(
        jax.grad(lambda free: constrain(free).elbo_of_batch(GRID, jnp.arange(SIZE)[::-1]))
    )(free)
    for a, b in zip(*jax.device_get((whole, batch)), strict=True):
        assert np.isfinite(a).all()
        assert_allclose(a, b, rtol=1e-5, atol=1e-6 * max(np.abs(a).max(), 1))


def test_the_optimal_q_is_a_stationary_point():
    gp = optimal(moved(somewhere(MODEL), 3, 0.5))
    slope = eqx.filter_jit(eqx.filter_grad(lambda gp: gp.elbo(GRID)))(gp)
    assert_allclose(slope.center, 0, atol=1e-6)
    assert_allclose(np.tril(slope.root), 0, atol=1e-6)


@pytest.mark.parametrize("name", ["center", "root"])
def test_what_is_learned_of_an_inducing_point(name):
    gp = somewhere(MODEL)
    after = moved(gp, 4, 0.5)
    gp, after = jax.device_get((gp, after))
    assert (after.inducing.task == gp.inducing.task).all()
    assert (after.inducing.features != gp.inducing.features).all()
    assert (after.inducing.epoch > 0).all()
    assert (after.inducing.epoch != gp.inducing.epoch).all()
    assert (getattr(after, name) != getattr(gp, name)).any()


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


class GivenInducing(Kernel):
    """Covariances given q: k(x, x') + k(x, z) `change` k(z, x')."""

    kernel: KroneckerKernel
    points: GridPoints
    change: jax.Array

    def evaluate(self, X1, X2):
        left, right = (self.cross(X) for X in (X1, X2))
        return self.kernel.evaluate(X1, X2) + left @ self.change @ right

    def cross(self, X):
        return jax.vmap(self.kernel.evaluate, (None, 0))(X, self.points)


def given_inducing(gp, full):
    """Kernel of f given q by its definition, and its mean less the task's."""
    z, model = gp.inducing, gp.model
    points = GridPoints(z.task, z.features, z.epoch)
    kernel = KroneckerKernel(GivenGram(full), model.config, model.fidelity)
    Kzz = kernel(points, points)
    Kzz += gp.jitter * jnp.trace(Kzz) / len(Kzz) * jnp.eye(len(Kzz))
    L, inverse = jnp.linalg.cholesky(Kzz), jnp.linalg.inv(Kzz)
    S = L @ jnp.tril(gp.root) @ jnp.tril(gp.root).T @ L.T  # of u
    given_q = GivenInducing(kernel, points, inverse @ (S - Kzz) @ inverse)
    weights = inverse @ L @ gp.center
    return given_q, lambda X: jax.vmap(given_q.cross)(X) @ weights


def by_definition(gp, told, pending=((0, 0), (0, 0)), believed=(np.nan, np.nan)):
    """The target on the grid and at `EXTRA`, given q(u) and then its scores.

    Args:
        pending: configurations and epochs of two more observations.
        believed: scores of these, NaN for none.
    """
    index = (np.append(at, more) for at, more in zip(told[:2], pending, strict=True))
    score = np.append(np.where(told.mask, told.score, np.nan), believed)
    return jax.device_get(_by_definition(gp, *index, score))


@jax.jit
def _by_definition(gp, config, epoch, score):
    tasks, _, epochs = GRID.scores.shape
    features = jnp.concatenate([GRID.features, EXTRA])
    kernel, mean = given_inducing(gp, gp.model.task.full)
    kernel += Constant(gp.mean.var(ddof=1))
    own = GridPoints(jnp.full(len(config), tasks), features[config], GRID.epochs[epoch])
    task_noise, epoch_noise = gp.model.noise.factors(tasks, GRID.epochs)
    noise = jnp.exp(jnp.log(task_noise).mean()) * epoch_noise[epoch]
    test = grid_points(jnp.full(1, tasks), features, GRID.epochs)
    process = oracle.Oracle(kernel, own, score, noise)
    change, variance = process.predict(gp.mean.mean() + mean(own), test)
    total = gp.mean.mean() + mean(test) + change
    return total.reshape(-1, epochs), variance.reshape(-1, epochs)


def assert_equal(got, want, tolerance=1e-8):
    mean, variance = map(np.asarray, want)
    assert_allclose(got.mean, mean, rtol=tolerance, atol=tolerance)
    assert_allclose(got.variance, variance, rtol=tolerance, atol=tolerance * variance.max())


@pytest.mark.parametrize("count", [0, 1, 5])
def test_posterior_equals_its_definition(count):
    for seed in range(4):
        gp, told = moved(somewhere(MODEL, jitter=1e-3), seed, 0.3), observe(TARGET, count)
        mean, variance = by_definition(gp, told)
        assert_equal(condition(gp, told), (mean[:4], variance[:4]))


@pytest.mark.parametrize("count", [0, 3])
def test_configurations_off_the_grid_and_pending_equal_the_definition(count):
    """Two of the observations are off the grid, and so is one of the evaluations under way."""
    for seed in range(4):
        gp = moved(somewhere(MODEL, jitter=1e-3), seed, 0.3)
        told = observe(TARGET, count)
        config = np.array(told.config)
        config[1:3] = 4, 6
        told = told._replace(config=config)
        at = np.asarray([0, 5]), np.asarray([2, 1])
        pending = Observations(*at, np.full(2, np.nan), np.asarray(2))
        before = by_definition(gp, told)
        none = pending._replace(count=np.asarray(0))
        assert_equal(condition(gp, told, EXTRA, none), before)
        after = by_definition(gp, told, at, before[0][at])
        assert_equal(condition(gp, told, EXTRA, pending), after)


@jax.jit
def curves_by_definition(gp, features, epochs):
    kernel, mean = given_inducing(gp, gp.model.task.full)
    test = grid_points(jnp.arange(3), features, epochs)
    shape = 3, len(features), len(epochs)
    return gp.mean[:, None, None] + mean(test).reshape(shape), kernel(test).reshape(shape)


def test_curves_of_the_sources_equal_the_definition():
    gp = moved(somewhere(MODEL, jitter=1e-3), 0, 0.3)
    epochs = np.asarray([0.5, 0.9, 1.2])

    @jax.jit
    def curves(gp):
        posterior = InducingPosterior.of(gp, GRID)
        return posterior.curves(), posterior.curves(EXTRA, epochs)

    on_grid, elsewhere = curves(gp)
    both = np.concatenate([GRID.features, EXTRA]), np.append(GRID.epochs, epochs)
    want = jax.device_get(curves_by_definition(gp, *both))
    assert_equal(on_grid, [moment[:, :4, :3] for moment in want])
    assert_equal(elsewhere, [moment[:, 4:, 3:] for moment in want])


def test_a_low_rank_of_the_fidelity_changes_nothing():
    model, *_ = problem(fidelity="fabolas")
    gp, observations = moved(somewhere(model, jitter=1e-3), 0, 0.3), observe(TARGET, 4)
    limited = jax.jit(lambda: InducingPosterior.of(gp, GRID, 2).condition(observations))()
    whole = condition(gp, observations)
    assert_allclose(limited.mean, whole.mean, rtol=1e-7, atol=1e-8)
    assert_allclose(limited.variance, whole.variance, rtol=1e-7, atol=1e-8)


def test_an_indefinite_task_kernel_gives_nan():
    indefinite = 100 * np.asarray(
        [[1.0, 0, 0, 0.9], [0, 1, 0, 0.9], [0, 0, 1, 0], [0.9, 0.9, 0, 1]]
    )

    class Indefinite(LearnedTask):
        def with_target(self, observations):
            return GivenGram(jnp.asarray(indefinite))

    root = jax.device_put(np.eye(4) * 10)
    gp = everywhere(eqx.tree_at(lambda m: m.task, MODEL, Indefinite(root)), jitter=1e-8)
    assert np.isnan(condition(optimal(gp), observe(TARGET, 2)).variance).all()
