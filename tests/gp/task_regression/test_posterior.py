"""Configurations that the sources do not have, and evaluations under way."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amt.gp.grid import CurveGrid
from amt.gp.observations import Observations
from amt.gp.task_regression.model import TaskRegression
from amt.gp.task_regression.posterior import TaskRegressionPosterior
from amt.gp.task_regression.surface import Interpolation
from tests.gp.task_regression.test_likelihood import KEY
from tests.gp.task_regression.test_target import AS_LEARNED, KINDS, by_dense_algebra
from tests.problems import small_curves

TASKS, CONFIGS, EPOCHS, EXTRA = 4, 6, 5, 3
SHAPE = CONFIGS + EXTRA, EPOCHS


@pytest.fixture(scope="module")
def known():
    """Curves whose last configurations are not on the grid, the model, and its posterior."""
    curves = small_curves(TASKS, CONFIGS + EXTRA, EPOCHS)
    features = jnp.asarray(curves.features)
    grid = CurveGrid.of(curves.select(configs=range(CONFIGS)))
    model = TaskRegression.init(curves, KEY)
    return model, grid, features, eqx.filter_jit(TaskRegressionPosterior.of)(model, grid)


@eqx.filter_jit
def condition(posterior, observations, extra, pending=None, observable=None):
    return posterior.condition(observations, extra, pending, observable=observable)


def test_weights_and_errors_are_those_of_ordinary_kriging(known):
    model, grid, features, _ = known
    share, kernel = model.surface.share, model.surface.kernel
    gram = np.asarray(share * kernel(features, features) + (1 - share) * jnp.eye(len(features)))
    # The best linear unbiased prediction, from its equations with a Lagrange multiplier.
    system = np.block(
        [
            [gram[:CONFIGS, :CONFIGS], np.ones((CONFIGS, 1))],
            [np.ones((1, CONFIGS)), np.zeros((1, 1))],
        ]
    )
    right = np.concatenate([gram[:CONFIGS, CONFIGS:], np.ones((1, EXTRA))])
    weights = np.linalg.solve(system, right)[:CONFIGS].T
    apart = np.concatenate([-weights, np.eye(EXTRA)], 1)
    interpolation = Interpolation.of(model.surface, grid.features)
    np.testing.assert_allclose(interpolation.weights(features[CONFIGS:]), weights, atol=1e-10)
    error, variance = interpolation.error(features[CONFIGS:], 2)
    want = apart @ gram @ apart.T
    np.testing.assert_allclose(error, want[:2], atol=1e-10)
    np.testing.assert_allclose(variance, np.diag(want), atol=1e-10)


def test_likelihood_of_a_surface_is_that_of_contrasts(known):
    model, grid, *_ = known
    values = np.random.default_rng(0).normal(size=(2, CONFIGS))
    have = model.surface.log_likelihood(jnp.asarray(values), grid.features)
    share = float(model.surface.share)
    gram = share * np.asarray(model.surface.kernel(grid.features, grid.features))
    gram += (1 - share) * np.eye(CONFIGS)
    contrasts = np.linalg.svd(np.ones((1, CONFIGS)))[2][1:]  # of mean 0
    among, seen = contrasts @ gram @ contrasts.T, values @ contrasts.T
    variance = (seen * np.linalg.solve(among, seen.T).T).sum(1) / (CONFIGS - 1) + 1e-6
    want = -0.5 * ((CONFIGS - 1) * np.log(variance) + np.linalg.slogdet(among)[1] + np.log(CONFIGS))
    np.testing.assert_allclose(have, want, rtol=1e-8)


def test_the_target_off_the_grid_agrees_with_dense_algebra(known):
    _, _, features, posterior = known
    prior = posterior.off_grid.joined(posterior.prior, features[CONFIGS:], None)
    cells = np.array([0, EPOCHS * CONFIGS + 1, 7, EPOCHS * (CONFIGS + 1)])
    scores = np.array([0.3, 0.5, 0.4, 0.7])
    columns = jax.jit(jax.vmap(prior.columns))(*np.divmod(np.arange(np.prod(SHAPE)), EPOCHS))
    parts = jnp.tensordot(prior.components.parts, columns, (1, 1)).reshape(
        14, *[np.prod(SHAPE)] * 2
    )
    entries = [
        (*divmod(int(cell), EPOCHS), score) for cell, score in zip(cells, scores, strict=True)
    ]
    told = Observations.of(entries, 6, jnp.float64)
    have = condition(posterior, told, features[CONFIGS:], observable=2)
    for component in KINDS:
        covariance = np.asarray(parts[component])
        np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)
        assert np.linalg.eigvalsh(covariance).min() > -1e-10
        mean = np.asarray(prior.means()[component]).ravel()
        want = by_dense_algebra(mean, covariance, prior.noises()[component], cells, scores)
        np.testing.assert_allclose(have.mean[component].ravel(), want[0], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(have.variance[component].ravel(), want[1], rtol=1e-8, atol=1e-8)


def test_nothing_changes_on_the_grid_and_less_is_known_off_it(known):
    _, _, features, posterior = known
    told = Observations.of([(0, 0, 0.3), (2, 4, 0.6)], 6, jnp.float64)
    alone = condition(posterior.on_grid(), told, None)
    beside = condition(posterior, told, features[CONFIGS:])
    for mine, theirs in zip(alone[:2], beside[:2], strict=True):
        np.testing.assert_allclose(mine, theirs[:, :CONFIGS], atol=1e-12)
    np.testing.assert_allclose(alone.log_weights, beside.log_weights, atol=1e-12)
    # A configuration that one of the grid equals is another curve, known as well as its noise.
    again = condition(posterior, told, features[1:2])
    learned = again.variance[AS_LEARNED, :, -1]
    assert learned[CONFIGS] > learned[1]
    with pytest.raises(ValueError, match="reduced to its grid"):
        posterior.on_grid().condition(told, features[CONFIGS:])


def test_a_trial_under_way_lowers_variances_and_leaves_means(known):
    _, _, features, posterior = known
    told = Observations.of([(0, 0, 0.3), (2, 4, 0.6)], 6, jnp.float64)
    without = condition(posterior, told, features[CONFIGS:])
    under_way = Observations.of([(CONFIGS + 1, 0, 0.0)], 2, jnp.float64)
    pending = condition(posterior, told, features[CONFIGS:], under_way)
    np.testing.assert_allclose(pending.mean, without.mean, atol=1e-12)
    np.testing.assert_allclose(pending.log_weights, without.log_weights, atol=1e-12)
    for component in range(14):
        cell = CONFIGS + 1, 0
        score = float(without.mean[component][cell])
        more = Observations.of([(0, 0, 0.3), (2, 4, 0.6), (*cell, score)], 6, jnp.float64)
        want = condition(posterior, more, features[CONFIGS:])
        np.testing.assert_allclose(
            pending.variance[component], want.variance[component], atol=1e-10
        )
