"""Coordinates that leave out what the data do not tell."""

from functools import partial

import jax
import numpy as np
import numpyro
import pytest
from numpy.testing import assert_allclose

from amt.inference.coordinates import (
    alike,
    contrasts,
    from_triangular,
    sample_triangular,
    triangular,
)
from amt.parameters import learned
from tests.inference.problems import started


@partial(jax.jit, static_argnames="shift")
def there_and_back(matrix, shift):
    sites = triangular("x", matrix, shift)
    return sites, from_triangular("x", sites, matrix, shift)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("shape", [(5, 2), (5, 1), (2, 3), (3, 3)])
def test_triangular_coordinates_keep_the_gram_matrix(shape, shift):
    matrix = np.random.default_rng(0).normal(size=shape)
    sites, back = jax.device_get(there_and_back(matrix, shift))
    assert back.shape == shape
    assert (sites["x.diagonal"] > 0).all()
    centred = matrix - matrix.mean(0) if shift else matrix
    assert_allclose(back @ back.T, centred @ centred.T, atol=1e-6)


def test_triangular_coordinates_have_the_prior_of_the_matrix():
    model, _ = started(task="icm", config="matern")
    leaf = next(leaf for leaf in learned(model) if leaf.name == "task.loadings")

    def gram(key):
        sites = sample_triangular(leaf, False)
        lower = from_triangular(leaf.name, sites, leaf.value, False)
        return lower @ lower.T

    keys = jax.random.split(jax.random.key(0), 20000)
    ours = jax.jit(jax.vmap(lambda key: numpyro.handlers.seed(gram, key)(key)))(keys)
    matrices = np.random.default_rng(1).normal(size=(20000, *leaf.value.shape))
    theirs = matrices @ matrices.transpose(0, 2, 1)
    for moment in (1, 2):
        got, want = (np.mean(g**moment, 0) for g in (np.asarray(ours), theirs))
        assert_allclose(got, want, atol=0.06 * 5**moment / 2)


def test_contrasts_are_orthonormal_and_sum_to_zero():
    basis = np.asarray(contrasts(5, np.float64))
    assert_allclose(basis.T @ basis, np.eye(4), atol=1e-12)
    assert_allclose(basis.sum(0), 0, atol=1e-12)


def test_columns_are_alike_up_to_a_shift_and_a_sign():
    x = np.random.default_rng(0).uniform(size=(7, 2))
    features = np.c_[x, 1 - x[:, 0], x[:, 1] + 3, x[:, 0] ** 2, np.ones((7, 2))]
    groups = [[0, 2], [1, 3], [0, 2], [1, 3], [4], [5, 6], [5, 6]]
    expected = np.zeros((7, 7), bool)
    for row, group in enumerate(groups):
        expected[row, group] = True
    assert_allclose(jax.jit(alike)(features), expected)
