"""The likelihood of complete grids against dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amt.gp.factors import Factors, Grams, Whitened
from amt.gp.solvers.kronecker import Kronecker, log_likelihood, profile_log_likelihood
from tests import oracle
from tests.gp.problems import (
    SEEDS,
    SHAPE,
    assert_close,
    condition,
    in_float32,
    random_observations,
    random_sources,
    symmetric,
)

EDGES = [(1, 1, 1), (1, 4, 3), (3, 1, 2), (4, 3, 1)]


def problem(seed, degenerate=False, shape=SHAPE):
    """Factors and scores, and the course of a mean over the epochs."""
    sources = random_sources(seed, None, shape, degenerate=degenerate)
    course = np.random.default_rng(seed).uniform(0.5, 1.5, shape[2])
    return sources.factors, sources.scores, course


def assert_trees_close(actual, expected, rtol):
    pairs = zip(*map(jax.tree.leaves, jax.device_get((actual, expected))), strict=True)
    for a, e in pairs:
        np.testing.assert_allclose(a, e, rtol=rtol, atol=rtol * (1e-6 + np.abs(e).max()))


def with_gradients(function, arguments=(0, 1)):
    return jax.jit(jax.value_and_grad(function, arguments, has_aux=True))


def residual_density(factors, scores):
    """Log likelihood of scores whose mean is 0."""
    whitened, half_log_det = factors.whiten(scores)
    density = log_likelihood(whitened.grams, whitened.scores)
    return density - half_log_det, None


def dense_residual_density(factors, scores):
    process = oracle.of_factors(factors, scores)
    return process.log_density(jnp.zeros(scores.size)), None


ours = with_gradients(residual_density)
dense = with_gradients(dense_residual_density)


def check_likelihood(factors, scores):
    (value, _), gradients = ours(factors, scores)
    (expected_value, _), expected = dense(factors, scores)
    np.testing.assert_allclose(value, expected_value, rtol=1e-8)
    for got, want in zip(gradients, expected, strict=True):
        got, want = (
            symmetric(g) if hasattr(g, "grams") else g for g in jax.device_get((got, want))
        )
        assert_trees_close(got, want, 1e-8)


@given(SEEDS, st.booleans())
def test_likelihood_and_gradients_equal_dense_algebra(seed, degenerate):
    check_likelihood(*problem(seed, degenerate)[:2])


@pytest.mark.parametrize("shape", EDGES)
def test_likelihood_of_one_task_configuration_or_epoch(shape):
    check_likelihood(*problem(0, shape=shape)[:2])


@given(SEEDS, st.booleans())
def test_float32_likelihood_agrees_to_1e3(seed, degenerate):
    args = problem(seed, degenerate)[:2]
    (value, _), gradients = jax.device_get(ours(*in_float32(args)))
    assert value.dtype == jnp.float32
    (expected, _), want = jax.device_get(ours(*args))
    size = args[1].size
    np.testing.assert_allclose(value / size, expected / size, rtol=1e-3, atol=1e-3)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    assert_trees_close(symmetric(gradients[0]), symmetric(want[0]), 1e-3)
    assert_trees_close(gradients[1], want[1], 1e-3)


def in_unit_noise(function):
    """As a function of Gram matrices in units of the noise, scores and the course of a mean."""

    def of_parts(grams, scores, course):
        return function(Whitened(Grams(*grams), scores, course))

    return with_gradients(of_parts, (0, 1, 2))


def dense_profile(whitened):
    grams, scores, course = whitened
    return oracle.solve(unit_noise(grams), scores, course)


def unit_noise(grams):
    return Factors(grams, jnp.ones(len(grams.task)), jnp.ones(len(grams.fidelity)))


profiled = in_unit_noise(lambda whitened: profile_log_likelihood(*whitened))
profiled_dense = in_unit_noise(dense_profile)


def check_profile(factors, scores, course):
    both = (profiled(factors.grams, scores, course), profiled_dense(factors.grams, scores, course))
    ((value, means), (grams, *rest)), dense = jax.device_get(both)
    (expected, expected_means), (of_grams, *others) = dense
    np.testing.assert_allclose(value, expected, rtol=1e-8)
    np.testing.assert_allclose(means, expected_means, rtol=1e-7, atol=1e-8)
    both = [[m + m.T for m in matrices] for matrices in (grams, of_grams)]
    assert_trees_close(both[0], both[1], 1e-7)
    assert_trees_close(rest, others, 1e-7)


@given(SEEDS, st.booleans())
def test_profile_likelihood_is_the_maximum_over_task_means(seed, degenerate):
    check_profile(*problem(seed, degenerate))


@pytest.mark.parametrize("shape", EDGES)
def test_profile_likelihood_of_one_task_configuration_or_epoch(shape):
    check_profile(*problem(0, shape=shape))


solve = jax.jit(Kronecker().solve)
dense_solve = jax.jit(oracle.solve)


@given(SEEDS)
def test_solves_for_the_likelihood_and_the_means(seed):
    factors, scores, _ = problem(seed)
    value, means, converged = solve(factors, scores)
    assert_close((value, means), dense_solve(factors, scores))
    assert converged


@given(SEEDS)
def test_posterior_at_given_means_equals_dense_algebra(seed):
    """Means of a draw, which are not at their generalized-least-squares value."""
    sources = random_sources(seed)
    means = np.random.default_rng(seed).normal(size=SHAPE[0])
    posterior = at_means(sources, means)
    np.testing.assert_array_equal(posterior.source_mean, means)
    observed = random_observations(seed, 4)
    want = oracle.condition(sources, sources.task.full, observed, means=means)
    assert_close(condition(posterior, observed)[:2], want[:2])


at_means = jax.jit(lambda sources, means: Kronecker().posterior(sources, means=means))
