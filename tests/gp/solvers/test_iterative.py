"""Gaussian processes on incomplete grids against dense algebra on the observed scores."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amt.gp.posterior import Observations, OffGrid
from amt.gp.solvers import kronecker
from amt.gp.solvers.iterative import (
    DEFAULT,
    LatentSourcePosterior,
    Solver,
    Weights,
    conjugate_gradients,
    is_solved,
    lanczos_quadrature,
    log_likelihood,
    profile_log_likelihood,
)
from tests.gp.solvers.test_observed_curves import condition
from tests.gp.solvers.test_observed_curves import dense_posterior as joint_posterior
from tests.gp.test_posterior import KnownTask, off_grid_problem, on_the_grid, problem

SHAPE = (3, 4, 5)
SEEDS = st.integers(0, 2**31 - 1)
# Random masks; the first keeps a score of each task, the second loses curves and their ends.
MISSING = st.sampled_from(["anywhere", "curves"])
EXACT = Solver(tolerance=1e-11, rank=None, lanczos=64)


def random_mask(seed, kind):
    rng = np.random.default_rng(seed)
    if kind == "anywhere":
        mask = rng.random(SHAPE) < 0.5
    else:
        ends = rng.integers(0, SHAPE[2] + 1, SHAPE[:2])
        mask = np.arange(SHAPE[2]) < ends[..., None]
    mask[:, 0, 0] = True
    return jnp.asarray(mask)


def dense(factors, scores, shape, task_noise, epoch_noise, mask):
    """At the generalized-least-squares means. What is missing has no covariance with the rest,
    a residual of 0 and a variance of 1: it adds nothing.
    """
    mask = mask.ravel()
    covariance = jnp.kron(factors[0], jnp.kron(*factors[1:]))
    noise = kronecker.outer(task_noise, jnp.ones(SHAPE[1]), epoch_noise).ravel()
    gram = jnp.where(mask[:, None] & mask, covariance, 0) + jnp.diag(jnp.where(mask, noise, 1))
    design = jnp.kron(jnp.eye(SHAPE[0]), jnp.tile(shape, SHAPE[1])[:, None]) * mask[:, None]
    inverse = jnp.linalg.inv(gram)
    observed = jnp.where(mask, scores.ravel(), 0)
    means = jnp.linalg.solve(design.T @ inverse @ design, design.T @ inverse @ observed)
    means = jax.lax.stop_gradient(means)
    residual = observed - design @ means
    log_det = jnp.linalg.slogdet(gram)[1] + mask.sum() * jnp.log(2 * jnp.pi)
    return -0.5 * (residual @ inverse @ residual + log_det), means


def unit_noise_problem(seed, degenerate=False):
    (task, config, fidelity, scores, *_), _ = problem(SHAPE, 0, seed, degenerate)
    shape = jnp.asarray(np.random.default_rng(seed).uniform(0.5, 1.5, SHAPE[2]))
    return (3 * task[:-1, :-1], config, fidelity), scores, shape


def symmetric(gradients):
    factors, *rest = gradients
    return [*(m + m.T for m in factors), *rest]


@partial(jax.jit, static_argnums=4)
def ours(factors, scores, shape, mask, settings):
    def function(factors, scores, shape):
        return profile_log_likelihood(*factors, scores, shape, mask, settings)

    return jax.value_and_grad(function, (0, 1, 2), has_aux=True)(factors, scores, shape)


@jax.jit
def dense_with_gradients(factors, scores, shape, mask):
    ones = jnp.ones(SHAPE[0]), jnp.ones(SHAPE[2])
    function = lambda f, y, h: dense(f, y, h, *ones, mask)  # noqa: E731
    return jax.value_and_grad(function, (0, 1, 2), has_aux=True)(factors, scores, shape)


@given(SEEDS, st.booleans())
def test_complete_grid_has_the_value_of_the_kronecker_product(seed, degenerate):
    factors, scores, shape = unit_noise_problem(seed, degenerate)
    (value, means), _ = ours(factors, scores, shape, jnp.ones(SHAPE, bool), EXACT)
    expected, expected_means = kronecker.profile_log_likelihood(*factors, scores, shape)
    np.testing.assert_allclose(value, expected, rtol=1e-9)
    np.testing.assert_allclose(means, expected_means, rtol=1e-6, atol=1e-8)


@given(SEEDS, MISSING, st.booleans())
def test_means_and_gradient_of_the_scores_equal_dense_algebra(seed, kind, degenerate):
    factors, scores, shape = unit_noise_problem(seed, degenerate)
    mask = random_mask(seed, kind)
    (_, means), gradients = ours(factors, scores, shape, mask, EXACT)
    (_, expected_means), expected = dense_with_gradients(factors, scores, shape, mask)
    np.testing.assert_allclose(means, expected_means, rtol=1e-7, atol=1e-8)
    for got, want in zip(gradients[1:], expected[1:], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("kind", ["anywhere", "curves"])
def test_likelihood_and_gradients_are_those_of_dense_algebra_in_the_limit(kind):
    """The error falls as the root of the number of probes: a few per cent, then well below one."""
    factors, scores, shape = unit_noise_problem(1)
    mask = random_mask(2, kind)
    (expected, _), gradients = dense_with_gradients(factors, scores, shape, mask)
    for probes, tolerance in ((400, 0.2), (40_000, 0.02)):
        settings = EXACT._replace(probes=probes, tolerance=1e-6)
        (value, _), got = ours(factors, scores, shape, mask, settings)
        assert abs(value - expected) < 10 * tolerance
        for mine, dense in zip(symmetric(got)[:3], symmetric(gradients)[:3], strict=True):
            assert np.abs(mine - dense).max() < tolerance * np.abs(dense).max()


def test_likelihood_errors_are_of_second_order_in_the_tolerance():
    factors, scores, shape = unit_noise_problem(3)
    mask = random_mask(3, "curves")
    (exact, _), gradients = ours(factors, scores, shape, mask, EXACT)
    (value, _), rough = ours(factors, scores, shape, mask, EXACT._replace(tolerance=1e-3))
    np.testing.assert_allclose(value, exact, atol=1e-4)
    for got, want in zip(jax.tree.leaves(rough), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-2 * np.abs(want).max())


def test_float32_likelihood_agrees_to_1e3():
    args = (*unit_noise_problem(4), random_mask(4, "anywhere"))
    settings = EXACT._replace(tolerance=1e-2)
    (value, _), gradients = ours(*args, settings)
    single = jax.tree.map(lambda a: a.astype(jnp.float32), args[:3])
    (value32, _), gradients32 = ours(*single, args[3], settings)
    assert value32.dtype == jnp.float32
    # Random draws differ between the types: what does not depend on them is compared.
    assert abs(value32 - value) < 5
    np.testing.assert_allclose(gradients32[1], gradients[1], atol=1e-3 * 10)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients32))


def test_likelihood_of_restarts_side_by_side_is_that_of_each():
    factors, scores, shape = unit_noise_problem(5)
    mask = random_mask(5, "curves")
    stacked = jax.tree.map(lambda a: jnp.stack([a, 3 * a]), factors)
    both = jax.jit(jax.vmap(lambda f: ours(f, scores, shape, mask, EXACT)))(stacked)
    for index in range(2):
        one = ours(jax.tree.map(lambda a: a[index], stacked), scores, shape, mask, EXACT)  # noqa: B023
        for got, want in zip(jax.tree.leaves(both), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(got[index], want, rtol=1e-7, atol=1e-7)


def test_noise_of_tasks_and_epochs_is_that_of_dense_algebra():
    (task, config, fidelity, scores, _, task_noise, epoch_noise), _ = problem(SHAPE, 0, 6)
    mask = random_mask(6, "curves")
    factors = task[:-1, :-1], config, fidelity
    noise = task_noise, epoch_noise
    observed = jnp.where(mask, scores, jnp.nan)
    settings = EXACT._replace(probes=20_000, tolerance=1e-6)

    def function(noise):
        return log_likelihood(*factors, observed, *noise, settings)

    def expected(noise):
        return dense(factors, scores, jnp.ones(SHAPE[2]), *noise, mask)

    (value, means), got = jax.jit(jax.value_and_grad(function, has_aux=True))(noise)
    (dense_value, dense_means), want = jax.value_and_grad(expected, has_aux=True)(noise)
    assert abs(value - dense_value) < 0.3
    np.testing.assert_allclose(means, dense_means, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(got, want, strict=True):
        assert np.abs(mine - theirs).max() < 0.03 * np.abs(theirs).max()


def test_conjugate_gradients_and_quadrature_of_several_systems():
    """One converges at once, one is zero, one takes as many steps as there are dimensions."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(12, 12))
    matrix = jnp.asarray(root @ root.T / 12 + 0.1 * np.eye(12))
    right = jnp.stack(
        [jnp.linalg.eigh(matrix)[1][:, 4], jnp.zeros(12), jnp.asarray(rng.normal(size=12))]
    )
    weights = Weights(right.reshape(3, 2, 2, 3), jnp.zeros((3, 2)))

    def product(w):
        return Weights((w.function.reshape(3, 12) @ matrix).reshape(w.function.shape), 2 * w.mean)

    squared = lambda w: jnp.sum(jnp.square(w.function), (1, 2, 3))  # noqa: E731
    result = jax.jit(
        lambda w: conjugate_gradients(product, w, squared, jnp.full(3, 1e-20), 100, 20)
    )(weights)
    solution = jnp.linalg.solve(matrix, right.T).T
    np.testing.assert_allclose(result.solution.function.reshape(3, 12), solution, atol=1e-8)
    values, vectors = jnp.linalg.eigh(matrix)
    log = vectors @ (jnp.log(values)[:, None] * vectors.T)
    got = lanczos_quadrature(jnp.log, result) * jnp.sum(jnp.square(right), 1)
    expected = jnp.einsum("ri,ij,rj->r", right, log, right)
    np.testing.assert_allclose(got, expected, atol=1e-8)


def source_posterior(arrays, mask, samples=256, settings=DEFAULT):
    full, config, fidelity, scores, _, task_noise, epoch_noise = arrays
    observed = jnp.where(mask, scores, jnp.nan)
    settings = settings._replace(samples=samples)
    return LatentSourcePosterior.of(
        KnownTask(full), config, fidelity, observed, task_noise, epoch_noise, None, settings
    )


@given(SEEDS, MISSING, st.integers(0, 6), st.booleans())
def test_posterior_without_sampling_equals_dense_algebra(seed, kind, count, degenerate):
    arrays, observed = problem(SHAPE, count, seed, degenerate)
    mask = random_mask(seed, kind)
    source, posterior = exact_posterior(arrays, mask, observed)
    mean, variance = joint_posterior(arrays, np.asarray(mask), observed, source.source_mean)
    np.testing.assert_allclose(posterior.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(posterior.variance, variance, rtol=1e-5, atol=1e-6)


@jax.jit
def exact_posterior(arrays, mask, observed):
    source = source_posterior(arrays, mask, samples=None, settings=EXACT._replace(tolerance=1e-8))
    return source, source.condition(observed)


def test_source_means_and_response_equal_dense_algebra():
    arrays, _ = problem(SHAPE, 0, 7)
    full, config, fidelity, scores, _, task_noise, epoch_noise = arrays
    mask = random_mask(7, "curves")
    source = source_posterior(arrays, mask, samples=16, settings=EXACT._replace(tolerance=1e-8))
    factors = full[:-1, :-1], config, fidelity
    _, means = dense(factors, scores, jnp.ones(SHAPE[2]), task_noise, epoch_noise, mask)
    np.testing.assert_allclose(source.source_mean, means, rtol=1e-7, atol=1e-9)
    t, c, e = np.nonzero(np.asarray(mask))
    gram = factors[0][t[:, None], t] * config[c[:, None], c] * fidelity[e[:, None], e]
    gram += jnp.diag(task_noise[t] * epoch_noise[e])
    weights = jnp.linalg.solve(gram, (scores - means[:, None, None])[t, c, e])
    alpha = jnp.zeros(SHAPE).at[t, c, e].set(weights)
    expected = config @ alpha @ fidelity
    np.testing.assert_allclose(source.response(config), expected, rtol=1e-6, atol=1e-7)


def test_sampled_posterior_has_the_stated_accuracy():
    arrays, observed = problem(SHAPE, 3, 8)
    mask = random_mask(8, "curves")
    exact, posterior = exact_posterior(arrays, mask, observed)
    nothing = Observations.empty(4, jnp.dtype("float64"))
    errors_of_mean = []
    for samples in (256, 8192):
        sampled = source_posterior(arrays, mask, samples=samples)
        # The sources' posterior variances, in units of their standard errors.
        variances = [jnp.square(s.deviations).sum(0) for s in (exact, sampled)]
        errors = (variances[1] / variances[0] - 1) / (2 / samples) ** 0.5
        assert 0.5 < jnp.sqrt(jnp.mean(jnp.square(errors))) < 1.6
        got = sampled.condition(observed)
        close = 4 * (2 / samples) ** 0.5
        np.testing.assert_allclose(got.variance, posterior.variance, rtol=close)
        spread = jnp.sqrt(posterior.variance)
        errors_of_mean.append(jnp.abs((got.mean - posterior.mean) / spread).max())
        before = sampled.condition(nothing).mean, exact.condition(nothing).mean
        np.testing.assert_allclose(*before, rtol=1e-3, atol=1e-3)
    # Measured: 0.35 to 0.43 and 0.09 to 0.15 over three seeds.
    assert errors_of_mean[0] < 0.5
    assert errors_of_mean[1] < 0.2


def test_evaluations_under_way_lower_variances_alone():
    arrays, observed = problem(SHAPE, 3, 9)
    source, before = exact_posterior(arrays, random_mask(9, "anywhere"), observed)
    index = jnp.asarray([1, 3])
    pending = Observations(index, index, jnp.full(2, jnp.nan), jnp.asarray(2))
    with_pending = source.condition(observed, pending=pending)
    np.testing.assert_allclose(with_pending.mean, before.mean, rtol=1e-8)
    assert (with_pending.variance[index, index] < before.variance[index, index] - 1e-6).all()
    # As if the posterior mean had been observed.
    told = observed
    for i in index:
        told = told.append(i, i, before.mean[i, i])
    after = source.condition(told)
    np.testing.assert_allclose(with_pending.variance, after.variance, rtol=1e-6, atol=1e-9)


def test_conjugate_gradients_that_stop_early_say_so():
    arrays, _ = problem(SHAPE, 0, 14)
    full, config, fidelity, scores, _, *noise = arrays
    mask = random_mask(14, "curves")
    factors = full[:-1, :-1], config, fidelity, jnp.where(mask, scores, jnp.nan), *noise
    for steps, expected in ((1000, True), (2, False)):
        settings = Solver(tolerance=1e-6, max_steps=steps)
        assert jax.jit(is_solved, static_argnums=6)(*factors, settings) == expected
    few = Solver(tolerance=1e-9, max_steps=1)  # for the means tenfold
    for settings, expected in ((Solver(), True), (few, False)):
        source = jax.jit(lambda a: source_posterior(a, mask, samples=16, settings=settings))(arrays)  # noqa: B023
        assert source.solved == expected


def test_indefinite_task_kernels_give_nan():
    arrays, observed = problem(SHAPE, 2, 10)
    # A target that correlates with the sources by more than 1.
    full = arrays[0].at[-1, :-1].mul(10).at[:-1, -1].mul(10)
    _, posterior = exact_posterior((full, *arrays[1:]), random_mask(10, "curves"), observed)
    assert jnp.isnan(posterior.variance).all()


def test_configurations_off_the_grid_have_the_posterior_of_dense_algebra():
    for seed, kind in ((11, "curves"), (12, "anywhere")):
        arrays, observed, extra = off_grid_problem(SHAPE, 4, seed)
        mask = random_mask(seed, kind)
        source, _ = exact_posterior(on_the_grid(arrays), mask, Observations.empty(1, jnp.float64))
        posterior = condition(source, observed, extra)
        expected = joint_posterior(arrays, np.asarray(mask), observed, source.source_mean)
        for got, want in zip(posterior, expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_singular_configurations_off_the_grid_stay_finite():
    """Two of the grid's alike, and one off the grid like them."""
    arrays, observed, extra = off_grid_problem(SHAPE, 4, 13)
    index = jnp.asarray([0, 0, 1, 2, 0, 3, 4, 5])
    arrays = arrays[0], arrays[1][index[:, None], index], *arrays[2:]
    config = arrays[1]
    extra = OffGrid(config[4:, :4], config[4:-1, 4:], jnp.diagonal(config)[4:])
    mask = random_mask(13, "curves")
    source, _ = exact_posterior(on_the_grid(arrays), mask, observed._replace(count=jnp.asarray(0)))
    posterior = condition(source, observed, extra)
    for got in posterior:
        np.testing.assert_allclose(got[4], got[0], rtol=1e-5, atol=1e-6)
    expected = joint_posterior(arrays, np.asarray(mask), observed, source.source_mean)
    np.testing.assert_allclose(posterior.variance, expected[1], rtol=1e-5, atol=1e-6)
