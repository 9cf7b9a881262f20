"""The projection onto positive semi-definite matrices, and its derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from amt.kernels.task.psd import project_psd

N = 5
project = jax.jit(project_psd)


def gram_of(values, seed=0):
    """A symmetric matrix of the given eigenvalues, its diagonal positive."""
    rng = np.random.default_rng(seed)
    while True:
        basis, _ = np.linalg.qr(rng.normal(size=(N, N)))
        gram = (basis * np.asarray(values, float)) @ basis.T
        if (np.diag(gram) > 0.05).all():
            return (gram + gram.T) / 2


INDEFINITE = [3, 1, 0.5, -0.2, -0.6]
EXCHANGEABLE = np.eye(N) * 1.5 - 0.5  # eigenvalues 1.5, four times, and -1


@given(st.integers(0, 2**31 - 1))
def test_it_is_psd_keeps_the_diagonal_and_is_idempotent(seed):
    gram = gram_of(INDEFINITE, seed)
    projected = np.asarray(project(gram))
    assert np.linalg.eigvalsh(projected).min() > -1e-12
    assert_allclose(np.diag(projected), np.diag(gram), rtol=1e-12)
    assert_allclose(projected, projected.T, atol=1e-14)
    assert_allclose(project(projected), projected, atol=1e-7)


@pytest.mark.parametrize("gram", [gram_of(INDEFINITE), EXCHANGEABLE], ids=["apart", "repeated"])
def test_it_is_eigenvalue_clipping_scaled_back_to_the_diagonal(gram):
    values, vectors = np.linalg.eigh(gram)
    clipped = (vectors * np.maximum(values, 0)) @ vectors.T
    scale = np.sqrt(np.diag(gram) / np.diag(clipped))
    assert_allclose(project(gram), clipped * np.outer(scale, scale), atol=1e-12)
    assert np.abs(project(gram) - gram).max() > 0.1


@pytest.mark.parametrize(
    "values", [[3, 2, 1, 0.5, 0.1], [2, 2, 2, 1, 1], [3, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
)
def test_a_psd_matrix_comes_back_unchanged(values):
    gram = gram_of(values)
    assert_allclose(project(gram), gram, atol=1e-12)


WEIGHTS = np.random.default_rng(1).normal(size=(N, N))
gradient_of = jax.jit(jax.grad(lambda gram: jnp.sum(WEIGHTS * jnp.sin(project_psd(gram)))))


@pytest.mark.parametrize(
    "gram",
    [
        gram_of(INDEFINITE),
        gram_of([2, 2, 1, -0.3, -0.3]),
        gram_of([2, 2, 2, 2, -0.3]),
        gram_of([3, 2, 1, 0.5, 0.1]),
        gram_of([2, 2, 2, 1, 1]),
        EXCHANGEABLE,
        2 * np.eye(N),
    ],
    ids=[
        "indefinite",
        "pairs",
        "four",
        "definite",
        "definite-repeated",
        "exchangeable",
        "identity",
    ],
)
def test_gradient_equals_finite_differences_also_at_repeated_eigenvalues(gram):
    gradient = gradient_of(gram)
    assert_allclose(gradient, gradient.T, atol=1e-10)
    directions = np.random.default_rng(2).normal(size=(6, N, N))
    directions += directions.transpose(0, 2, 1)
    step = 1e-5
    for direction in directions:
        up, down = (np.sum(WEIGHTS * np.sin(project(gram + s * direction))) for s in (step, -step))
        assert_allclose(
            np.sum(gradient * direction), (up - down) / (2 * step), rtol=1e-5, atol=1e-7
        )


def test_gradient_exists_where_eigenvalues_are_0():
    assert np.isfinite(gradient_of(gram_of([3, 1, 0, 0, 0]))).all()
    assert np.isfinite(gradient_of(np.ones((N, N)))).all()


@pytest.mark.parametrize("gram", [gram_of(INDEFINITE), EXCHANGEABLE], ids=["apart", "repeated"])
def test_float32(gram):
    single = jnp.asarray(gram, jnp.float32)
    projected, gradient = project(single), gradient_of(single)
    assert projected.dtype == gradient.dtype == jnp.float32
    assert_allclose(projected, project(gram), atol=1e-5)
    assert np.linalg.eigvalsh(projected.astype(float)).min() > -1e-6
    assert_allclose(gradient, gradient_of(gram), atol=1e-4)


def test_a_batch_is_one_by_one():
    grams = np.stack([gram_of(INDEFINITE), EXCHANGEABLE, gram_of([3, 2, 1, 0.5, 0.1])])
    together, gradients = jax.jit(jax.vmap(lambda g: (project_psd(g), gradient_of(g))))(grams)
    for gram, projected, gradient in zip(grams, together, gradients, strict=True):
        assert_allclose(projected, project(gram), atol=1e-14)
        assert_allclose(gradient, gradient_of(gram), atol=1e-12)
    assert_array_equal(together.shape, grams.shape)
