"""Runs into a folder, and experiments/at2.py."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from amt.databases import DATABASES
from amt.evaluation.runs import run
from amt.tuners import TUNERS
from tests.problems import METHODS, SMALL_RUN, small_curves, write_losses
from tests.processes import ROOT, Script

CURVES = small_curves()


@pytest.fixture
def made_up(monkeypatch):
    monkeypatch.setattr("amt.databases.load", lambda name: CURVES)


def test_a_run_with_more_tuners_keeps_what_is_there(made_up, tmp_path):
    few = run(SMALL_RUN, tmp_path)
    assert (few.computed, few.reused, few.anew) == (4, 0, [])
    assert list(few.frame["method"].unique()) == ["best_list", "random_search"]
    assert few.frame["order"].max() == 19
    assert set(few.timings["tuners"]) == {"best_list", "random_search"}
    reports = []
    more = SMALL_RUN | {"tuners": ["source_best", *SMALL_RUN["tuners"]], "workers": 2}
    many = run(more, tmp_path, lambda *progress: reports.append(progress))
    assert (many.computed, many.reused, many.anew) == (2, 4, [])
    assert list(many.frame["method"].unique()) == ["best_list", "source_best", "random_search"]
    assert reports == [(2, 6, "source_best: loop"), (3, 6, "source_best: loop")]
    kept = many.frame[many.frame["method"] != "source_best"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, few.frame)
    with pytest.raises(ValueError, match="has results of other settings"):
        run(SMALL_RUN | {"seeds": 2}, tmp_path)
    with pytest.raises(ValueError, match="no tuner 'x'; there are amt, task_regression, best_list"):
        run(SMALL_RUN | {"tuners": ["x"]}, tmp_path)


def start(folder: Path, *overrides: str) -> Script:
    return Script(ROOT / "experiments/at2.py", overrides, folder)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("database=nope", f"at2.py: no database 'nope'; there are {', '.join(DATABASES)}"),
        ("kernel.config=nope", "at2.py: no config kernel 'nope'; there are deep_poly"),
    ],
)
def test_a_wrong_name_gives_one_clear_line(tmp_path, override, message):
    process = start(tmp_path, override)
    assert process.wait() == 1
    assert process.errors.startswith(message)
    assert "Traceback" not in process.errors
    assert not list(tmp_path.iterdir())


def test_an_experiment_that_is_killed_goes_on_to_the_same_bytes(tmp_path):
    tuners = ["amt", "random_search"]
    settings = "chunk=1", "seeds=2", "budget=5", "inference.steps=5", "kernel.config=matern"
    settings = (*settings, "pair=[0,1,2]", f"tuners=[{','.join(tuners)}]")
    chunks = 3 * 2
    parts = chunks * len(tuners)

    killed = tmp_path / "killed"
    process = start(tmp_path, *settings, "output=killed")
    while not list(killed.glob("parts/*/*.json")) and process.status is None:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    count = len(list(killed.glob("parts/*/*.json")))
    assert 0 < count < parts
    assert not (killed / "results.parquet").exists()

    whole = start(tmp_path, *settings, "output=whole")
    resumed = start(tmp_path, *settings, "output=killed").finish()
    printed = whole.finish()
    results = [tmp_path / name / "results.parquet" for name in ("whole", "killed")]
    assert results[0].read_bytes() == results[1].read_bytes()
    orders = sum(TUNERS[name].orders for name in tuners)
    assert len(pd.read_parquet(results[0])) == chunks * orders * 5
    assert f"{parts - count} of {parts} parts computed" in resumed
    seconds = [json.loads((tmp_path / n / "timings.json").read_text()) for n in ("whole", "killed")]
    assert all(one["seconds"]["loop"] > 0 and one["cells"] == chunks for one in seconds)
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "killed"}
    assert str(tmp_path / "whole" / "figure.pdf") in printed


def test_an_experiment_on_a_file_of_losses(tmp_path):
    settings = [*write_losses(tmp_path / "losses.csv"), "budget=4", "inference.steps=3"]
    printed = start(tmp_path, *settings, "output=out").finish()
    assert f"{len(METHODS)} of {len(METHODS)} parts computed" in printed
    results = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert set(results["target"]) == {f"t{t}" for t in range(CURVES.num_tasks)}
    best = results[results["rank"] == 0].iloc[0]
    losses = np.min(2 - CURVES.scores[int(best["target"][1:])], axis=1)
    assert losses[best["recommended"]] == losses.min()
