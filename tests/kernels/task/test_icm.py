"""Free-form coregionalization: its formula, and the regression that a target's loadings are."""

import jax
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from tests.kernels.task.problems import (
    ONE_TASK,
    SEEDS,
    SHAPE,
    assert_psd,
    evaluate,
    gram_of,
    joined_kernel,
    kernel_of,
    random_scores,
    seen_of,
)


@given(shape=st.just(SHAPE), seed=SEEDS)
@example(shape=ONE_TASK, seed=0)
def test_icm_formula(shape, seed):
    scores = random_scores(shape, seed)
    kernel = jax.device_get(kernel_of("icm", scores, seed))
    tasks = np.arange(len(scores))
    expected = [
        [
            sum(a * b for a, b in zip(kernel.loadings[t], kernel.loadings[u], strict=True))
            + (kernel.kappa[t] if t == u else 0)
            for u in tasks
        ]
        for t in tasks
    ]
    np.testing.assert_allclose(evaluate(kernel, tasks), np.array(expected), rtol=1e-10)
    assert_psd(gram_of(kernel))


@given(shape=st.just(SHAPE), seed=SEEDS)
@example(shape=ONE_TASK, seed=0)
def test_icm_infers_loadings_by_linear_regression(shape, seed):
    scores = random_scores(shape, seed)
    kernel, seen = jax.device_get(kernel_of("icm", scores, seed)), seen_of(scores, seed)
    joined = jax.device_get(joined_kernel(kernel, seen))
    # The textbook form of the posterior mean, with explicit inverses.
    mean = kernel.loadings.mean(0)
    prior = np.cov(kernel.loadings.T) if shape[0] > 1 else np.zeros((2, 2))
    design = seen.response @ kernel.loadings
    error = kernel.kappa.mean() * seen.prior + seen.mean_variance + np.diag(seen.noise)
    gain = prior @ design.T @ np.linalg.inv(design @ prior @ design.T + error)
    expected = mean + gain @ (seen.residual - design @ mean)
    np.testing.assert_allclose(joined.loadings[-1], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(np.asarray(gram_of(joined))[:-1, :-1], gram_of(kernel), rtol=1e-12)
