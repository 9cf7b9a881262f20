"""Sparse Gaussian processes: the bound, and predictions against the definition of q."""

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
from tests.problems import small_curves

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
    return model, CurveGrid.of(sources), jnp.asarray(target.scores[0])


MODEL, GRID, TARGET = problem()
SIZE = GRID.scores.size
EXTRA = GRID.features[:3] + jnp.asarray([[0.1], [-0.2], [0.3]])


def varied(gp, seed, scale=0.5):
    """The same with all parameters, inducing points and q moved at random."""
    rng = np.random.default_rng(seed)
    free, constrain = unconstrain(gp)
    return constrain(
        tuple(f + scale * jnp.asarray(rng.normal(size=f.shape), f.dtype) for f in free)
    )


def everywhere(model, jitter=1e-13):
    return SparseGP.init(model, GRID, InducingPoints.at(GRID, jnp.arange(SIZE)), jitter=jitter)


def somewhere(model, number=9, jitter=1e-10):
    points = InducingPoints.sample(GRID, number, jax.random.key(3))
    return SparseGP.init(model, GRID, points, jitter=jitter)


@jax.jit
def exact_log_likelihood(gp):
    """The log marginal likelihood at the means of `gp`, by dense algebra."""
    return oracle.of_model(gp.model, GRID).log_density(oracle.design(GRID.scores) @ gp.mean)


def dense_posterior(gp, observations):
    """Given the means of `gp`, not those of generalized least squares."""
    sources = gp.model.sources(GRID)
    return oracle.condition(sources, gp.model.task.full, observations, means=gp.mean)


def observe(target, count, capacity=6):
    """Scores of the target, and padding that has values too."""
    entries = [(cell % 3, cell // 3) for cell in range(count)]
    entries = [(c, e, target[c, e] + 0.1) for c, e in entries]
    observations = Observations.of(entries, capacity, target.dtype)
    return observations._replace(score=observations.score.at[count:].set(7.0))


prepare = jax.jit(lambda gp: InducingPosterior.of(gp, GRID))
condition = jax.jit(lambda gp, *arguments: InducingPosterior.of(gp, GRID).condition(*arguments))
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
    whole = jax.jit(lambda gp: gp.elbo_of_batch(GRID, jnp.arange(SIZE)))(gp)
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


@jax.jit
def by_definition(gp, config, epoch, score):
    """The target on the grid and at `EXTRA`, given q(u) and then its scores that are not NaN."""
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
    assert_allclose(got.mean, want[0], rtol=tolerance, atol=tolerance)
    assert_allclose(got.variance, want[1], rtol=tolerance, atol=tolerance * want[1].max())


@pytest.mark.parametrize("count", [0, 1, 5])
def test_posterior_equals_its_definition(count):
    for seed in range(4):
        gp, told = varied(somewhere(MODEL, jitter=1e-3), seed, 0.3), observe(TARGET, count)
        score = jnp.where(told.mask, told.score, jnp.nan)
        mean, variance = by_definition(gp, told.config, told.epoch, score)
        assert_equal(condition(gp, told), (mean[:4], variance[:4]))


@pytest.mark.parametrize("count", [0, 3])
def test_configurations_off_the_grid_and_pending_equal_the_definition(count):
    """Two of the observations are off the grid, and so is one of the evaluations under way."""
    for seed in range(4):
        gp = varied(somewhere(MODEL, jitter=1e-3), seed, 0.3)
        told = observe(TARGET, count)
        told = told._replace(config=told.config.at[1:3].set(jnp.asarray([4, 6], jnp.int32)))
        at = jnp.asarray([0, 5]), jnp.asarray([2, 1])
        pending = Observations(*at, jnp.full(2, jnp.nan), jnp.asarray(2))
        config, epoch = jnp.append(told.config, at[0]), jnp.append(told.epoch, at[1])
        score = jnp.where(told.mask, told.score, jnp.nan)
        unknown = jnp.append(score, jnp.full(2, jnp.nan))
        before = by_definition(gp, config, epoch, unknown)
        none = pending._replace(count=jnp.asarray(0))
        assert_equal(condition(gp, told, EXTRA, none), before)
        after = by_definition(gp, config, epoch, unknown.at[-2:].set(before[0][at]))
        assert_equal(condition(gp, told, EXTRA, pending), after)


@jax.jit
def curves_by_definition(gp, features, epochs):
    kernel, mean = given_inducing(gp, gp.model.task.full)
    test = grid_points(jnp.arange(3), features, epochs)
    shape = 3, len(features), len(epochs)
    return gp.mean[:, None, None] + mean(test).reshape(shape), kernel(test).reshape(shape)


def test_curves_of_the_sources_equal_the_definition():
    gp = varied(somewhere(MODEL, jitter=1e-3), 0, 0.3)
    posterior = prepare(gp)
    epochs = jnp.asarray([0.5, 0.9, 1.2])
    on_grid, elsewhere = jax.jit(lambda p: (p.curves(), p.curves(EXTRA, epochs)))(posterior)
    assert_equal(on_grid, curves_by_definition(gp, GRID.features, GRID.epochs))
    assert_equal(elsewhere, curves_by_definition(gp, EXTRA, epochs))


def test_a_low_rank_of_the_fidelity_changes_nothing():
    model, *_ = problem(fidelity="fabolas")
    gp, observations = varied(somewhere(model, jitter=1e-3), 0, 0.3), observe(TARGET, 4)
    limited = jax.jit(lambda: InducingPosterior.of(gp, GRID, 2).condition(observations))()
    whole = condition(gp, observations)
    assert_allclose(limited.mean, whole.mean, rtol=1e-7, atol=1e-8)
    assert_allclose(limited.variance, whole.variance, rtol=1e-7, atol=1e-8)


def test_an_indefinite_task_kernel_gives_nan():
    indefinite = 100 * jnp.asarray(
        [[1.0, 0, 0, 0.9], [0, 1, 0, 0.9], [0, 0, 1, 0], [0.9, 0.9, 0, 1]]
    )

    class Indefinite(LearnedTask):
        def with_target(self, observations):
            return GivenGram(indefinite)

    root = jnp.eye(4) * 10
    gp = everywhere(eqx.tree_at(lambda m: m.task, MODEL, Indefinite(root)), jitter=1e-8)
    assert jnp.isnan(condition(optimal(gp), observe(TARGET, 2)).variance).all()
