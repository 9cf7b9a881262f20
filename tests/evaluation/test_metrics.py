import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from amt.evaluation.metrics import (
    configuration_values,
    normalized_regret,
    rank,
    regret,
)

NAN = np.nan
CURVES = np.array(
    [
        [0.1, 0.9, 0.2],  # best in the middle
        [0.5, NAN, NAN],  # stopped early
        [0.3, 0.4, 0.5],  # as good as the one before
        [NAN, NAN, NAN],  # never trained
        [0.1, 0.1, 0.1],
    ]
)
ALL = np.arange(5)


def test_value_is_the_best_epoch_and_missing_scores_do_not_count():
    assert_array_equal(configuration_values(CURVES), [0.9, 0.5, 0.5, NAN, 0.1])


def test_rank_counts_the_strictly_better():
    assert_array_equal(rank(CURVES, ALL), [0, 1, 1, 4, 3])


def test_regret_and_its_share_of_the_range():
    assert_allclose(regret(CURVES, ALL), [0, 0.4, 0.4, NAN, 0.8])
    assert_allclose(normalized_regret(CURVES, ALL), [0, 0.5, 0.5, NAN, 1])


def test_a_batch_of_recommendations_keeps_its_shape():
    recommended = np.array([[0, 1], [2, 4]])
    assert_array_equal(rank(CURVES, recommended), [[0, 1], [1, 3]])


def test_normalized_regret_is_unchanged_by_scale_and_shift():
    scores = np.random.default_rng(0).normal(size=(20, 4))
    every = np.arange(20)
    assert_allclose(
        normalized_regret(3 * scores - 7, every), normalized_regret(scores, every), atol=1e-12
    )
    assert_array_equal(rank(3 * scores - 7, every), rank(scores, every))


def test_equally_good_configurations_have_no_regret():
    assert_array_equal(normalized_regret(np.ones((3, 2)), np.arange(3)), [0, 0, 0])


def test_no_score_at_all_is_an_error():
    with pytest.raises(ValueError, match="no configuration has a score"):
        rank(np.full((2, 3), NAN), np.array([0]))
