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
    features = np.asarray(curves.features)
    grid = CurveGrid.of(curves.select(configs=range(CONFIGS)))
    model = TaskRegression.init(curves, KEY)
    return model, grid, features, eqx.filter_jit(TaskRegressionPosterior.of)(model, grid)


@eqx.filter_jit
def condition(posterior, observations, extra, pending=None, observable=None):
    return posterior.condition(observations, extra, pending, observable=observable)


def test_weights_and_errors_are_those_of_ordinary_kriging(known):
    model, grid, features, _ = known

    @jax.jit
    def kriging(surface, known, extra):
        interpolation = Interpolation.of(surface, known)
        both = jnp.concatenate([known, extra])
        error = interpolation.error(extra, 2)
        return surface.kernel(both, both), surface.share, interpolation.weights(extra), *error

    got = kriging(model.surface, grid.features, features[CONFIGS:])
    gram, share, got_weights, error, variance = jax.device_get(got)
    gram = share * gram + (1 - share) * np.eye(len(features))
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
    np.testing.assert_allclose(got_weights, weights, atol=1e-10)
    want = apart @ gram @ apart.T
    np.testing.assert_allclose(error, want[:2], atol=1e-10)
    np.testing.assert_allclose(variance, np.diag(want), atol=1e-10)


def test_likelihood_of_a_surface_is_that_of_contrasts(known):
    model, grid, *_ = known
    values = np.random.default_rng(0).normal(size=(2, CONFIGS))

    @jax.jit
    def likelihood(surface, values, x):
        return surface.log_likelihood(values, x), surface.kernel(x, x), surface.share

    have, gram, share = jax.device_get(likelihood(model.surface, values, grid.features))
    gram = share * gram + (1 - share) * np.eye(CONFIGS)
    contrasts = np.linalg.svd(np.ones((1, CONFIGS)))[2][1:]  # of mean 0
    among, seen = contrasts @ gram @ contrasts.T, values @ contrasts.T
    variance = (seen * np.linalg.solve(among, seen.T).T).sum(1) / (CONFIGS - 1) + 1e-6
    want = -0.5 * ((CONFIGS - 1) * np.log(variance) + np.linalg.slogdet(among)[1] + np.log(CONFIGS))
    np.testing.assert_allclose(have, want, rtol=1e-8)


def test_the_target_off_the_grid_agrees_with_dense_algebra(known):
    _, _, features, posterior = known
    cells = np.array([0, EPOCHS * CONFIGS + 1, 7, EPOCHS * (CONFIGS + 1)])
    scores = np.array([0.3, 0.5, 0.4, 0.7])

    @eqx.filter_jit
    def joined(posterior, extra):
        prior = posterior.off_grid.joined(posterior.prior, extra, None)
        columns = jax.vmap(prior.columns)(*np.divmod(np.arange(np.prod(SHAPE)), EPOCHS))
        return prior.components.parts, columns, prior.means(), prior.noises()

    parts, columns, means, noises = jax.device_get(joined(posterior, features[CONFIGS:]))
    parts = np.tensordot(parts, columns, (1, 1)).reshape(14, *[np.prod(SHAPE)] * 2)
    entries = [
        (*divmod(int(cell), EPOCHS), score) for cell, score in zip(cells, scores, strict=True)
    ]
    told = Observations.of(entries, 6, jnp.float64)
    have = jax.device_get(condition(posterior, told, features[CONFIGS:], observable=2))
    for component in KINDS:
        covariance = parts[component]
        np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)
        assert np.linalg.eigvalsh(covariance).min() > -1e-10
        mean = means[component].ravel()
        want = by_dense_algebra(mean, covariance, noises[component], cells, scores)
        np.testing.assert_allclose(have.mean[component].ravel(), want[0], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(have.variance[component].ravel(), want[1], rtol=1e-8, atol=1e-8)


def test_nothing_changes_on_the_grid_and_less_is_known_off_it(known):
    _, _, features, posterior = known
    told = Observations.of([(0, 0, 0.3), (2, 4, 0.6)], 6, jnp.float64)
    alone = condition(posterior.on_grid(), told, None)
    beside = jax.device_get(condition(posterior, told, features[CONFIGS:]))
    for mine, theirs in zip(alone[:2], beside[:2], strict=True):
        np.testing.assert_allclose(mine, theirs[:, :CONFIGS], atol=1e-12)
    np.testing.assert_allclose(alone.log_weights, beside.log_weights, atol=1e-12)
    # A configuration that one of the grid equals is another curve, known as well as its noise.
    again = condition(posterior, told, features[[1, -2, -1]])
    learned = np.asarray(again.variance)[AS_LEARNED, :, -1]
    assert learned[CONFIGS] > learned[1]
    with pytest.raises(ValueError, match="reduced to its grid"):
        posterior.on_grid().condition(told, features[CONFIGS:])


def test_a_trial_under_way_lowers_variances_and_leaves_means(known):
    _, _, features, posterior = known
    told = Observations.of([(0, 0, 0.3), (2, 4, 0.6)], 6, jnp.float64)
    without = jax.device_get(condition(posterior, told, features[CONFIGS:]))
    under_way = Observations.of([(CONFIGS + 1, 0, 0.0)], 2, jnp.float64)
    pending = jax.device_get(condition(posterior, told, features[CONFIGS:], under_way))
    np.testing.assert_allclose(pending.mean, without.mean, atol=1e-12)
    np.testing.assert_allclose(pending.log_weights, without.log_weights, atol=1e-12)
    for component in range(14):
        cell = CONFIGS + 1, 0
        score = float(without.mean[component][cell])
        more = Observations.of([(0, 0, 0.3), (2, 4, 0.6), (*cell, score)], 6, jnp.float64)
        want = np.asarray(condition(posterior, more, features[CONFIGS:]).variance)[component]
        np.testing.assert_allclose(pending.variance[component], want, atol=1e-10)
