"""Kronecker products in the eigenbases of their factors."""

import jax
import numpy as np
import pytest

from amt.gp.factors import Grams
from amt.gp.spectral import Eigen, Spectral, kronecker_product, numerical_rank, outer
from tests.gp.problems import SHAPE, random_gram

RNG = np.random.default_rng(0)
MATRICES = [RNG.normal(size=(n + 1, n)) for n in SHAPE]
GRID = RNG.normal(size=SHAPE)


@pytest.mark.parametrize("left_out", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_kronecker_product_is_that_of_the_matrices(left_out):
    """A factor that is None is the identity."""
    factors = [None if i in left_out else m for i, m in enumerate(MATRICES)]
    dense = [np.eye(n) if m is None else m for m, n in zip(factors, SHAPE, strict=True)]
    want = np.kron(dense[0], np.kron(dense[1], dense[2])) @ GRID.ravel()
    got = np.asarray(jax.jit(kronecker_product)(GRID, *factors))
    assert got.shape == tuple(len(m) for m in dense)
    np.testing.assert_allclose(got.ravel(), want, atol=1e-12)


def test_outer_is_the_grid_of_products():
    vectors = [RNG.normal(size=n) for n in SHAPE]
    want = np.kron(vectors[0], np.kron(vectors[1], vectors[2])).reshape(SHAPE)
    np.testing.assert_allclose(jax.jit(outer)(*vectors), want)


def test_eigenvalues_below_zero_are_rounding_errors():
    gram = random_gram(RNG, 6, 2)
    eigen = jax.device_get(jax.jit(Eigen.of)(gram))
    assert (eigen.values >= 0).all()
    assert (np.diff(eigen.values) >= 0).all()
    np.testing.assert_allclose((eigen.vectors * eigen.values) @ eigen.vectors.T, gram, atol=1e-12)
    few = jax.device_get(eigen.largest(2))
    assert few.vectors.shape == (6, 2)
    np.testing.assert_allclose((few.vectors * few.values) @ few.vectors.T, gram, atol=1e-12)
    assert eigen.largest(None) is eigen


def test_a_grid_in_the_eigenbasis_is_that_of_the_dense_covariance():
    grams = Grams(*(random_gram(RNG, n) for n in SHAPE))
    dense = np.kron(grams.task, np.kron(grams.config, grams.fidelity)) + np.eye(GRID.size)
    shape = np.linspace(1, 2, SHAPE[2])
    of_one = np.zeros(SHAPE)
    of_one[0] = shape

    @jax.jit
    def in_eigenbasis(grams, scores):
        spectral = Spectral.of(grams, scores)
        back = spectral.back(spectral.rotated), spectral.back(spectral.rotated / spectral.spectrum)
        without = [spectral.without_axis(axis) for axis in range(3)]
        return spectral, *back, spectral.log_density(), without, spectral.mean_curve(shape)

    spectral, back, solved, density, withouts, curve = jax.device_get(in_eigenbasis(grams, GRID))
    np.testing.assert_allclose(np.sort(spectral.spectrum.ravel()), np.linalg.eigvalsh(dense))
    np.testing.assert_allclose(back, GRID, atol=1e-12)
    np.testing.assert_allclose(solved.ravel(), np.linalg.solve(dense, GRID.ravel()), atol=1e-10)
    logdet = np.linalg.slogdet(dense)[1] + GRID.size * np.log(2 * np.pi)
    want = -0.5 * (GRID.ravel() @ np.linalg.solve(dense, GRID.ravel()) + logdet)
    np.testing.assert_allclose(density, want)
    values = [e.values for e in spectral.eigen]
    for axis, got in enumerate(withouts):
        without = [
            np.ones(n) if i == axis else v
            for i, (v, n) in enumerate(zip(values, SHAPE, strict=True))
        ]
        np.testing.assert_allclose(
            got, np.multiply.outer(np.multiply.outer(*without[:2]), without[2])
        )
    of_one_task = in_eigenbasis(grams, of_one)[0].rotated
    weight = spectral.eigen[0].vectors[0]
    np.testing.assert_allclose(of_one_task, weight[:, None, None] * curve, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_numerical_rank_counts_what_is_above_rounding_errors(rank, dtype):
    gram = random_gram(np.random.default_rng(rank), 7, rank).astype(dtype)
    assert numerical_rank(gram) == rank


def test_numerical_rank_of_a_batch_is_the_largest_and_at_least_one():
    rng = np.random.default_rng(0)
    batch = np.stack([random_gram(rng, 7, rank) for rank in (1, 4, 2)])
    assert numerical_rank(batch) == 4
    assert numerical_rank(np.zeros((3, 3))) == 1
