"""A target conditioned one score at a time, against dense algebra; and the mixture's weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.scipy.stats import multivariate_normal

from amt.gp.grid import CurveGrid
from amt.gp.task_regression.mixture import MixturePrior, MixtureState
from amt.gp.task_regression.model import CommonScale, TaskRegression
from amt.gp.task_regression.target import TargetPrior, TargetState
from tests.gp.task_regression.test_likelihood import KEY, changed
from tests.problems import small_curves

TASKS, CONFIGS, EPOCHS, OBSERVED = 4, 6, 5, 7


def dense_prior(model: TaskRegression, grid: CurveGrid) -> tuple[jax.Array, jax.Array]:
    """Mean and covariance of a target's noise-free curves from the definition, written out."""
    tasks = CommonScale.of(grid.scores)
    residual = model.residual_covariance(grid)
    own = residual.own - jnp.diag(model.noise_variance(grid.epochs))
    course = jnp.square(model.course) * model.trend(grid.epochs, grid.epochs)
    curves = tasks.curves.reshape(TASKS, -1)
    weights = jnp.square(model.similarity) / TASKS * jnp.eye(TASKS)
    weights += jnp.square(model.common / TASKS)
    covariance = jnp.kron(residual.config, residual.fidelity) + jnp.square(model.level)
    covariance += jnp.kron(jnp.eye(CONFIGS), own) + curves.T @ weights @ curves
    covariance += jnp.kron(jnp.ones((CONFIGS, CONFIGS)), course)
    scale = tasks.scale.mean()
    return tasks.level.mean() + scale * curves.mean(0), scale**2 * covariance


@eqx.filter_jit
def problem(model: TaskRegression, grid: CurveGrid):
    """The prior, and its mean and covariance by dense algebra."""
    return model.target_prior(grid), *dense_prior(model, grid)


@jax.jit
def sequential(prior: TargetPrior, cells: jax.Array, scores: jax.Array, observed: jax.Array):
    """The state after all scores, told one by one."""

    def tell(state, entry):
        row, cell, score, told = entry
        return state.update(prior, row, cell // EPOCHS, cell % EPOCHS, score, told), None

    state = TargetState.init(prior, len(cells))
    return jax.lax.scan(tell, state, (jnp.arange(len(cells)), cells, scores, observed))[0]


def by_dense_algebra(mean, covariance, noise, cells, scores):
    """Posterior mean, variance and log density of noisy scores of some cells."""
    noisy = covariance[np.ix_(cells, cells)] + np.diag(np.asarray(noise)[cells % EPOCHS])
    weights = np.linalg.solve(noisy, covariance[cells]).T
    after = mean + weights @ (scores - mean[cells])
    variance = np.diag(covariance) - (weights * covariance[cells].T).sum(1)
    return after, variance, multivariate_normal.logpdf(scores, mean[cells], noisy)


@given(seed=st.integers(0, 2**20), count=st.integers(0, OBSERVED))
def test_one_score_at_a_time_is_all_at_once(seed, count):
    curves = small_curves(TASKS, CONFIGS, EPOCHS, seed=seed)
    grid = CurveGrid.of(curves)
    prior, mean, covariance = problem(changed(TaskRegression.init(curves, KEY), seed), grid)
    rng = np.random.default_rng(seed)
    cells = rng.permutation(CONFIGS * EPOCHS)[:OBSERVED]
    told = rng.permutation(np.arange(OBSERVED) < count)
    scores = np.where(told, rng.normal(size=OBSERVED), np.nan)
    state = sequential(prior, cells, scores, told)
    mean, covariance = np.asarray(mean), np.asarray(covariance)
    want = by_dense_algebra(mean, covariance, prior.noise, cells[told], scores[told])
    np.testing.assert_allclose(state.mean.ravel(), want[0], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(state.variance.ravel(), want[1], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(state.log_density, want[2] if count else 0, rtol=1e-8, atol=1e-8)


def test_float32_is_close_and_finite():
    curves = small_curves(TASKS, CONFIGS, EPOCHS)
    states = {}
    for dtype in ("float64", "float32"):
        model = jax.tree.map(
            lambda leaf: leaf.astype(dtype),  # noqa: B023
            TaskRegression.init(curves, KEY),
        )
        prior, *_ = problem(model, CurveGrid.of(curves, dtype))
        cells, scores = jnp.arange(OBSERVED) * 4, jnp.linspace(0.2, 0.8, OBSERVED, dtype=dtype)
        states[dtype] = sequential(prior, cells, scores, jnp.ones(OBSERVED, bool))
    for single, double in zip(*(jax.tree.leaves(states[d]) for d in states), strict=True):
        np.testing.assert_allclose(single, double, rtol=1e-3, atol=1e-3)
    assert states["float32"].mean.dtype == jnp.float32


@jax.jit
def told(prior: MixturePrior, configs: jax.Array, epochs: jax.Array, scores: jax.Array):
    """The mixture after some scores."""
    state = MixtureState.init(prior, len(configs))

    def tell(state, entry):
        return state.update(*entry), None

    state, _ = jax.lax.scan(tell, state, (configs, epochs, scores))
    return state.posterior(), state


@pytest.fixture(scope="module")
def mixture():
    """Sources whose configurations are ranked alike, and priors of a target."""
    curves = small_curves(12, CONFIGS, EPOCHS)
    alike = curves.scores[:1] + 0.02 * (curves.scores - curves.scores.mean(0))
    grid = eqx.tree_at(lambda g: g.scores, CurveGrid.of(curves), jnp.asarray(alike))
    model = TaskRegression.init(curves, KEY)
    model = eqx.tree_at(lambda m: (m.similarity, m.residual), model, (jnp.array(0.1),) * 2)
    return grid, eqx.filter_jit(MixturePrior.of)(model, grid)


def test_weights_of_a_mixture_are_those_of_bayes_rule(mixture):
    _, prior = mixture
    configs, epochs = jnp.array([0, 1, 0, 3]), jnp.array([0, 0, 1, 0])
    posterior, state = told(prior, configs, epochs, jnp.array([0.3, 0.2, 0.5, 0.4]))
    density = np.exp(prior.log_weights + state.states.log_density)
    np.testing.assert_allclose(np.exp(posterior.log_weights), density / density.sum(), rtol=1e-10)
    alone = jax.tree.map(lambda leaf: leaf[2], prior.components)
    cells = np.asarray(configs * EPOCHS + epochs)
    one = sequential(alone, cells, jnp.array([0.3, 0.2, 0.5, 0.4]), jnp.ones(4, bool))
    np.testing.assert_allclose(posterior.mean[2], one.mean, rtol=1e-10)
    matched = posterior.matched()
    draws = np.random.default_rng(0)
    which = draws.choice(len(density), 200_000, p=density / density.sum())
    sample = draws.normal(posterior.mean[which, 0, -1], np.sqrt(posterior.variance[which, 0, -1]))
    np.testing.assert_allclose(matched.mean[0, -1], sample.mean(), atol=0.01)
    np.testing.assert_allclose(matched.variance[0, -1], sample.var(), rtol=0.02)


@pytest.mark.parametrize("flipped", [False, True])
def test_sources_that_mislead_lose_their_weight(mixture, flipped):
    grid, prior = mixture
    target = grid.scores[0]
    if flipped:
        target = 2 * target.mean(0) - target
    configs, epochs = jnp.repeat(jnp.arange(CONFIGS), EPOCHS), jnp.tile(jnp.arange(EPOCHS), CONFIGS)
    posterior, _ = told(prior, configs, epochs, target[configs, epochs])
    without = np.exp(posterior.log_weights[-1])
    assert (without > 0.99) == flipped
    assert (without < 0.01) != flipped
