import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from amt.evaluation.statistics import (
    CELL,
    label_of,
    mean_and_standard_error,
    methods_of,
    shown_budgets,
    summarize,
)
from tests.problems import METHODS, made_up_results


def test_mean_and_standard_error():
    mean, error = mean_and_standard_error(np.array([[1, 5], [3, 5]]))
    assert_allclose(mean, [2, 5])
    assert_allclose(error, [1, 0])
    mean, error = mean_and_standard_error(np.array([[1.0, 2.0]]))
    assert_allclose(mean, [1, 2])
    assert np.isnan(error).all()


def test_summary_is_the_mean_over_cells_and_its_standard_error():
    frame = made_up_results(splits=6).sample(frac=1, random_state=0)
    summary = summarize(frame)
    assert list(dict.fromkeys(summary["method"])) == list(METHODS)
    rows = frame[(frame["method"] == "amt") & (frame["query"] == 3)]
    one = summary[(summary["method"] == "amt") & (summary["query"] == 3)].iloc[0]
    assert one["rank"] == pytest.approx(rows["rank"].mean())
    assert one["rank_error"] == pytest.approx(rows["rank"].std() / np.sqrt(6))


def test_orders_are_averaged_within_a_cell_before_the_cells():
    first = made_up_results()
    second = first[first["method"] == "random_search"].assign(order=1)
    second = second.assign(rank=second["rank"] + 10 * second["split"])
    frame = pd.concat([first, second]).sample(frac=1, random_state=0)
    summary = summarize(frame).set_index(["method", "query"])
    of_search = frame[(frame["method"] == "random_search") & (frame["query"] == 2)]
    by_cell = of_search.groupby(CELL)["rank"].mean()
    one = summary.loc[("random_search", 2)]
    assert one["rank"] == pytest.approx(by_cell.mean())
    assert one["rank_error"] == pytest.approx(by_cell.std() / np.sqrt(3))
    others = summary.loc["amt"]
    pd.testing.assert_frame_equal(
        others, summarize(first).set_index(["method", "query"]).loc["amt"]
    )


def test_a_method_that_is_not_registered_is_kept_behind_the_others():
    frame = made_up_results().replace({"method": {"best_list": "not_registered"}})
    assert methods_of(frame) == [*(m for m in METHODS if m != "best_list"), "not_registered"]
    assert summarize(frame)["method"].nunique() == len(METHODS)
    assert label_of("not_registered") == "not registered"
    assert label_of("source_best") == "best on sources"


def test_shown_budgets_are_those_that_there_are():
    assert shown_budgets(range(1, 30)) == [10, 25]
    assert shown_budgets(range(1, 8)) == [7]
    assert shown_budgets(range(1, 30), [3, 40]) == [3]
