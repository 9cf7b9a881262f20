import dataclasses

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm, rankdata, spearmanr

from amt.evaluation.fidelity_quality import (
    fidelity_figure,
    fidelity_quality,
    fidelity_run,
    top_recall,
)
from amt.evaluation.metrics import configuration_values
from tests.problems import small_curves

CURVES = small_curves(8, num_configs=12, num_epochs=4)


def with_scores(scores: np.ndarray):
    return dataclasses.replace(CURVES, scores=scores)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return fidelity_quality(CURVES, top=3)


def test_rank_correlations_are_scipys(table):
    values = [configuration_values(of_task) for of_task in CURVES.scores]
    for epoch in range(4):
        each = [
            spearmanr(a[:, epoch], b).statistic for a, b in zip(CURVES.scores, values, strict=True)
        ]
        assert_allclose(table["rank_correlation"][epoch], np.mean(each))
        assert table["rank_correlation_lower"][epoch] <= np.mean(each)
        assert table["rank_correlation_upper"][epoch] >= np.mean(each)
    scores = CURVES.scores.copy()
    scores[:, 3, 0] = np.nan
    some = np.arange(12) != 3
    each = [spearmanr(a[some, 0], b[some]).statistic for a, b in zip(scores, values, strict=True)]
    found = fidelity_quality(with_scores(scores), top=3)
    assert_allclose(found["rank_correlation"][0], np.mean(each))


def test_information_is_the_variance_that_one_slope_for_all_tasks_explains(table):
    def normal_scores(values):
        return norm.ppf(rankdata(values, axis=1) / 13)

    values = normal_scores(np.stack([configuration_values(of_task) for of_task in CURVES.scores]))
    scores = normal_scores(CURVES.scores[:, :, 0])
    slope = (scores * values).sum() / np.square(scores).sum()
    left = np.square(values - slope * scores).sum() / np.square(values).sum()
    assert_allclose(table["information"][0], 1 - left)
    assert table["information"].between(0, 1).all()
    assert_allclose(table["information_per_cost"], table["information"] / table["cost"])
    other = fidelity_quality(with_scores(np.exp(3 * CURVES.scores)), top=3)
    pd.testing.assert_frame_equal(other, table)


def test_an_epoch_that_says_all_one_that_says_nothing_and_one_that_misleads():
    level = CURVES.scores[:, :, -1]
    scores = np.stack([-level, np.zeros_like(level), level, level], 2)
    table = fidelity_quality(with_scores(scores + np.arange(4) * 9), top=3)
    assert_allclose(table["rank_correlation"], [-1, 0, 1, 1])
    assert_array_equal(table["information"], [0, 0, 1, 1])
    assert_allclose(table["top_recall"], [0, 3 / 12, 1, 1])
    assert_array_equal(table["wrong_nearest"][[0, 2, 3]], 0)
    assert_array_equal(table["recommended"], [False, False, True, False])
    assert table["wrong_nearest"][1] > 0
    assert table["lost_similarity"][1] > 0
    hopeless = fidelity_quality(with_scores(scores[:, :, [0, 0, 1, 2]]), top=3, good_enough=0.999)
    assert_array_equal(hopeless["recommended"], [False, False, False, True])


def test_ties_are_broken_in_expectation():
    scores = np.array([[1.0, 1.0, 0.0, np.nan], [3.0, 2.0, 1.0, 0.0]])
    values = np.array([[4.0, 3.0, 2.0, 1.0]] * 2)
    assert_allclose(top_recall(scores, values, 1), [0.5, 1.0])
    assert_allclose(top_recall(scores, values, 4), [0.75, 1.0])


def test_cost_is_what_training_so_far_takes_of_all():
    assert_allclose(fidelity_quality(CURVES)["cost"], [0.25, 0.5, 0.75, 1])
    cost = np.ones_like(CURVES.scores) * [3.0, 1.0, 1.0, 1.0]
    known = dataclasses.replace(CURVES, cost=cost)
    assert_allclose(fidelity_quality(known)["cost"], [3 / 6, 4 / 6, 5 / 6, 1])


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="need at least 3 tasks, not 2"):
        fidelity_quality(CURVES.select(tasks=CURVES.tasks[:2]))
    with pytest.raises(ValueError, match="top must be at most 12, not 13"):
        fidelity_quality(CURVES, top=13)
    with pytest.raises(ValueError, match="good_enough must be between 0 and 1, not 1"):
        fidelity_quality(CURVES, good_enough=1)


def test_a_run_writes_its_table(monkeypatch, tmp_path, table, experiment_settings, no_figures):
    monkeypatch.setattr("amt.databases.load", lambda name: CURVES)
    settings = experiment_settings("fidelity_quality", "database=made_up", "top=3")
    folder, found = fidelity_run(settings | {"output": str(tmp_path)})
    pd.testing.assert_frame_equal(found, table)
    assert len(pd.read_csv(folder / "fidelity_quality.csv")) == 4
    figure = fidelity_figure(found, "made up")
    assert_allclose(figure.axes[0].lines[0].get_ydata(), table["rank_correlation"])
