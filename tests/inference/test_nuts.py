"""NUTS: its metric, and known parameters recovered from simulated data."""

import jax
import numpy as np
from numpy.testing import assert_allclose

from amt.inference.nuts import _shrunk_covariance
from tests.inference.simulated import DATASETS


def test_covariance_of_many_draws_is_theirs_and_of_few_nearly_diagonal():
    covariance, shrunk = np.asarray([[2.0, 0.9], [0.9, 1.0]]), jax.jit(_shrunk_covariance)
    root = np.linalg.cholesky(covariance)
    draws = np.random.default_rng(0).normal(size=(20000, 2)) @ root.T
    assert_allclose(shrunk(draws), covariance, rtol=0.05)
    few = np.asarray(shrunk(draws[:4]))
    sample = np.cov(draws[:4].T, bias=True)
    assert_allclose(np.diagonal(few), np.diagonal(sample))
    assert_allclose(few[0, 1], sample[0, 1] / 2)


def test_few_trajectories_diverge(simulated):
    assert simulated.posterior.statistics.diverging.mean() < 0.02


def test_known_parameters_are_recovered(simulated):
    """Ranks of the true values among the draws, of all data sets: as of a uniform distribution."""
    truth, posterior = simulated.truth, simulated.posterior
    off = jax.jit(jax.vmap(jax.vmap(lambda task: task.gram()[0, 1:])))
    similarity = jax.jit(jax.vmap(lambda task: task.gram()[0, 1:]))
    pairs = {
        "lengthscale": (truth.config.lengthscale, posterior.model.config.lengthscale),
        "epochs": (truth.fidelity.lengthscale[:, None], posterior.model.fidelity.lengthscale),
        "noise": (truth.noise.variance, posterior.model.noise.variance),
        "scales": (truth.task.scales, posterior.model.task.scales),
        "means": (simulated.means, posterior.means),
        "similarity": (similarity(truth.task), np.asarray(off(posterior.model.task))),
    }
    ranks = {}
    for name, (true, draws) in pairs.items():
        draws = draws.reshape(*draws.shape[:2], -1)
        ranks[name] = np.mean(np.asarray(draws) < np.asarray(true)[:, None], axis=1).ravel()
        # Of k ranks in (0, 1), the mean is within 3.5 standard errors of a half; as elements of a
        # data set are correlated, data sets are what counts.
        assert abs(ranks[name].mean() - 0.5) < 3.5 / np.sqrt(12 * DATASETS), name
    every = np.concatenate(list(ranks.values()))
    assert ((every > 0.005) & (every < 0.995)).mean() > 0.95
    assert 0.25 < ((every > 0.25) & (every < 0.75)).mean() < 0.8
    noise = posterior.model.noise.variance.mean(1)
    assert_allclose(np.log(noise), np.log(truth.noise.variance), atol=0.7)
