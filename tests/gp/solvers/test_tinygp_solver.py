"""The solver for tinygp against its own direct one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tinygp
from tinygp.kernels import ExpSquared, Matern52

from amt.gp.points import KroneckerKernel, grid_points
from amt.gp.solvers import KroneckerSolver
from amt.gp.spectral import outer
from tests.gp.problems import random_gram
from tests.oracle import Gram


@pytest.fixture
def processes():
    rng = np.random.default_rng(0)
    shape = (3, 4, 5)
    kernel = KroneckerKernel(Gram(jnp.asarray(random_gram(rng, 3))), ExpSquared(scale=0.8), Matern52(scale=2.0))
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
