import dataclasses

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from amt.evaluation.roi import epochs_within, roi_figure, roi_run, roi_table
from tests.problems import small_curves

CURVES = dataclasses.replace(
    small_curves(), cost=np.ones((4, 6, 5)) * np.array([1.0, 10.0, 100.0, 1000.0])[:, None, None]
)


def rows(method: str, *regrets: list[float]) -> pd.DataFrame:
    """One target for each list of regrets, which trains configuration 0 all along."""
    frames = [
        pd.DataFrame(
            {
                "method": method,
                "target": f"task {target}",
                "split": target,
                "repeat": 0,
                "seed": 0,
                "order": 0,
                "query": np.arange(1, 6),
                "config": 0,
                "epoch": np.arange(1, 6),
                "score": 0.5,
                "normalized_regret": regret,
            }
        )
        for target, regret in enumerate(regrets)
    ]
    return pd.concat(frames, ignore_index=True)


NONE = rows("random_search", [0.5, 0.4, 0.3, 0.03, 0.0], [0.5, 0.5, 0.5, 0.5, 0.5])
FEW = rows("task_regression", [0.0, 0.04, 0.04, 0.0, 0.0], [0.5, 0.04, 0.04, 0.04, 0.5])
MANY = rows("task_regression", [0.0] * 5, [0.04] * 5)


def test_a_project_is_near_the_best_once_it_stays_there():
    found = epochs_within(FEW.sample(frac=1, random_state=0), CURVES, 0.01)
    assert list(found["epochs"]) == [4, 5]  # the other never: the budget
    assert list(found["reached"]) == [1, 0]
    assert list(found["cost"]) == [4, 50]
    assert list(epochs_within(FEW, CURVES, 0.05)["epochs"]) == [1, 5]
    lost = FEW.assign(normalized_regret=FEW["normalized_regret"].replace(0.5, np.nan))
    assert list(epochs_within(lost, CURVES, 0.05)["reached"]) == [1, 0]
    again = FEW[FEW["split"] == 0].assign(split=4, normalized_regret=0.0)
    drawn = epochs_within(pd.concat([FEW, again]), CURVES, 0.01)
    assert list(drawn["epochs"]) == [2.5, 5]
    free = dataclasses.replace(CURVES, cost=None)
    assert epochs_within(FEW, free, 0.01)["cost"].isna().all()


def test_sources_pay_for_themselves_by_what_they_save_in_each_project():
    table = roi_table({1: FEW, 3: MANY}, NONE, CURVES).set_index(["within", "sources"])
    assert list(table["epochs"]) == [5, 4.5, 3, 4.5, 3, 1]
    assert list(table["reached"]) == [0.5, 0.5, 0.5, 0.5, 0.5, 1]
    many = table.loc[(0.05, 3)]
    assert many["collected"] == 3 * 6 * 5
    assert many["saved_random_search"] == 4.5 - 1
    assert_allclose(many["projects_random_search"], 90 / 3.5)
    assert many["collected_cost"] == 3 * 30 * 1111 / 4
    spent = (4 + 50) / 2 - (1 + 10) / 2
    assert_allclose(many["projects_by_cost_random_search"], many["collected_cost"] / spent)
    useless = roi_table({1: NONE.assign(method="task_regression")}, NONE, CURVES)
    assert useless.loc[useless["sources"] == 1, "projects_random_search"].eq(np.inf).all()
    assert "cost" not in roi_table({1: FEW}, NONE, dataclasses.replace(CURVES, cost=None))


def test_the_figure_has_projects_above_and_all_that_is_spent_below():
    figure = roi_figure(roi_table({1: FEW, 3: MANY}, NONE, CURVES), "made up")
    above, _, below, _ = figure.axes
    assert_allclose(above.containers[0][0].get_ydata().astype(float), [4.5, 3])
    labels = [line.get_label() for line in below.lines]
    assert labels == ["random search", "1 source", "3 sources"]
    projects, total = below.lines[2].get_data()
    assert_allclose(total, 90 + 3 * projects)


def test_a_run_has_the_same_targets_for_all_numbers_of_sources(
    monkeypatch, tmp_path, experiment_settings, no_figures
):
    monkeypatch.setattr("amt.databases.load", lambda name: CURVES)
    overrides = "database=made_up", "tuners=[best_list]", "without=[random_search]", "every=2"
    settings = experiment_settings("roi", *overrides, "budget=3", "workers=1")
    settings["output"] = str(tmp_path)
    folder, table = roi_run(settings | {"sources": [1, 3, 8, "all"]}, lambda *_: None)
    assert sorted(set(table["sources"])) == [0, 1, 3]
    names = "without", "sources_1", "sources_all"
    frames = [pd.read_parquet(folder / name / "results.parquet") for name in names]
    assert [sorted(set(frame["target"])) for frame in frames] == [["task 0", "task 2"]] * 3
    assert [frame["split"].nunique() for frame in frames] == [2, 4, 2]
    assert len(pd.read_csv(folder / "roi.csv")) == len(table)
    with pytest.raises(ValueError, match="number of sources must be a whole number from 1, not 0"):
        roi_run(settings | {"sources": [0]}, lambda *_: None)
