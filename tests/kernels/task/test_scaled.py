"""Output scales of tasks: the Gram matrix, and how a target joins."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from amt.kernels import KERNELS, TargetObservations, make_kernel
from amt.kernels.task.scaled import ScaledTask
from tests.kernels.task.problems import gram_of, join
from tests.problems import small_curves

SCALES = np.asarray([0.5, 2.0, 1.0, 3.0])


def observations(response):
    curves = small_curves()
    prior = np.eye(6) + 0.3
    return TargetObservations(
        score=curves.scores[1, :, -1] + 0.02,
        mask=np.arange(6) < 4,
        source=curves.scores[:, :, -1].T,
        residual=curves.scores[1, :, -1] - 0.6,
        response=response,
        prior=prior,
        noise=np.full(6, 1e-3),
        mean_variance=np.asarray(0.01),
        share=1 / 30,
    )


@pytest.mark.parametrize("name", KERNELS["task"])
def test_scales_are_those_of_the_scores(name):
    kernel = make_kernel("task", name, small_curves(), jax.random.key(0))
    scaled = ScaledTask(kernel, SCALES)
    assert_allclose(gram_of(scaled), np.diag(SCALES) @ gram_of(kernel) @ np.diag(SCALES))

    # The sources' latent scores are SCALES times larger, so that the response to them is smaller:
    # the target is then as it is without scales, and its covariances as the scales say.
    response = np.random.default_rng(0).normal(size=(6, 4))
    plain = np.asarray(join(kernel, observations(response)))
    joined = join(scaled, observations(response / SCALES))
    scales = np.append(SCALES, 1)
    assert_allclose(joined, scales[:, None] * scales * plain, rtol=1e-9, atol=1e-12)
