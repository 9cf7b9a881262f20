"""Free-form coregionalization: its formula, and the regression that a target's loadings are."""

import jax.numpy as jnp
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from tests.kernels.task.problems import (
    ONE_TASK,
    SEEDS,
    SHAPE,
    assert_psd,
    joined_kernel,
    kernel_of,
    random_scores,
    seen_of,
)


@given(shape=st.just(SHAPE), seed=SEEDS)
@example(shape=ONE_TASK, seed=0)
def test_icm_formula(shape, seed):
    scores = random_scores(shape, seed)
    kernel = kernel_of("icm", scores, seed)
    tasks = jnp.arange(len(scores))
    expected = [
        [
            sum(a * b for a, b in zip(kernel.loadings[t], kernel.loadings[u], strict=True))
            + (kernel.kappa[t] if t == u else 0)
            for u in tasks
        ]
        for t in tasks
    ]
    np.testing.assert_allclose(kernel(tasks, tasks), np.array(expected), rtol=1e-10)
    assert_psd(kernel.gram())


@given(shape=st.just(SHAPE), seed=SEEDS)
@example(shape=ONE_TASK, seed=0)
def test_icm_infers_loadings_by_linear_regression(shape, seed):
    scores = random_scores(shape, seed)
    kernel, seen = kernel_of("icm", scores, seed), seen_of(scores, seed)
    joined = joined_kernel(kernel, seen)
    # The textbook form of the posterior mean, with explicit inverses.
    mean = np.asarray(kernel.loadings.mean(0))
    prior = np.cov(kernel.loadings.T) if shape[0] > 1 else np.zeros((2, 2))
    design = np.asarray(seen.response @ kernel.loadings)
    error = kernel.kappa.mean() * seen.prior + seen.mean_variance + np.diag(seen.noise)
    gain = prior @ design.T @ np.linalg.inv(design @ prior @ design.T + error)
    expected = mean + gain @ (seen.residual - design @ mean)
    np.testing.assert_allclose(joined.loadings[-1], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(joined.gram()[:-1, :-1], kernel.gram(), rtol=1e-12)
