import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from amt.evaluation.negative_transfer import transfer_figure, transfer_run, transfer_table
from tests.problems import made_up_results, small_curves

CURVES = small_curves()
OVERRIDES = (
    "database=made_up",
    "tuners=[best_list]",
    "without=[random_search]",
    "shares=[0,1]",
    "every=2",
    "budget=3",
    "workers=1",
)


def test_the_table_has_a_row_for_each_kind_tuner_and_share():
    rows = made_up_results(splits=3, budget=25)
    of_tuner, without = (rows[rows["method"] == name] for name in ("amt", "random_search"))
    worse = of_tuner.assign(normalized_regret=of_tuner["normalized_regret"] + 1)
    table = transfer_table({("flipped", 0.0): of_tuner, ("flipped", 0.5): worse}, without)
    assert list(table["method"]) == ["amt", "amt", "random_search"]
    assert_allclose(table["share"], [0, 0.5, np.nan])
    at = of_tuner.loc[of_tuner["query"] == 10, "normalized_regret"]
    assert_allclose(table["regret_10"][:2], 100 * at.mean() + [0, 100])
    assert_allclose(table["regret_10_error"][0], 100 * at.std() / np.sqrt(3))
    assert "regret_50" not in table
    figure = transfer_figure(table, "made up")
    assert len(figure.axes) == 2  # 10 and 25 epochs
    bars = figure.axes[0].containers[0]
    assert_allclose(bars[0].get_ydata().astype(float), table["regret_10"][:2])


def test_the_more_sources_are_flipped_the_worse_is_the_best_of_their_mean(
    monkeypatch, tmp_path, experiment_settings, no_figures
):
    monkeypatch.setattr("amt.databases.load", lambda name: CURVES)
    settings = experiment_settings("negative_transfer", *OVERRIDES)
    settings["output"] = str(tmp_path)
    reports = []
    folder, table = transfer_run(settings, lambda *report: reports.append(report))
    assert folder == tmp_path / "made_up"
    of_list = table[table["method"] == "best_list"].set_index(["kind", "share"])["regret_3"]
    assert of_list["flipped", 0] == of_list["shuffled", 0] < of_list["flipped", 1]
    assert table["share"].isna().sum() == 3
    assert len(reports) == 2 + 3
    parts = {path.parent.name: path for path in folder.glob("*/results.parquet")}
    assert set(parts) == {"good", "flipped_1", "shuffled_1", "constant_1"}
    assert len(pd.read_csv(folder / "negative_transfer.csv")) == len(table)
    reports.clear()
    pd.testing.assert_frame_equal(transfer_run(settings, lambda *r: reports.append(r))[1], table)
    assert not reports
    with pytest.raises(ValueError, match="has results of other settings"):
        transfer_run(settings | {"budget": 4}, lambda *_: None)
