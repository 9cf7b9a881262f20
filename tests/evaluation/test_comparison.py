import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from rich.console import Console
from scipy.stats import friedmanchisquare, wilcoxon

from amt.evaluation.comparison import (
    by_target,
    comparison_run,
    comparison_table,
    console_of_comparison,
    differences,
    markdown_of_comparison,
    write_comparison,
)
from amt.files import write_json
from tests.problems import METHODS, made_up_results

TWO = pd.concat(
    [
        made_up_results(splits, budget=25).assign(database=name)
        for splits, name in ((5, "bundled"), (6, "lcbench"))
    ],
    ignore_index=True,
)
SECONDS = dict.fromkeys(METHODS, 0.25)
MEMORY = dict.fromkeys(METHODS, 3.0 * 2**20)


def test_a_target_counts_once_whatever_its_seeds():
    again = TWO[TWO["target"] == "task 0"].assign(seed=1, normalized_regret=0.0)
    table = by_target(pd.concat([TWO, again]))
    assert table.shape == (11, len(METHODS))
    assert tuple(table.columns) == METHODS
    at = TWO[(TWO["target"] == "task 0") & (TWO["method"] == "amt")]
    at = at[at["database"] == "bundled"]
    assert_allclose(table.loc[("bundled", "task 0"), "amt"], at["normalized_regret"].mean() / 2)
    last = by_target(TWO, 25).loc[("bundled", "task 0"), "amt"]
    assert last == at.loc[at["query"] == 25, "normalized_regret"].item()
    with pytest.raises(ValueError, match="amt has no regret on lcbench/task 5"):
        by_target(TWO[(TWO["target"] != "task 5") | (TWO["method"] != "amt")])


def test_tests_are_scipys_with_the_correction_of_holm():
    pytest.importorskip("scikit_posthocs")
    table = by_target(TWO)
    table["best_list"] = table["amt"] - 0.1 * np.arange(1, 12)
    table["source_best"] = table["amt"]
    found = differences(table)
    assert found.places.index[0] == "best_list"
    assert found.places["amt"] == found.places["source_best"]
    assert_allclose(found.p_value, friedmanchisquare(*table.to_numpy().T).pvalue)
    assert found.pairs.loc["amt", "source_best"] == 1
    alone = wilcoxon(table["amt"], table["best_list"], method="asymptotic").pvalue
    assert_allclose(found.pairs.loc["amt", "best_list"], 15 * alone)  # the smallest of 15
    assert (found.pairs.to_numpy() == found.pairs.to_numpy().T).all()


def test_the_table_has_a_row_for_each_tuner_and_for_what_is_missing():
    skipped = {"optuna_gp": "needs torch: install amt[zoo]"}
    table = comparison_table(TWO, SECONDS, MEMORY, reference="amt", skipped=skipped)
    assert list(table["method"][:-1]) == list(by_target(TWO).mean().sort_values().index)
    row = table.set_index("method").loc["amt"]
    assert_allclose(row["area"], 100 * by_target(TWO)["amt"].mean())
    assert_allclose(row["regret_10"], 100 * by_target(TWO, 10)["amt"].mean())
    assert (row["win"], row["tie"], row["loss"]) == (0, 11, 0)
    assert (table["win"][:-1] + table["tie"][:-1] + table["loss"][:-1] == 11).all()
    other = table.set_index("method").loc["random_search"]
    ahead = by_target(TWO)["random_search"] - by_target(TWO)["amt"]
    assert other["win"] == (ahead > 1e-3).sum()
    text = markdown_of_comparison(table)
    assert text.count("\n") == 2 + len(table)
    assert all(line.endswith("| 0.25 | 3.0 |") for line in text.splitlines()[2:-1])
    assert "| GP of Optuna (not run: needs torch: install amt[zoo]) |" in text
    console = Console(width=120, record=True)
    console.print(console_of_comparison(table, "both"))
    assert "amt[zoo]" in console.export_text()


def test_a_report_is_of_all_its_folders(tmp_path):
    pytest.importorskip("scikit_posthocs")
    for name, rows in TWO.groupby("database"):
        folder = tmp_path / f"{name}-all"
        folder.mkdir()
        rows.to_parquet(folder / "results.parquet")
        cells = rows["target"].nunique()
        of_tuner = {"seconds": {"compile": 9.0, "loop": 5.0 if name == "bundled" else 17.0}}
        of_tuner["memory"] = 1e6 * cells
        write_json(
            folder / "timings.json",
            {"cells": cells, "skipped": {}, "tuners": dict.fromkeys(METHODS, of_tuner)},
        )
    folders = sorted(tmp_path.glob("*-all"))
    table = write_comparison(folders, tmp_path, "amt").set_index("method")
    assert table.loc["amt", "seconds"] == 2  # 22 seconds of 11 runs, compilation left out
    assert (table["memory"] == 6e6).all()  # the most
    assert table.loc["random_search", "seconds"] == 0.1  # 20 orders each
    files = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert files == {
        "comparison.csv",
        "comparison.md",
        "differences.pdf",
        "differences.png",
        "pairs.csv",
    }
    assert len(pd.read_csv(tmp_path / "comparison.csv")) == len(METHODS)


def test_a_job_takes_every_third_target_and_repeats_seeds_or_draws(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        "amt.evaluation.comparison.run", lambda values, folder, progress: asked.update(values)
    )
    monkeypatch.setattr("amt.evaluation.comparison.write_utility", lambda *_: None)
    monkeypatch.setattr("amt.evaluation.comparison.write_comparison", lambda *_: None)
    settings = {
        "database": "bundled",
        "database_options": {},
        "num_sources": 4,
        "every": 3,
        "repetitions": 2,
        "reference": "amt",
        "log_x": False,
        "output": str(tmp_path),
        "tuners": None,
        "left_out": ["amt"],
    }
    folder, _ = comparison_run(settings, lambda *_: None)
    assert folder == tmp_path / "bundled-4"
    assert (asked["seeds"], asked["draws"], asked["pair"]) == (1, 2, list(range(0, 58, 3)))
    assert {*METHODS} - {*asked["tuners"]} == {"amt"}
    assert "tpe" not in asked["tuners"]
    folder, _ = comparison_run(settings | {"num_sources": None, "tuners": ["all"]}, lambda *_: None)
    assert folder == tmp_path / "bundled-all"
    assert (asked["seeds"], asked["draws"], asked["pair"]) == (2, 1, list(range(0, 29, 3)))
    assert "tpe" in asked["tuners"]
    assert "amt" not in asked["tuners"]
