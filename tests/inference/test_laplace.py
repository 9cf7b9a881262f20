"""The mode of a density, and the normal distribution there."""

import jax
import numpy as np
from numpy.testing import assert_allclose

from amt.inference.laplace import find_mode


def test_mode_of_a_normal_density():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4)) + 3 * np.eye(4)
    mean, precision = np.arange(4.0), root @ root.T
    potential = lambda x: (x - mean) @ precision @ (x - mean) / 2  # noqa: E731
    mode = jax.jit(lambda x: find_mode(potential, x, steps=20))(np.zeros(4))
    mode = jax.device_get(mode)
    assert_allclose(mode.location, mean, atol=1e-6)
    assert_allclose(mode.root @ mode.root.T, np.linalg.inv(precision), rtol=1e-5, atol=1e-8)
    assert_allclose(mode.gradient, 0, atol=1e-5)
