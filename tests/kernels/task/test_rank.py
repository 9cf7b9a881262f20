"""Similarity by rankings: Kendall's distance written out, of sources and of a target."""

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from amt.kernels import rank_distances
from tests.kernels.task.problems import (
    MISSING,
    ONE_TASK,
    SEEDS,
    SHAPE,
    assert_psd,
    evaluate,
    gram_of,
    joined_kernel,
    kernel_of,
    observations,
    random_scores,
    seen_of,
)


def discordance(a, b):
    """Share of the pairs of cells that two tasks rank in opposite order, a tie of one a quarter."""
    cells = np.flatnonzero(np.isfinite(a) & np.isfinite(b))
    pairs = [(i, j) for i in cells for j in cells if i < j]
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in pairs]
    return np.mean([(s - t) ** 2 / 4 for s, t in signs]) if pairs else np.nan


@given(shape=st.just(SHAPE), seed=SEEDS, missing=MISSING)
@example(shape=ONE_TASK, seed=0, missing=0.0)
@example(shape=ONE_TASK, seed=1, missing=0.4)
def test_rank_formula(shape, seed, missing):
    scores = random_scores(shape, seed, missing)
    kernel = jax.device_get(kernel_of("rank", scores, seed))
    flat = scores.reshape(shape[0], -1)
    distance = np.array([[discordance(a, b) for b in flat] for a in flat])
    np.fill_diagonal(distance, 0)
    pairs = distance[np.triu_indices(shape[0], 1)]
    pairs = pairs[np.isfinite(pairs)]
    mean = pairs.mean() if len(pairs) else 0.5
    distance = np.where(np.isnan(distance), mean, distance)
    np.testing.assert_allclose(kernel.distance, distance, atol=1e-12)
    np.testing.assert_allclose(kernel.prior_distance, mean, rtol=1e-12)
    gram = np.asarray(evaluate(kernel, np.arange(shape[0])))
    assert_psd(gram)
    if missing == 0:
        # Complete tasks: positive semi-definite without being projected.
        assert kernel.psd is None
        expected = kernel.scale * np.exp(-distance / kernel.bandwidth)
        np.testing.assert_allclose(gram, expected, rtol=1e-10)


def test_rank_distance_of_a_large_grid_is_close_to_that_of_all_cells():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 60, 40)) + 2 * rng.normal(size=(60, 40))
    distance = rank_distances(scores)
    tau = kendalltau(scores[0].ravel(), scores[1].ravel()).statistic
    np.testing.assert_allclose(distance[0, 1], (1 - tau) / 2, atol=0.02)


@given(shape=st.just(SHAPE), seed=SEEDS, missing=MISSING)
@example(shape=ONE_TASK, seed=0, missing=0.0)
@example(shape=ONE_TASK, seed=1, missing=0.4)
def test_rank_mixes_what_the_target_shows_with_what_sources_are_like(shape, seed, missing):
    scores = random_scores(shape, seed, missing)
    kernel, seen = kernel_of("rank", scores, seed), seen_of(scores, seed)
    joined = jax.device_get(joined_kernel(kernel, seen))
    for task in range(shape[0]):
        n = int(np.isfinite(seen.source[:, task]).sum())
        d = discordance(seen.score, seen.source[:, task])
        own = n / 2 if n > 1 else 0
        weight, mean = float(kernel.prior_weight), float(kernel.prior_distance)
        expected = (own * np.nan_to_num(d) + weight * mean) / (own + weight)
        np.testing.assert_allclose(joined.distance[-1, task], expected, rtol=1e-10)
    assert_psd(gram_of(joined))


@pytest.mark.parametrize("monotone", [np.exp, np.cbrt, lambda y: 3 * y - 7])
def test_rank_sees_only_ranks(monotone):
    scores = random_scores(SHAPE, 0)
    other = scores.copy()
    other[1] = monotone(scores[1])
    np.testing.assert_allclose(rank_distances(other), rank_distances(scores), atol=1e-12)


def test_rank_takes_many_observations_at_their_word():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 20, 10))
    kernel = kernel_of("rank", scores)
    cell = rng.permutation(200)[:150]
    source = scores.reshape(5, -1)[:, cell].T
    nearest = []
    for count in (0, 1, 2, 150):
        seen = observations(np.exp(source[:, 3]), source, np.arange(150) < count)
        distance = np.asarray(joined_kernel(kernel, seen).distance)[-1, :-1]
        nearest.append(float(distance[3] - np.delete(distance, 3).min()))
    # Nothing is known without a pair; the source that ranks alike comes out as more is seen.
    assert nearest[:2] == [0, 0]
    assert nearest[2] <= 0
    assert nearest[3] < min(nearest[2], -0.01)
