"""Task means integrated out: likelihood, derivatives and posterior against dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal
from numpy.testing import assert_allclose

from amt.gp.random_means import means_posterior, random_means_log_likelihood
from amt.gp.solvers.kronecker import log_likelihood

TASKS, CONFIGS, EPOCHS = SHAPE = 3, 4, 5


def arguments(seed=0):
    rng = np.random.default_rng(seed)
    roots = [rng.normal(size=(n, n + 1)) for n in SHAPE]
    arrays = [root @ root.T for root in roots]
    arrays += [rng.normal(size=SHAPE), rng.uniform(0.5, 2, EPOCHS)]
    arrays += [rng.normal(size=TASKS), rng.uniform(0.1, 3, TASKS)]
    return tuple(map(jnp.asarray, arrays))


def design(shape):
    return jnp.kron(jnp.eye(TASKS), jnp.kron(jnp.ones((CONFIGS, 1)), shape[:, None]))


def grid_covariance(task, config, fidelity):
    return jnp.kron(jnp.kron(task, config), fidelity) + jnp.eye(TASKS * CONFIGS * EPOCHS)


def dense(task, config, fidelity, scores, shape, mean, spread):
    H = design(shape)
    covariance = grid_covariance(task, config, fidelity) + H @ jnp.diag(spread**2) @ H.T
    return multivariate_normal.logpdf(scores.ravel(), H @ mean, covariance)


@pytest.mark.parametrize("seed", range(3))
def test_likelihood_is_that_of_the_dense_covariance(seed):
    args = arguments(seed)
    assert_allclose(random_means_log_likelihood(*args), dense(*args), rtol=1e-12)


def test_derivatives_are_those_of_the_dense_likelihood():
    args, every = arguments(), tuple(range(7))
    ours = jax.jit(jax.grad(random_means_log_likelihood, every))(*args)
    expected = jax.grad(dense, every)(*args)
    for got, want in zip(ours, expected, strict=True):
        symmetric = (lambda a: (a + a.T) / 2) if got.ndim == 2 else (lambda a: a)
        assert_allclose(symmetric(got), symmetric(want), rtol=1e-9, atol=1e-10)


def test_known_means_are_means_of_no_spread():
    *grams, scores, shape, mean, _ = arguments()
    value, gradient = jax.value_and_grad(random_means_log_likelihood, 6)(
        *grams, scores, shape, mean, jnp.zeros(TASKS)
    )
    assert_allclose(value, log_likelihood(*grams, scores - mean[:, None, None] * shape))
    assert_allclose(gradient, 0)


def test_vague_means_are_as_their_spread_says():
    *args, _ = arguments()
    spreads = 10.0 ** jnp.arange(3, 9)
    values = jnp.stack([random_means_log_likelihood(*args, jnp.full(TASKS, s)) for s in spreads])
    assert_allclose(jnp.diff(values), -TASKS * np.log(10), rtol=1e-4)


def test_batched_as_one_by_one():
    batch = [arguments(seed) for seed in range(3)]
    stacked = [jnp.stack(a) for a in zip(*batch, strict=True)]
    values = jax.jit(jax.vmap(random_means_log_likelihood))(*stacked)
    assert_allclose(values, [random_means_log_likelihood(*a) for a in batch], rtol=1e-12)


def test_posterior_of_the_means():
    args = arguments()
    *grams, scores, shape, mean, spread = args
    H, K = design(shape), grid_covariance(*grams)
    precision = H.T @ jnp.linalg.solve(K, H) + jnp.diag(spread**-2)
    weighted = H.T @ jnp.linalg.solve(K, scores.ravel()) + mean / spread**2
    posterior, root = means_posterior(*args)
    assert_allclose(posterior, jnp.linalg.solve(precision, weighted), rtol=1e-10)
    assert_allclose(root.T @ root, jnp.linalg.inv(precision), rtol=1e-9, atol=1e-12)
