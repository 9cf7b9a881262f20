"""Task means integrated out: likelihood, derivatives and posterior against dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from tinygp.kernels import Constant

from amt.gp.factors import Factors, Grams, Whitened
from amt.gp.points import KroneckerKernel
from amt.gp.random_means import means_posterior, random_means_log_likelihood
from amt.gp.solvers.kronecker import log_likelihood
from tests import oracle
from tests.gp.problems import SHAPE
from tests.oracle import Gram

TASKS, CONFIGS, EPOCHS = SHAPE


def arguments(seed=0):
    rng = np.random.default_rng(seed)
    roots = [rng.normal(size=(n, n + 1)) for n in SHAPE]
    grams = Grams(*(root @ root.T for root in roots))
    arrays = rng.normal(size=SHAPE), rng.uniform(0.5, 2, EPOCHS)
    return Whitened(grams, *arrays), rng.normal(size=TASKS), rng.uniform(0.1, 3, TASKS)


def unit_noise(grams):
    return Factors(grams, jnp.ones(TASKS), jnp.ones(EPOCHS))


def dense(whitened, mean, spread):
    grams, scores, shape = whitened
    sources = oracle.of_factors(unit_noise(grams), scores)
    of_means = KroneckerKernel(
        Gram(jnp.diag(spread**2)), Constant(jnp.ones(())), Gram(jnp.outer(shape, shape))
    )
    together = oracle.Oracle(
        sources.kernel + of_means, sources.points, sources.score, sources.noise
    )
    return together.log_density(oracle.design(scores, shape) @ mean)


ours = jax.jit(random_means_log_likelihood)
gradients = jax.jit(jax.grad(random_means_log_likelihood, (0, 1, 2)))
dense_jit = jax.jit(dense)


@pytest.mark.parametrize("seed", range(3))
def test_likelihood_is_that_of_the_dense_covariance(seed):
    args = arguments(seed)
    assert_allclose(ours(*args), dense_jit(*args), rtol=1e-12)


def test_derivatives_are_those_of_the_dense_likelihood():
    args = arguments()
    expected = jax.jit(jax.grad(dense, (0, 1, 2)))(*args)
    both = jax.device_get((gradients(*args), expected))
    for mine, want in zip(*map(jax.tree.leaves, both), strict=True):
        symmetric = (lambda a: (a + a.T) / 2) if mine.ndim == 2 else (lambda a: a)
        assert_allclose(symmetric(mine), symmetric(want), rtol=1e-9, atol=1e-10)


def test_known_means_are_means_of_no_spread():
    whitened, mean, _ = arguments()
    known = whitened, mean, np.zeros(TASKS)
    residual = whitened.scores - mean[:, None, None] * whitened.shape
    assert_allclose(ours(*known), jax.jit(log_likelihood)(whitened.grams, residual))
    assert_allclose(gradients(*known)[2], 0)


def test_vague_means_are_as_their_spread_says():
    whitened, mean, _ = arguments()
    spreads = 10.0 ** np.arange(3, 9)
    values = [ours(whitened, mean, np.full(TASKS, s)) for s in spreads]
    assert_allclose(np.diff(values), -TASKS * np.log(10), rtol=1e-4)


def test_batched_as_one_by_one():
    batch = [arguments(seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *batch)
    values = jax.jit(jax.vmap(random_means_log_likelihood))(*stacked)
    assert_allclose(values, [ours(*a) for a in batch], rtol=1e-12)


def test_posterior_of_the_means():
    """With unit noise added to the covariance, by the formulas of Bayesian linear regression."""
    whitened, mean, spread = arguments()
    grams, scores, shape = whitened

    @jax.jit
    def of_scores(grams):
        process = oracle.of_factors(unit_noise(grams), scores).process()
        return oracle.design(scores, shape), process.covariance

    H, K = jax.device_get(of_scores(grams))
    precision = H.T @ np.linalg.solve(K, H) + np.diag(spread**-2)
    weighted = H.T @ np.linalg.solve(K, scores.ravel()) + mean / spread**2
    posterior, root = jax.device_get(jax.jit(means_posterior)(whitened, mean, spread))
    assert_allclose(posterior, np.linalg.solve(precision, weighted), rtol=1e-10)
    assert_allclose(root.T @ root, np.linalg.inv(precision), rtol=1e-9, atol=1e-12)
