from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from amt.evaluation.figures import inference_figure, kernel_figure
from amt.evaluation.reports import write_report
from amt.evaluation.statistics import METRICS
from amt.evaluation.sweeps import budgets_of, collect, highlights
from amt.evaluation.tables import latex_of_runs, markdown_of_runs
from amt.files import write_json
from amt.kernels import AT2
from tests.problems import made_up_results, write_losses
from tests.processes import ROOT, Script

KERNELS = [("at2", "deep_poly", "at2"), ("icm", "matern", "at2"), ("icm", "matern", "fabolas")]


def save(folder: Path, database: str, kernels: tuple[str, ...], inference: str, shift: float = 0):
    name = folder / database / "-".join([*kernels, inference])
    name.mkdir(parents=True)
    frame = made_up_results(budget=25)
    frame["rank"] += shift
    frame.to_parquet(name / "results.parquet")
    chosen = dict(zip(("task", "config", "fidelity"), kernels, strict=True))
    values = {"database": database, "kernel": chosen, "inference": {"name": inference}}
    write_json(name / "settings.json", {"settings": values})
    seconds = {"fit": 6.0, "condition": 1.0, "loop": 2.0, "compile": 9.0}
    timings = {"not_converged": 1, "r_hat": None, "divergences": None}
    timings = {"cells": 3, "tuners": {"amt": {"seconds": seconds, **timings}}}
    write_json(name / "timings.json", timings)
    return frame[frame["method"] == "amt"]


@pytest.fixture
def kernels(tmp_path) -> Path:
    for database in ("hyperrec", "lcbench"):
        for number, names in enumerate(KERNELS):
            save(tmp_path, database, names, "mle", -number)
    return tmp_path


def test_a_row_of_the_table_is_a_run_and_the_best_is_first(kernels):
    frame = save(kernels, "lcbench", ("rank", "tree", "at2"), "mle", -10)
    table = collect(kernels)
    assert budgets_of(collect(kernels, budgets=[3, 20, 60])) == [3, 20]
    assert list(table["database"]) == ["hyperrec"] * 3 + ["lcbench"] * 4
    assert list(table["task"]) == ["icm", "icm", "at2", "rank", "icm", "icm", "at2"]
    row = table.loc[3]
    assert budgets_of(table) == [10, 25]
    for metric in METRICS[:1] + METRICS[2:]:
        means = [frame[frame["query"] == q][metric].mean() for q in (10, 25)]
        errors = [frame[frame["query"] == q][metric].std() / np.sqrt(3) for q in (10, 25)]
        np.testing.assert_allclose([row[f"{metric}_{b}"] for b in (10, 25)], means)
        np.testing.assert_allclose([row[f"{metric}_{b}_error"] for b in (10, 25)], errors)
        np.testing.assert_allclose(row[f"mean_{metric}"], np.mean(means))
    seconds = row[["fit_seconds", "loop_seconds", "compile_seconds", "not_converged"]]
    assert list(seconds) == [2.0, 1.0, 9.0, 1]


def test_report_of_kernels(kernels, capsys):
    write_report(kernels, kernel_figure, Console())
    table = collect(kernels)
    written = pd.read_csv(kernels / "table.csv")
    pd.testing.assert_frame_equal(written.dropna(axis=1), table.dropna(axis=1))
    tex = (kernels / "table.tex").read_text()
    rows = [line for line in tex.splitlines() if line.startswith(("hyperrec", "lcbench"))]
    assert len(rows) == 6
    assert {row.count(" & ") for row in rows} == {4 + 1 + 2 + 3 + 1}
    assert r"deep\_poly" in tex
    markdown = (kernels / "table.md").read_text().splitlines()
    assert len(markdown) == 2 + 6
    assert {row.count(" | ") for row in markdown[2:]} == {4 + 1 + 2 + 3 + 1}
    assert (kernels / "figure.pdf").read_bytes().startswith(b"%PDF")
    printed = capsys.readouterr().out
    assert f"3. {'-'.join(AT2)}-mle (published): {table['mean_rank'][2]:.1f}" in printed


def test_of_many_runs_the_best_the_published_and_the_worst_are_shown(tmp_path):
    names = [("icm", "matern", f) for f in ("a", "b", "c", "d", "e", "f", "g")]
    for number, kernels in enumerate([*names, AT2, ("icm", "tree", "h")]):
        save(tmp_path, "hyperrec", kernels, "mle", number)
    shown = highlights(collect(tmp_path))
    assert list(shown["place"]) == [1, 2, 3, 4, 5, 8, 9]
    assert list(shown["published"]) == [False] * 5 + [True, False]


def test_kernels_are_where_the_labels_say_and_the_published_ones_are_framed(kernels):
    table = collect(kernels)
    figure = kernel_figure(table, [10, 25])
    panels = [axis for axis in figure.axes if axis.images]
    assert [p.get_title() for p in panels[:2]] == ["hyperrec, 10 epochs", "hyperrec, 25 epochs"]
    assert len(panels) == 4
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    columns = [label.get_text() for label in panels[0].get_xticklabels()]
    values = np.ma.filled(panels[0].images[0].get_array(), np.nan)
    for _, row in table[table["database"] == "hyperrec"].iterrows():
        place = labels.index(f"{row['task']}-{row['config']}"), columns.index(row["fidelity"])
        assert values[place] == pytest.approx(row["rank_10"])
    assert np.isfinite(values).sum() == 3
    frame = panels[0].patches[0]
    assert frame.get_xy() == (columns.index("at2") - 0.5, labels.index("at2-deep_poly") - 0.5)


def test_every_way_of_inference_is_a_line(tmp_path):
    for inference in ("mle", "nuts"):
        save(tmp_path, "hyperrec", AT2, inference)
    save(tmp_path, "lcbench", AT2, "mle")
    table = collect(tmp_path)
    figure = inference_figure(table, [10, 25])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mle", "nuts"]
    assert [len(axis.containers) for axis in figure.axes] == [2] * 4 + [1] * 4
    line = figure.axes[0].containers[0].lines[0]
    row = table[(table["database"] == "hyperrec") & (table["inference"] == "mle")].iloc[0]
    assert list(line.get_ydata()) == [row["rank_10"], row["rank_25"]]
    assert "database & inference & place" in latex_of_runs(highlights(table))
    assert markdown_of_runs(highlights(table)).startswith(
        "| database | inference | place | rank 10"
    )
    title = "3 cells of hyperrec, 3 cells of lcbench; bars: standard error of the mean over them"
    assert figure.get_suptitle() == title


def test_a_folder_without_runs_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run"):
        collect(tmp_path)


def test_a_sweep_is_taken_up_where_it_was_left_and_reports(tmp_path):
    settings = [*write_losses(tmp_path / "losses.csv"), "budget=10", "inference.steps=3"]
    settings += ["kernel.task=icm", "kernel.fidelity=fabolas", "hydra.launcher.n_jobs=1"]
    settings += ["tuners=[amt,random_search]", "output=out"]

    def sweep(*overrides: str) -> Script:
        script = ROOT / "experiments/kernel_ablation.py"
        return Script(script, [*settings, *overrides], tmp_path)

    sweep("kernel.config=matern").finish()
    part = tmp_path / "out/losses/icm-matern-fabolas-mle/parts/amt/0000.parquet"
    written = part.stat().st_mtime_ns
    sweep("kernel.config=matern,tree").finish()
    assert part.stat().st_mtime_ns == written
    table = pd.read_csv(tmp_path / "out/table.csv")
    assert set(table["config"]) == {"matern", "tree"}
    assert set(table["cells"]) == {4}
    assert {"figure.pdf", "figure.png", "table.tex", "table.md"} <= {
        p.name for p in tmp_path.glob("out/*")
    }
    assert {path.name for path in tmp_path.iterdir()} == {"losses.csv", "out"}
    refused = sweep("kernel.config=matern", "seeds=2")
    assert refused.wait() != 0
    assert "has results of other settings: give another output folder" in refused.errors
