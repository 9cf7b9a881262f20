"""Output scales of tasks: the Gram matrix, and how a target joins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from amt.kernels import KERNELS, TargetObservations, make_kernel
from amt.kernels.task.scaled import ScaledTask
from tests.problems import small_curves

SCALES = jnp.asarray([0.5, 2.0, 1.0, 3.0])


def observations(response):
    curves = small_curves()
    prior = jnp.eye(6) + 0.3
    return TargetObservations(
        score=jnp.asarray(curves.scores[1, :, -1] + 0.02),
        mask=jnp.arange(6) < 4,
        source=jnp.asarray(curves.scores[:, :, -1].T),
        residual=jnp.asarray(curves.scores[1, :, -1] - 0.6),
        response=response,
        prior=prior,
        noise=jnp.full(6, 1e-3),
        mean_variance=jnp.asarray(0.01),
        share=1 / 30,
    )


@pytest.mark.parametrize("name", KERNELS["task"])
def test_scales_are_those_of_the_scores(name):
    kernel = make_kernel("task", name, small_curves(), jax.random.key(0))
    scaled = ScaledTask(kernel, SCALES)
    gram = jax.jit(lambda task: task.gram())
    assert_allclose(gram(scaled), jnp.diag(SCALES) @ gram(kernel) @ jnp.diag(SCALES))

    # The sources' latent scores are SCALES times larger, so that the response to them is smaller:
    # the target is then as it is without scales, and its covariances as the scales say.
    response = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))
    with_target = jax.jit(lambda task, response: task.with_target(observations(response)).gram())
    plain = with_target(kernel, response)
    joined = with_target(scaled, response / SCALES)
    scales = jnp.append(SCALES, 1)
    assert_allclose(joined, scales[:, None] * scales * plain, rtol=1e-9, atol=1e-12)
