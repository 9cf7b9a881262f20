"""The noise of learning curves has a floor."""

import jax.numpy as jnp
import pytest
from numpy.testing import assert_allclose

from amt.gp.noise import SeparableNoise


@pytest.mark.parametrize(("dtype", "least"), [("float64", 1e-9), ("float32", 1e-6)])
def test_variances_count_as_no_less_than_the_floor(dtype, least):
    """Maximum likelihood of scores that are there twice takes them to 1e-35."""
    variance, epochs = jnp.asarray([5e-35, 1e-3], dtype), jnp.asarray([0.5, 1.0], dtype)
    noise = SeparableNoise(variance, jnp.ones((), dtype))
    task, epoch = noise.factors(2, epochs)
    assert_allclose(task, [least, 1e-3], rtol=1e-6)
    assert_allclose(epoch, [2, 1])
