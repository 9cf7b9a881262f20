import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import rankdata

from amt.evaluation.bad_sources import KINDS, flipped, spoil
from tests.problems import small_curves

CURVES = small_curves()


def changed(kind: str, share: float, seed: int = 3) -> np.ndarray:
    scores = spoil(CURVES, kind=kind, share=share, seed=seed).scores
    return (scores != CURVES.scores).any((1, 2))


def test_flipped_curves_keep_the_mean_of_each_epoch_and_turn_the_order_round():
    curves = CURVES.scores[0].copy()
    curves[2, 3] = np.nan
    bad = flipped(curves, np.random.default_rng(0))
    assert_allclose(np.nanmean(bad, 0), np.nanmean(curves, 0))
    assert np.isnan(bad[2, 3])
    assert np.isnan(bad).sum() == 1
    assert_array_equal(rankdata(bad[:, 0]), rankdata(-curves[:, 0]))
    assert_allclose(flipped(bad, np.random.default_rng(0)), curves)


def test_shuffled_sources_have_the_same_curves_of_other_configurations():
    bad = spoil(CURVES, kind="shuffled", share=1.0, seed=0)
    for before, after in zip(CURVES.scores, bad.scores, strict=True):
        assert {tuple(curve) for curve in after} == {tuple(curve) for curve in before}
    assert (bad.scores != CURVES.scores).any()


def test_constant_sources_prefer_no_configuration():
    scores = CURVES.scores.copy()
    scores[0, 2, 3] = np.nan
    curves = dataclasses.replace(CURVES, scores=scores)
    bad = spoil(curves, kind="constant", share=1.0, seed=0).scores
    assert_allclose(bad[1], np.broadcast_to(CURVES.scores[1].mean(0), bad[1].shape))
    assert_array_equal(np.isnan(bad), np.isnan(scores))
    assert_allclose(bad[0, :, 3][~np.isnan(scores[0, :, 3])], np.nanmean(scores[0, :, 3]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_bad_of_a_share_follow_from_the_seed_and_are_among_those_of_a_larger(kind):
    bad = [changed(kind, share) for share in (0, 0.25, 0.5, 1)]
    assert [int(of_share.sum()) for of_share in bad] == [0, 1, 2, 4]
    assert all((few <= many).all() for few, many in pairwise(bad))
    twice = [spoil(CURVES, kind=kind, share=share, seed=3).scores for share in (0.25, 0.25, 1)]
    assert_array_equal(twice[0], twice[1])
    assert_array_equal(twice[2][bad[1]], twice[0][bad[1]])
    assert len({tuple(changed(kind, 0.25, seed)) for seed in range(9)}) > 1


def test_accuracies_stay_accuracies():
    scores = np.clip(CURVES.scores, 0, 1)
    scores[0, 0] = 0.0
    accuracies = dataclasses.replace(CURVES, scores=scores)
    assert accuracies.within_unit
    assert flipped(scores[0], np.random.default_rng(0)).max() > 1
    bad = spoil(accuracies, kind="flipped", share=1.0, seed=0)
    assert bad.within_unit
    assert bad.scores[0, 0].max() == 1


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="no kind of bad sources 'x'; there are flipped, shuffled"):
        spoil(CURVES, kind="x", share=0.5, seed=0)
    with pytest.raises(ValueError, match=r"share of bad sources must be from 0 to 1, not 1.5"):
        spoil(CURVES, kind="flipped", share=1.5, seed=0)
