"""The target's mean, its noise, and its regression on sources whose covariances are kept."""

import jax
import numpy as np

from amt.gp.conditioning import Regression, mean_prior, target_noise
from tests.gp.problems import random_gram

regression_of = jax.jit(Regression.of)


def test_the_mean_of_a_target_is_as_those_of_the_sources():
    mean, variance = jax.jit(mean_prior)(np.asarray([0.1, 0.4, 0.7]), np.zeros((3, 1, 1)))
    np.testing.assert_allclose((mean, variance), (0.4, 0.09))


def test_one_source_of_incomplete_curves_has_the_variance_of_its_scores():
    mean, variance = jax.jit(mean_prior)(np.asarray([0.4]), np.asarray([[[0.1, np.nan, 0.5]]]))
    np.testing.assert_allclose((mean, variance), (0.4, 0.04))


def test_the_noise_of_a_target_is_the_geometric_mean():
    np.testing.assert_allclose(jax.jit(target_noise)(np.asarray([1.0, 4.0, 16.0])), 4)


def test_a_regression_on_sources_whose_covariances_stay_is_the_target_s_own():
    full = random_gram(np.random.default_rng(0), 4)
    row, scale, weights = regression_of(full[:-1, :-1], full)
    np.testing.assert_allclose(row, full[-1, :-1], rtol=1e-6)
    np.testing.assert_allclose(scale, full[-1, -1], rtol=1e-6)
    np.testing.assert_allclose(weights, np.linalg.solve(full[:-1, :-1], row), rtol=1e-5)


def test_a_task_kernel_that_moves_the_sources_stays_consistent():
    """With sources whose covariances change with the target, the posterior keeps its own."""
    rng = np.random.default_rng(5)
    sources, new = (random_gram(rng, n) for n in (3, 4))
    row, scale, _ = regression_of(sources, new)
    regression = np.linalg.solve(new[:-1, :-1], new[:-1, -1])
    np.testing.assert_allclose(row, sources @ regression, rtol=1e-5)
    rest = new[-1, -1] - regression @ new[:-1, -1]
    np.testing.assert_allclose(scale, rest + regression @ sources @ regression, rtol=1e-5)
