"""A target conditioned on its scores, one by one and at once, against dense algebra."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amt.gp.grid import CurveGrid
from amt.gp.observations import Observations, TargetPosterior
from amt.gp.task_regression.alone import target_alone
from amt.gp.task_regression.mixture import Components
from amt.gp.task_regression.model import CommonScale, TaskRegression
from amt.gp.task_regression.target import TargetPrior, TargetState
from tests.gp.task_regression.test_likelihood import KEY
from tests.problems import moved, small_curves

TASKS, CONFIGS, EPOCHS, OBSERVED = 4, 6, 5, 7
AS_LEARNED, UNKNOWN_STRENGTH, WITHOUT, ALONE = KINDS = 4, 9, 10, 12  # components
COMPONENTS = 14
ALL = tuple(range(EPOCHS))


def dense_prior(model: TaskRegression, grid: CurveGrid) -> tuple[jax.Array, jax.Array]:
    """Mean and covariance of a target's noise-free curves under each of `KINDS`."""
    tasks = CommonScale.of(grid.scores)
    residual = model.residual_covariance(grid)
    own = residual.own - jnp.diag(model.noise_variance(grid.epochs))
    course = jnp.square(model.course) * model.trend(grid.epochs, grid.epochs)
    curves = tasks.curves.reshape(TASKS, -1)
    weights = jnp.square(model.similarity) / TASKS * jnp.eye(TASKS)
    weights += jnp.square(model.common / TASKS)
    shared = jnp.kron(jnp.ones((CONFIGS, CONFIGS)), course) + jnp.square(model.level)
    learned = shared + jnp.kron(residual.config, residual.fidelity) + curves.T @ weights @ curves
    learned += jnp.kron(jnp.eye(CONFIGS), own)

    share = model.surface.share
    surface = share * model.surface.kernel(grid.features, grid.features)
    surface += (1 - share) * jnp.eye(CONFIGS)
    precision = jnp.linalg.inv(surface)
    center = precision - precision.sum(0) * precision.sum(1)[:, None] / precision.sum()
    mean = tasks.curves.mean(0)
    epochs = jnp.einsum("ce,cd,df->ef", mean, center, mean) / (CONFIGS - 1)
    apart = tasks.curves - mean
    epochs += jnp.einsum("tce,cd,tdf->ef", apart, center, apart) / (CONFIGS - 1) / (TASKS - 1)
    without = shared + jnp.kron(surface, epochs)

    scale, level = tasks.scale.mean(), tasks.level.mean()
    typical = jnp.broadcast_to(mean.mean(0), mean.shape)
    direction = (mean - typical).ravel()
    unknown = learned + direction[:, None] * direction
    r = jnp.sqrt(5 * jnp.sum((grid.features[:, None] - grid.features) ** 2, 2))
    r /= 0.5 * grid.features.shape[1] ** 0.5
    alike = 1 + 0.86 * (1 + r + r**2 / 3) * jnp.exp(-r) + 0.14 * jnp.eye(CONFIGS)
    apart = jnp.abs(jnp.log(grid.epochs)[:, None] - jnp.log(grid.epochs)) * 5**0.5 / 3
    course = 0.7 + 0.3 * (1 + apart + apart**2 / 3) * jnp.exp(-apart)
    alone = shared + jnp.kron(alike, course) * (0.25 / scale) ** 2
    means = jnp.stack([mean, typical, typical, typical]).reshape(len(KINDS), -1)
    return level + scale * means, scale**2 * jnp.stack([learned, unknown, without, alone])


@eqx.filter_jit
def problem(model: TaskRegression, grid: CurveGrid):
    """The prior, and its mean and covariance by dense algebra."""
    return model.target_prior(grid), *dense_prior(model, grid)


@partial(jax.jit, static_argnames="epochs")
def sequential(prior: TargetPrior, cells, scores, observed, epochs: tuple[int, ...] = ALL):
    """The state and the posterior after all scores, told one by one."""

    def tell(state, entry):
        cell, score, told = entry
        return state.update(prior, cell // EPOCHS, cell % EPOCHS, score, told), None

    state = TargetState.init(prior, len(cells), np.array(epochs))
    state, _ = jax.lax.scan(tell, state, (cells, scores, observed))
    return state, state.posterior(prior)


def by_dense_algebra(mean, covariance, noise, cells, scores):
    """Posterior mean, variance and log density of noisy scores of some cells."""
    noisy = covariance[np.ix_(cells, cells)] + np.diag(noise[cells % EPOCHS])
    residual = scores - mean[cells]
    weights = np.linalg.solve(noisy, covariance[cells]).T
    after = mean + weights @ residual
    variance = np.diag(covariance) - (weights * covariance[cells].T).sum(1)
    log_det = np.linalg.slogdet(2 * np.pi * noisy)[1]
    return after, variance, -(residual @ np.linalg.solve(noisy, residual) + log_det) / 2


@given(seed=st.integers(0, 2**20), count=st.integers(0, OBSERVED))
def test_one_score_at_a_time_is_all_at_once(seed, count):
    curves = small_curves(TASKS, CONFIGS, EPOCHS, seed=seed)
    grid = CurveGrid.of(curves)
    prior, mean, covariance = problem(moved(TaskRegression.init(curves, KEY), seed, 0.5), grid)
    rng = np.random.default_rng(seed)
    cells = rng.permutation(CONFIGS * EPOCHS)[:OBSERVED]
    told = rng.permutation(np.arange(OBSERVED) < count)
    scores = np.where(told, rng.normal(size=OBSERVED), np.nan)
    mean, covariance, noises = jax.device_get((mean, covariance, prior.noise))
    state, posterior = jax.device_get(sequential(prior, cells, scores, told))
    for dense, component in enumerate(KINDS):
        noise = np.full(EPOCHS, 0.025**2) if component == ALONE else noises
        want = by_dense_algebra(mean[dense], covariance[dense], noise, cells[told], scores[told])
        have = state.mean[component].ravel(), state.variance[component].ravel()
        for mine, theirs in zip((*have, state.log_density[component]), want, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-8)

    entries = [
        (*divmod(int(cell), EPOCHS), score)
        for cell, score in zip(cells[told], scores[told], strict=True)
    ]
    at_once = jax.jit(TargetPrior.condition)(prior, Observations.of(entries, OBSERVED, jnp.float64))
    for mine, theirs in zip(at_once[:3], posterior[:3], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(at_once.trusted, posterior.trusted)
    some = jax.device_get(sequential(prior, cells, scores, told, (1, EPOCHS - 1))[1])
    for fewer, every in zip(some[:2], posterior[:2], strict=True):
        np.testing.assert_allclose(fewer, every[..., [1, EPOCHS - 1]], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(some.log_weights, posterior.log_weights, rtol=1e-8, atol=1e-8)


def test_float32_is_close_and_finite():
    curves = small_curves(TASKS, CONFIGS, EPOCHS)
    results = {}
    for dtype in ("float64", "float32"):
        model = jax.tree.map(
            lambda leaf: np.asarray(leaf, dtype),  # noqa: B023
            TaskRegression.init(curves, KEY),
        )
        prior, *_ = problem(model, CurveGrid.of(curves, dtype))
        cells, scores = np.arange(OBSERVED) * 4, np.linspace(0.2, 0.8, OBSERVED, dtype=dtype)
        results[dtype] = sequential(prior, cells, scores, np.ones(OBSERVED, bool))
    for single, double in zip(*(jax.tree.leaves(results[d]) for d in results), strict=True):
        np.testing.assert_allclose(single, double, rtol=1e-3, atol=1e-3)
    assert results["float32"][0].mean.dtype == jnp.float32


@pytest.fixture(scope="module")
def mixture():
    """Sources whose configurations are ranked alike, and priors of a target."""
    curves = small_curves(12, CONFIGS, EPOCHS)
    alike = curves.scores[:1] + 0.02 * (curves.scores - curves.scores.mean(0))
    grid = eqx.tree_at(lambda g: g.scores, CurveGrid.of(curves), jnp.asarray(alike))
    model = TaskRegression.init(curves, KEY)
    model = eqx.tree_at(lambda m: (m.similarity, m.residual), model, (jnp.array(0.1),) * 2)
    return grid, eqx.filter_jit(TaskRegression.target_prior)(model, grid)


def test_weights_of_a_mixture_are_those_of_bayes_rule(mixture):
    _, prior = mixture
    scores = np.full(CONFIGS * EPOCHS, np.nan)
    scores[[0, EPOCHS, 1, 3 * EPOCHS]] = 0.3, 0.2, 0.5, 0.4
    state, posterior = sequential(prior, np.arange(len(scores)), scores, np.isfinite(scores))
    matched = jax.jit(TargetPosterior.matched)(posterior)
    prior, state, posterior, matched = jax.device_get((prior, state, posterior, matched))
    density = np.exp(prior.components.log_weight + state.log_density)
    np.testing.assert_allclose(np.exp(posterior.log_weights), density / density.sum(), rtol=1e-10)
    draws = np.random.default_rng(0)
    which = draws.choice(len(density), 200_000, p=density / density.sum())
    sample = draws.normal(posterior.mean[which, 0, -1], np.sqrt(posterior.variance[which, 0, -1]))
    np.testing.assert_allclose(matched.mean[0, -1], sample.mean(), atol=0.01)
    np.testing.assert_allclose(matched.variance[0, -1], sample.var(), rtol=0.02)


@pytest.mark.parametrize("flipped", [False, True])
def test_sources_that_mislead_lose_their_weight(mixture, flipped):
    grid, prior = mixture
    target = np.asarray(grid.scores)[0]
    if flipped:
        target = 2 * target.mean(0) - target
    cells = np.arange(CONFIGS * EPOCHS)
    _, posterior = sequential(prior, cells, target.ravel(), np.ones(len(cells), bool))
    as_learned = np.exp(posterior.log_weights)[:UNKNOWN_STRENGTH].sum()
    assert (as_learned > 0.99) != flipped
    assert (as_learned < 0.01) == flipped
    np.testing.assert_array_equal(
        posterior.trusted, (np.arange(COMPONENTS) >= UNKNOWN_STRENGTH) | (not flipped)
    )


def test_components_are_trusted_for_a_share_of_the_queries_that_is_their_weight():
    components, queries = Components.of(jnp.dtype(float)), np.arange(1000)
    each = jax.jit(jax.vmap(components.trusted, (None, 0)))
    learned = np.arange(COMPONENTS) < UNKNOWN_STRENGTH
    most = np.log(np.where(learned, 0.6 / 9, 0.4 / 5))
    assert np.asarray(each(most, queries)).all()
    doubted = np.log(np.where(learned, 0.3 / 9, 0.7 / 5))
    for_others = np.asarray(each(doubted, queries))
    np.testing.assert_allclose(for_others[:, UNKNOWN_STRENGTH].mean(), 0.7, atol=2e-3)
    assert (for_others == (for_others[:, -1:] != learned)).all()


def test_growing_differences_of_a_target_alone_are_those_of_their_formula():
    features, epochs = np.random.default_rng(0).uniform(size=(CONFIGS, 2)), np.arange(1, 6) / 5
    cells = np.divmod(np.arange(CONFIGS * EPOCHS), EPOCHS)

    @jax.jit
    def of_growing(features, epochs):
        prior = target_alone(features, epochs, 0.5)
        return prior.components.parts[-1], jax.vmap(prior.columns)(*cells), prior.noises()[-1]

    parts, columns, noise = jax.device_get(of_growing(features, epochs))
    r = np.sqrt(5 * ((features[:, None] - features) ** 2).sum(2)) / (0.2 * 2**0.5)
    alike = 1 + 0.86 * (1 + r + r**2 / 3) * np.exp(-r) + 0.14 * np.eye(CONFIGS)
    apart = np.abs(np.log(epochs)[:, None] - np.log(epochs)) * 5**0.5 / 3
    smooth = (1 + apart + apart**2 / 3) * np.exp(-apart)
    growing = (epochs[:, None] * epochs) ** 0.5 * (0.7 + 0.3 * smooth)
    shared = np.kron(np.ones((CONFIGS, CONFIGS)), 0.3**2 * smooth)
    covariance = np.tensordot(parts, columns.reshape(len(cells[0]), 7, -1), (0, 1))
    np.testing.assert_allclose(covariance, shared + 0.4**2 * np.kron(alike, growing), rtol=1e-10)
    np.testing.assert_allclose(noise, 0.04**2)
