"""Acquisition functions against loops, quadrature, and themselves under jit and vmap."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad
from scipy.stats import norm

from amt.gp.observations import TargetPosterior
from amt.search.acquisition import (
    ACQUISITIONS,
    log_expected_improvement,
    needs,
    upper_confidence_bound,
)

CONFIGS, EPOCHS, INCUMBENT = 7, 4, 0.6
OF_MARGINALS = [name for name, rule in ACQUISITIONS.items() if not needs(rule, "final")]
COMPILED = {name: jax.jit(ACQUISITIONS[name]) for name in OF_MARGINALS}


@pytest.fixture
def problem():
    """A posterior; configurations 2 and 5 have no epoch left, others a tail or a gap."""
    rng = np.random.default_rng(0)
    remaining = np.arange(EPOCHS) >= rng.integers(0, EPOCHS, CONFIGS)[:, None]
    remaining[2] = remaining[5] = False
    remaining[3] = [False, True, False, True]
    remaining[4] = [False, True, True, False]
    mean, variance = rng.normal(size=(CONFIGS, EPOCHS)), rng.uniform(0.1, 2, (CONFIGS, EPOCHS))
    return TargetPosterior(mean, variance), remaining, np.array(INCUMBENT)


def test_upper_confidence_bound_is_the_largest_over_the_remaining_epochs(problem):
    (mean, variance, *_), remaining, _ = problem
    expected = [
        max(
            (mean[c, e] + 0.25 * variance[c, e] ** 0.5 for e in np.flatnonzero(row)),
            default=-np.inf,
        )
        for c, row in enumerate(remaining)
    ]
    assert_allclose(COMPILED["ucb"](*problem), expected, rtol=1e-12)


def test_upper_confidence_bound_with_another_beta(problem):
    (mean, variance, *_), _, incumbent = problem
    every = np.ones((CONFIGS, EPOCHS), bool)
    value = upper_confidence_bound(TargetPosterior(mean, variance), every, incumbent, beta=3.0)
    assert_allclose(value, (mean + 3 * np.sqrt(variance)).max(1), rtol=1e-12)


def expected_improvement_by_quadrature(problem):
    (mean, variance, *_), remaining, incumbent = problem
    value = np.full(CONFIGS, -np.inf)
    for c in range(CONFIGS):
        if remaining[c].any():
            last = np.flatnonzero(remaining[c])[-1]
            density = norm(mean[c, last], variance[c, last] ** 0.5).pdf
            improvement = lambda f: (f - incumbent) * density(f)  # noqa: B023, E731
            value[c], _ = quad(improvement, incumbent, incumbent + 20, epsabs=1e-13)
    return value


def test_expected_improvement_equals_quadrature_at_the_last_remaining_epoch(problem):
    expected = expected_improvement_by_quadrature(problem)
    assert_allclose(COMPILED["ei"](*problem), expected, rtol=1e-9)
    finite = np.isfinite(expected)
    assert_allclose(COMPILED["log_ei"](*problem)[finite], np.log(expected[finite]), rtol=1e-8)


def test_improvement_over_the_remaining_epochs_is_that_of_the_best_by_quadrature(problem):
    (mean, variance, *_), remaining, incumbent = problem
    expected = np.full(CONFIGS, -np.inf)
    for c, e in np.argwhere(remaining):
        density = norm(mean[c, e], variance[c, e] ** 0.5).pdf
        improvement = lambda f: (f - incumbent) * density(f)  # noqa: B023, E731
        value, _ = quad(improvement, incumbent, incumbent + 20, epsabs=1e-13)
        expected[c] = max(expected[c], value)
    assert_allclose(COMPILED["ei_remaining"](*problem), expected, rtol=1e-9)
    finite = np.isfinite(expected)
    log_value = COMPILED["log_ei_remaining"](*problem)[finite]
    assert_allclose(log_value, np.log(expected[finite]), rtol=1e-8)


@pytest.mark.parametrize("name", OF_MARGINALS)
def test_only_configurations_without_an_epoch_left_are_minus_infinity(problem, name):
    assert_array_equal(np.flatnonzero(np.isneginf(COMPILED[name](*problem))), [2, 5])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OF_MARGINALS)
def test_a_hopeless_configuration_comes_before_one_with_no_epoch_left(name, dtype):
    """Certain, and far below the incumbent: still above -inf, and never NaN."""
    mean = jnp.full((3, 2), -100.0, dtype)
    posterior = TargetPosterior(mean, jnp.zeros_like(mean))
    remaining = jnp.array([[False, False], [True, True], [False, True]])
    value = COMPILED[name](posterior, remaining, jnp.asarray(1.0, dtype))
    assert value.dtype == dtype
    assert_array_equal(np.isfinite(value), [False, True, True])


# The tail of log expected improvement, with a standard normal posterior: f ~ N(z, 1), incumbent 0

Z = [
    *-np.geomspace(0.01, 1e4, 20),
    -0.999,
    -1.001,
    -62,
    -64,
    -8.3,
    -8.5,
    -5,
    -20,
    -21,
    -30,
    -200,
    0,
    1,
    6,
    40,
]


def tail_integral(z, power):
    """The integral of t^power exp(-t^2 / 2 + z t) over t > 0, by t = u / |z|."""
    scale = max(abs(z), 1)
    integrand = lambda u: u**power * np.exp(-0.5 * (u / scale) ** 2 + z * u / scale)  # noqa: E731
    value, _ = quad(integrand, 0, 80, epsrel=1e-12, epsabs=0, limit=200)
    return value / scale ** (power + 1)


@cache
def exact(z):
    """Log h(z), and its derivative Phi(z) / h(z)."""
    if z > 0:
        h = norm.pdf(z) + z * norm.cdf(z)
        return np.log(h), norm.cdf(z) / h
    zeroth, first = tail_integral(z, 0), tail_integral(z, 1)
    return norm.logpdf(z) + np.log(first), zeroth / first


def log_ei(z):
    mean = z[:, None]
    posterior = TargetPosterior(mean, jnp.ones_like(mean))
    return log_expected_improvement(posterior, jnp.ones(mean.shape, bool), jnp.zeros((), z.dtype))


@jax.jit
def log_ei_and_slope(z):
    value, pullback = jax.vjp(log_ei, z)
    return value, pullback(jnp.ones_like(value))[0]


@pytest.mark.parametrize(
    ("dtype", "atol", "rtol", "gradient_rtol"),
    [("float64", 4e-9, 1e-14, 1e-8), ("float32", 1e-3, 1e-6, 1e-3)],
)
def test_log_expected_improvement_is_exact_far_into_the_tail(dtype, atol, rtol, gradient_rtol):
    z = np.asarray(Z, dtype)
    value, gradient = log_ei_and_slope(z)
    expected = np.array([exact(float(each)) for each in z])
    assert value.dtype == dtype
    assert_allclose(value, expected[:, 0], atol=atol, rtol=rtol)
    assert_allclose(gradient, expected[:, 1], rtol=gradient_rtol)


def test_the_quadrature_itself_agrees_with_the_known_expansion():
    """Log h = log phi - 2 log|z| + log(1 - 3/z^2 + 15/z^4 - ...), to 1e-9 at z = -200."""
    z = 200.0
    expansion = norm.logpdf(z) - 2 * np.log(z) + np.log1p(-3 / z**2 + 15 / z**4)
    assert_allclose(exact(-z)[0], expansion, rtol=1e-13)


def test_expected_improvement_underflows_to_0(problem):
    (mean, variance, *_), remaining, incumbent = problem
    value = COMPILED["ei"](TargetPosterior(mean - 200, variance), remaining, incumbent)
    assert_array_equal(value, np.where(remaining.any(1), 0, -np.inf))


# Transformations


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OF_MARGINALS)
def test_gradients_are_finite_and_those_of_central_differences(problem, name, dtype):
    (mean, variance, *_), remaining, incumbent = problem
    mean = mean.copy()
    # Far below and above the incumbent, and no two alike.
    mean[0], mean[1] = -30 - np.arange(EPOCHS), 30 + np.arange(EPOCHS)
    args = tuple(np.asarray(a, dtype) for a in (mean, variance, incumbent))

    def total(mean, variance, incumbent):
        value = ACQUISITIONS[name](TargetPosterior(mean, variance), remaining, incumbent)
        return jnp.sum(jnp.where(remaining.any(1), value, 0))

    compiled = jax.jit(jax.value_and_grad(total, (0, 1, 2)))
    gradient = list(map(np.asarray, compiled(*args)[1]))
    assert all(g.dtype == dtype and np.isfinite(g).all() for g in gradient)
    if dtype == "float64":
        step = [np.random.default_rng(1).normal(size=a.shape) * 1e-5 for a in args]
        moved = [
            compiled(*(a + s * d for a, d in zip(args, step, strict=True)))[0] for s in (1, -1)
        ]
        slope = sum(np.sum(g * d) for g, d in zip(gradient, step, strict=True))
        assert_allclose((moved[0] - moved[1]) / 2, slope, rtol=1e-6)


@pytest.mark.parametrize("name", OF_MARGINALS)
def test_float32_agrees_and_jit_and_vmap_change_nothing(problem, name):
    (mean, variance, *_), remaining, incumbent = problem
    alone = COMPILED[name](*problem)
    single = jax.tree.map(lambda a: jnp.asarray(a, "float32"), TargetPosterior(mean, variance))
    in_single = COMPILED[name](single, remaining, jnp.float32(incumbent))
    assert in_single.dtype == jnp.float32
    assert_allclose(in_single, alone, rtol=1e-4, atol=1e-5)
    batch = TargetPosterior(np.stack([mean, mean + 1]), np.stack([variance, variance]))
    together = jax.jit(jax.vmap(ACQUISITIONS[name], (0, None, 0)))(
        batch, remaining, np.array([INCUMBENT, INCUMBENT + 1])
    )
    assert_allclose(together[0], alone, rtol=1e-12)
    shift = 1 if name == "ucb" else 0
    assert_allclose(together[1], alone + shift, rtol=1e-9)


def test_perfect_information_is_of_the_leader_turning_out_worse_or_another_better(problem):
    (mean, variance, *_), remaining, _ = problem
    at = np.arange(CONFIGS), mean.argmax(1)
    value = np.exp(COMPILED["vpi"](*problem))
    second, first = np.sort(mean[at])[-2:]
    for c in range(CONFIGS):
        center, deviation = mean[at][c], np.sqrt(variance[at][c])
        limits = (-np.inf, second) if center == first else (first, np.inf)
        other = second if center == first else first
        gain, _ = quad(
            lambda f, m=center, s=deviation, o=other: abs(f - o) * norm.pdf(f, m, s), *limits
        )
        assert_allclose(value[c], gain if remaining[c].any() else 0, rtol=1e-6)


def test_a_leader_that_is_known_is_not_trained_on():
    posterior = TargetPosterior(np.array([[1.0], [0.0]]), np.array([[1e-4], [0.04]]))
    value = COMPILED["vpi"](posterior, np.ones((2, 1), bool), 1.0)
    assert value[1] > value[0]


def test_there_is_a_value_of_one_configuration_alone():
    posterior = TargetPosterior(np.zeros((1, EPOCHS)), np.ones((1, EPOCHS)))
    assert np.isfinite(COMPILED["vpi"](posterior, np.ones((1, EPOCHS), bool), 0.0)).all()
