"""Whitening: units in which the noise is 1."""

import jax
import numpy as np
import pytest

from amt.gp.factors import Factors
from tests.gp.problems import CONFIGS, random_mask, random_sources


def covariance(grams):
    return np.kron(grams.task, np.kron(grams.config, grams.fidelity))


whiten = jax.jit(Factors.whiten)
half_log_det_noise = jax.jit(Factors.half_log_det_noise)


@pytest.fixture(scope="module")
def problem():
    sources = jax.device_get(random_sources(3))
    factors = sources.factors
    noise = np.kron(factors.task_noise, np.kron(np.ones(CONFIGS), factors.epoch_noise))
    return factors, sources.scores, noise


def test_whitening_divides_by_the_standard_deviations_of_the_noise(problem):
    factors, scores, noise = problem
    whitened, _ = jax.device_get(whiten(factors, scores))
    root = np.sqrt(noise)
    np.testing.assert_allclose(whitened.scores.ravel(), scores.ravel() / root)
    want = covariance(factors.grams) / (root[:, None] * root)
    np.testing.assert_allclose(covariance(whitened.grams), want)
    np.testing.assert_allclose(whitened.shape, 1 / np.sqrt(factors.epoch_noise))


def test_missing_scores_stay_missing(problem):
    factors, scores, _ = problem
    mask = random_mask(0, "anywhere")
    whitened, _ = whiten(factors, np.where(mask, scores, np.nan))
    np.testing.assert_array_equal(np.isfinite(whitened.scores), mask)


def test_the_determinant_of_the_noise_is_that_of_its_diagonal(problem):
    factors, scores, noise = problem
    _, half_log_det = whiten(factors, scores)
    np.testing.assert_allclose(half_log_det, np.log(noise).sum() / 2)
    mask = random_mask(0, "anywhere")
    want = np.log(noise)[mask.ravel()].sum() / 2
    np.testing.assert_allclose(half_log_det_noise(factors, mask), want)
    everything = half_log_det_noise(factors, np.ones(mask.shape, bool))
    np.testing.assert_allclose(everything, half_log_det)
