"""The Kronecker likelihood and solver against dense algebra through tinygp's DirectSolver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tinygp
from hypothesis import given
from hypothesis import strategies as st
from tinygp.kernels import ExpSquared, Kernel, Matern52

from amt.gp.solvers.kronecker import (
    KroneckerKernel,
    KroneckerSolver,
    grid_points,
    log_likelihood,
    outer,
    profile_log_likelihood,
    whiten,
)


class Gram(Kernel):
    """A kernel on indices, of a given Gram matrix."""

    matrix: jax.Array

    def evaluate(self, X1, X2):
        return self.matrix[X1, X2]


# Few shapes, as each compiles anew.
SHAPES = st.sampled_from([(1, 1, 1), (1, 4, 3), (3, 1, 2), (4, 3, 1), (3, 4, 5)])
SEEDS = st.integers(0, 2**31 - 1)


def random_gram(rng, n, rank=None):
    root = rng.normal(size=(n, rank or n))
    return jnp.asarray(root @ root.T / root.shape[1])


def problem(shape, seed, degenerate=False):
    """Factors, scores and separable noise; degenerate: rank one fidelity, configurations twice."""
    rng = np.random.default_rng(seed)
    task, config, epoch = shape
    config_gram = np.asarray(random_gram(rng, config))
    if degenerate:
        repeated = rng.integers(0, config, config)
        config_gram = config_gram[repeated][:, repeated]
    factors = (
        random_gram(rng, task),
        jnp.asarray(config_gram),
        random_gram(rng, epoch, 1 if degenerate else None),
    )
    noise = (jnp.exp(rng.normal(-2, 0.5, task)), jnp.exp(rng.normal(0, 0.5, epoch)))
    return factors, jnp.asarray(rng.normal(size=shape)), noise


def ours(factors, scores, noise):
    task, config, fidelity = factors
    scores, task, fidelity, half_log_det = whiten(scores, task, fidelity, *noise)
    return log_likelihood(task, config, fidelity, scores) - half_log_det


def points(shape):
    return grid_points(*(jnp.arange(n) for n in shape))


def dense(factors, scores, noise):
    diag = outer(noise[0], jnp.ones(scores.shape[1]), noise[1]).ravel()
    kernel = KroneckerKernel(*map(Gram, factors))
    gp = tinygp.GaussianProcess(kernel, points(scores.shape), diag=diag)
    return gp.log_probability(scores.ravel())


def symmetric(gradients):
    """The gradient with respect to a symmetric matrix, whichever of its halves were used."""
    (task, config, fidelity), scores, noise = gradients
    return [m + m.T for m in (task, config, fidelity)], scores, noise


def assert_trees_close(actual, expected, rtol):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=rtol, atol=rtol * (1e-6 + np.abs(e).max()))


ours_with_gradients = jax.jit(jax.value_and_grad(ours, (0, 1, 2)))
dense_with_gradients = jax.jit(jax.value_and_grad(dense, (0, 1, 2)))


@given(SHAPES, SEEDS, st.booleans())
def test_likelihood_and_gradients_equal_dense_algebra(shape, seed, degenerate):
    args = problem(shape, seed, degenerate)
    value, gradients = ours_with_gradients(*args)
    expected_value, expected = dense_with_gradients(*args)
    np.testing.assert_allclose(value, expected_value, rtol=1e-8)
    assert_trees_close(symmetric(gradients), symmetric(expected), 1e-8)


@given(SHAPES, SEEDS, st.booleans())
def test_float32_likelihood_agrees_to_1e3(shape, seed, degenerate):
    args = problem(shape, seed, degenerate)
    single = jax.tree.map(lambda a: a.astype(jnp.float32), args)
    value, gradients = ours_with_gradients(*single)
    assert value.dtype == jnp.float32
    expected = ours_with_gradients(*args)
    size = args[1].size
    np.testing.assert_allclose(value / size, expected[0] / size, rtol=1e-3, atol=1e-3)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))
    assert_trees_close(symmetric(gradients), symmetric(expected[1]), 1e-3)


def profiled_densely(factors, scores, shape):
    """The log-likelihood at the generalized-least-squares means, by dense algebra."""
    num_tasks, num_configs, _ = scores.shape
    covariance = jnp.kron(factors[0], jnp.kron(*factors[1:])) + jnp.eye(scores.size)
    design = jnp.kron(jnp.eye(num_tasks), jnp.tile(shape, num_configs)[:, None])
    inverse = jnp.linalg.inv(covariance)
    means = jnp.linalg.solve(design.T @ inverse @ design, design.T @ inverse @ scores.ravel())
    residual = scores.ravel() - design @ means
    log_det = jnp.linalg.slogdet(covariance)[1] + scores.size * jnp.log(2 * jnp.pi)
    return -0.5 * (residual @ inverse @ residual + log_det), means


@given(SHAPES, SEEDS, st.booleans())
def test_profile_likelihood_is_the_maximum_over_task_means(shape, seed, degenerate):
    factors, scores, _ = problem(shape, seed, degenerate)
    h = jnp.asarray(np.random.default_rng(seed).uniform(0.5, 1.5, shape[2]))

    (value, means), gradients = profiled(factors, scores, h)
    (expected_value, expected_means), expected = profiled_dense(factors, scores, h)
    np.testing.assert_allclose(value, expected_value, rtol=1e-8)
    np.testing.assert_allclose(means, expected_means, rtol=1e-7, atol=1e-8)
    assert_trees_close(symmetric(gradients), symmetric(expected), 1e-7)


def _with_gradients(function):
    return jax.jit(jax.value_and_grad(function, (0, 1, 2), has_aux=True))


profiled = _with_gradients(lambda f, y, h: profile_log_likelihood(*f, y, h))
profiled_dense = _with_gradients(profiled_densely)


@pytest.fixture
def processes():
    rng = np.random.default_rng(0)
    shape = (3, 4, 5)
    kernel = KroneckerKernel(Gram(random_gram(rng, 3)), ExpSquared(scale=0.8), Matern52(scale=2.0))
    configs, epochs = jnp.asarray(rng.normal(size=(4, 2))), jnp.linspace(0.2, 1, 5)
    X = grid_points(jnp.arange(3), configs, epochs)
    noise = outer(jnp.array([0.1, 0.2, 0.3]), jnp.ones(4), jnp.linspace(2, 1, 5)).ravel()
    y = jnp.asarray(rng.normal(size=60))

    def make(kernel, noise, **solver):
        return tinygp.GaussianProcess(kernel, X, diag=noise, mean=0.3, **solver)

    fast = {"solver": KroneckerSolver, "shape": shape}
    return kernel, noise, y, X, make, fast


def test_solver_plugs_into_tinygp(processes):
    kernel, noise, y, X, make, fast = processes
    exact, ours = make(kernel, noise), make(kernel, noise, **fast)
    np.testing.assert_allclose(ours.log_probability(y), exact.log_probability(y), rtol=1e-10)
    np.testing.assert_allclose(ours.variance, exact.variance, rtol=1e-12)
    np.testing.assert_allclose(ours.covariance, exact.covariance, rtol=1e-12)
    test = jax.tree.map(lambda a: a[::7], X)
    expected = exact.predict(y, test, return_cov=True)
    for got, want in zip(ours.predict(y, test, return_cov=True), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)
    for got, want in zip(
        ours.predict(y, return_var=True), exact.predict(y, return_var=True), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)


def test_solver_root_is_a_square_root(processes):
    kernel, noise, y, _, make, fast = processes
    solver = make(kernel, noise, **fast).solver
    root = solver.dot_triangular(jnp.eye(60))
    np.testing.assert_allclose(root @ root.T, solver.covariance(), atol=1e-10)
    np.testing.assert_allclose(solver.solve_triangular(root @ y), y, atol=1e-8)
    transposed = solver.solve_triangular(root.T @ y, transpose=True)
    np.testing.assert_allclose(transposed, y, atol=1e-8)


def test_solver_samples_have_the_covariance(processes):
    kernel, noise, _, _, make, fast = processes
    gp = make(kernel, noise, **fast)
    samples = gp.sample(jax.random.key(0), (20_000,))
    scale = jnp.sqrt(gp.variance)
    error = (jnp.cov(samples.T) - gp.covariance) / (scale[:, None] * scale)
    assert jnp.abs(error).max() < 6 / 20_000**0.5


@pytest.mark.parametrize("value", ["log_probability", "sample"])
def test_solver_gradients_equal_dense_algebra(processes, value):
    kernel, noise, y, _, make, fast = processes

    def function(matrix, y, solver):
        gp = make(KroneckerKernel(Gram(matrix), kernel.config, kernel.fidelity), noise, **solver)
        if value == "log_probability":
            return gp.log_probability(y)
        # Roots differ by a rotation, their products with themselves do not.
        root = gp.solver.dot_triangular(jnp.eye(60))
        return y @ root @ (root.T @ y)

    args = kernel.task.matrix, y
    got = jax.grad(function, (0, 1))(*args, fast)
    want = jax.grad(function, (0, 1))(*args, {})
    np.testing.assert_allclose(got[0] + got[0].T, want[0] + want[0].T, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-8, atol=1e-10)


def test_solver_refuses_what_it_cannot_do(processes):
    kernel, noise, _, _, make, fast = processes
    with pytest.raises(ValueError, match="60 points are no"):
        make(kernel, noise, solver=KroneckerSolver, shape=(3, 4, 4))
    with pytest.raises(ValueError, match="product over task and epoch"):
        make(kernel, noise.at[7].mul(2), **fast)
    with pytest.raises(ValueError, match="needs a KroneckerKernel"):
        make(kernel.fidelity, noise, **fast)
