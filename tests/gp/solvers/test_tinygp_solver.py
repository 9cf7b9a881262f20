"""The solver for tinygp against its own direct one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tinygp
from tinygp.kernels import ExpSquared, Matern52

from amt.gp.points import KroneckerKernel, grid_points
from amt.gp.solvers import KroneckerSolver
from tests.gp.problems import random_gram
from tests.oracle import Gram


@pytest.fixture
def processes():
    rng = np.random.default_rng(0)
    shape = (3, 4, 5)
    kernel = KroneckerKernel(
        Gram(jax.device_put(random_gram(rng, 3))), ExpSquared(scale=0.8), Matern52(scale=2.0)
    )
    configs, epochs = rng.normal(size=(4, 2)), np.linspace(0.2, 1, 5)
    X = jax.device_get(jax.jit(grid_points)(np.arange(3), configs, epochs))
    noise = np.kron([0.1, 0.2, 0.3], np.kron(np.ones(4), np.linspace(2, 1, 5)))
    y = rng.normal(size=60)

    def make(kernel, noise, **solver):
        return tinygp.GaussianProcess(kernel, X, diag=noise, mean=0.3, **solver)

    fast = {"solver": KroneckerSolver, "shape": shape}
    return kernel, noise, y, X, make, fast


def test_solver_plugs_into_tinygp(processes):
    kernel, noise, y, X, make, fast = processes
    test = jax.tree.map(lambda a: a[::7], X)

    def everything(**solver):
        gp = make(kernel, noise, **solver)
        predicted = gp.predict(y, test, return_cov=True), gp.predict(y, return_var=True)
        return gp.log_probability(y), gp.variance, gp.covariance, predicted

    exact, ours = (jax.jit(lambda s=solver: everything(**s))() for solver in ({}, fast))
    np.testing.assert_allclose(ours[0], exact[0], rtol=1e-10)
    np.testing.assert_allclose(ours[1], exact[1], rtol=1e-12)
    np.testing.assert_allclose(ours[2], exact[2], rtol=1e-12)
    for got, want in zip(jax.tree.leaves(ours[3]), jax.tree.leaves(exact[3]), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)


def test_solver_root_is_a_square_root(processes):
    kernel, noise, y, _, make, fast = processes

    @jax.jit
    def roots():
        solver = make(kernel, noise, **fast).solver
        root = solver.dot_triangular(jnp.eye(60))
        solved = solver.solve_triangular(root @ y)
        transposed = solver.solve_triangular(root.T @ y, transpose=True)
        return root, solver.covariance(), solved, transposed

    root, covariance, solved, transposed = jax.device_get(roots())
    np.testing.assert_allclose(root @ root.T, covariance, atol=1e-10)
    np.testing.assert_allclose(solved, y, atol=1e-8)
    np.testing.assert_allclose(transposed, y, atol=1e-8)


def test_solver_samples_have_the_covariance(processes):
    kernel, noise, _, _, make, fast = processes

    @jax.jit
    def sampled():
        gp = make(kernel, noise, **fast)
        return gp.sample(jax.random.key(0), (20_000,)), gp.covariance

    samples, covariance = jax.device_get(sampled())
    scale = np.sqrt(np.diagonal(covariance))
    error = (np.cov(samples.T) - covariance) / (scale[:, None] * scale)
    assert np.abs(error).max() < 6 / 20_000**0.5


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
    got, want = (
        jax.device_get(jax.jit(jax.grad(lambda *args, s=solver: function(*args, s), (0, 1)))(*args))
        for solver in (fast, {})
    )
    np.testing.assert_allclose(got[0] + got[0].T, want[0] + want[0].T, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-8, atol=1e-10)


def test_solver_refuses_what_it_cannot_do(processes):
    kernel, noise, _, _, make, fast = processes
    with pytest.raises(ValueError, match="60 points are no"):
        make(kernel, noise, solver=KroneckerSolver, shape=(3, 4, 4))
    with pytest.raises(ValueError, match="product over task and epoch"):
        make(kernel, np.where(np.arange(60) == 7, 2, 1) * noise, **fast)
    with pytest.raises(ValueError, match="needs a KroneckerKernel"):
        make(kernel.fidelity, noise, **fast)
