"""Learned embeddings of tasks: the formula, and the posterior of a target's embedding."""

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amt.kernels import LatentTask
from tests.kernels.task.problems import (
    ONE_TASK,
    SEEDS,
    SHAPE,
    assert_psd,
    evaluate,
    gram_of,
    join,
    kernel_of,
    observations,
    random_scores,
)


@given(shape=st.just(SHAPE), seed=SEEDS)
@example(shape=ONE_TASK, seed=0)
def test_latent_formula(shape, seed):
    kernel = jax.device_get(kernel_of("latent", random_scores(shape, seed), seed))
    tasks, z = np.arange(shape[0]), kernel.embedding
    expected = [[kernel.scale * np.exp(-((a - b) ** 2).sum() / 2) for b in z] for a in z]
    np.testing.assert_allclose(evaluate(kernel, tasks), np.array(expected), rtol=1e-10)
    assert_psd(gram_of(kernel))


def latent_target(kernel, count, seed=0, noise=0.01):
    """A kernel's target, its true embedding drawn near the sources, and observations of it."""
    rng = np.random.default_rng(seed)
    z = np.asarray(kernel.embedding)
    true = z.mean(0) + 0.3 * rng.normal(size=z.shape[1])
    k = np.asarray(kernel.scale) * np.exp(-np.square(z - true).sum(1) / 2)
    response = rng.normal(size=(40, len(z)))
    score = response @ k + noise * rng.normal(size=40)
    seen = observations(score, np.zeros((40, len(z))), np.arange(40) < count, seed=seed)
    seen = seen._replace(
        response=response,
        residual=score,
        prior=0 * seen.prior,
        noise=np.full(40, noise**2),
        mean_variance=np.asarray(0.0),
    )
    return k, seen


@pytest.mark.parametrize("seed", range(3))
def test_latent_covariances_are_the_mean_over_the_posterior(seed):
    rng = np.random.default_rng(seed)
    kernel = LatentTask(rng.normal(size=(5, 1)), np.asarray(2.0))
    for count, tolerance in ((0, 1e-6), (3, 0.2), (40, 1e-3)):
        _, seen = latent_target(kernel, count, seed, noise=0.3)
        row = np.asarray(join(kernel, seen))[-1]
        # By quadrature, with the likelihood of the docstring.
        z = np.linspace(-12, 12, 4801)
        sources = kernel.embedding[:, 0]
        k = 2 * np.exp(-np.square(z[:, None] - sources) / 2)
        mean = sources.mean()
        variance = (1 + np.square(sources - mean).sum()) / 5
        residual = (seen.residual - k @ seen.response.T)[:, :count]
        log_density = -np.square(z - mean) / variance / 2
        log_density -= np.square(residual).sum(1) / 0.3**2 / 2
        density = np.exp(log_density - log_density.max())
        expected = density @ k / density.sum()
        np.testing.assert_allclose(row[:-1], expected, atol=2 * tolerance)
        assert row[-1] == 2


def test_latent_finds_the_target():
    kernel = kernel_of("latent", np.zeros((8, 2, 2)))
    errors = []
    for count in (0, 5, 40):
        k, seen = latent_target(kernel, count)
        errors.append(np.abs(np.asarray(join(kernel, seen))[-1, :-1] - k).max())
    assert errors[2] < 0.01
    assert errors[2] < errors[1] < errors[0]


def test_latent_without_observations_is_less_similar_than_sources_are():
    rng = np.random.default_rng(0)
    kernel = LatentTask(rng.normal(size=(50, 2)), np.asarray(1.0))
    _, seen = latent_target(kernel, 0)
    gram = np.asarray(join(kernel, seen))
    pairs = gram[:-1, :-1][np.triu_indices(50, 1)]
    np.testing.assert_allclose(gram[-1, :-1].mean(), pairs.mean(), rtol=0.1)
