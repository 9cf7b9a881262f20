import importlib.util
import os
import re
from pathlib import Path

import pandas as pd
import pytest

from amt.evaluation.tables import latex_table
from tests.problems import made_up_results

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def build_paper():
    spec = importlib.util.spec_from_file_location(
        "build_paper", ROOT / "scripts" / "build_paper.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save(results: pd.DataFrame, path: Path, age: float = 0) -> None:
    path.parent.mkdir(parents=True)
    results.to_parquet(path)
    os.utime(path, (1e9 - age, 1e9 - age))


@pytest.fixture
def folders(tmp_path) -> list[str]:
    return ["--results", str(tmp_path / "results"), "--paper", str(tmp_path / "paper")]


@pytest.fixture(autouse=True)
def no_latexmk(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)


def test_figures_and_table_come_from_the_latest_results(build_paper, tmp_path, folders, capsys):
    latest = made_up_results(splits=3)
    save(latest, tmp_path / "results/bundled/new/results.parquet")
    save(made_up_results(splits=2), tmp_path / "results/bundled/old/results.parquet", age=60)
    save(made_up_results(splits=1), tmp_path / "results/lcbench/one/results.parquet")
    made = tmp_path / "kernel_ablation"
    made.mkdir()
    (made / "figure.pdf").write_bytes(b"a figure")
    (made / "table.tex").write_text("a table")
    (made / "table.md").write_text("a table in Markdown")
    build_paper.main(folders)
    assert (tmp_path / "paper/figures/kernel_ablation.pdf").read_bytes() == b"a figure"
    assert (tmp_path / "paper/tables/kernel_ablation.tex").read_text() == "a table"
    assert (tmp_path / "paper/figures/at2-bundled.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "paper/figures/at2-lcbench.pdf").exists()
    table = (tmp_path / "paper/tables/at2.tex").read_text()
    assert "bundled, 3 cells" in table
    assert "lcbench, 1 cell}" in table
    mean = latest[(latest["method"] == "amt") & (latest["query"] == 10)]["rank"].mean()
    assert re.search(rf"amt & (\\textbf{{)?{mean:.1f}", table)
    printed = capsys.readouterr().out
    assert "No results for hyperrec: `.venv/bin/python experiments/at2.py database=hy" in printed
    assert "No inference_ablation: `.venv/bin/python experiments/inference_ablation" in printed
    assert "latexmk is not installed" in printed


def test_tables_of_results_that_are_not_at_hand_stay_in_results_md(
    build_paper, tmp_path, folders, capsys
):
    paper = tmp_path / "paper"
    paper.mkdir()
    (paper / "benchmarks.md").write_text("## Measured by hand\n")
    save(made_up_results(splits=3), tmp_path / "results/lcbench/one/results.parquet")
    build_paper.main(folders)
    printed = capsys.readouterr().out
    assert "RESULTS.md: the table of bundled is left out." in printed
    first = (paper / "RESULTS.md").read_text()
    assert "## LCBench\n" in first
    assert "3 targets with 4 sources, 3 cells." in first
    assert "| | rank 10 | regret 10 (%) |" in first
    assert "| best list of sources | " in first
    assert first.endswith("## Measured by hand\n")
    assert "## bundled" not in first

    (tmp_path / "results/lcbench/one/results.parquet").unlink()
    save(made_up_results(splits=2), tmp_path / "results/bundled/one/results.parquet")
    build_paper.main(folders)
    printed = capsys.readouterr().out
    assert "RESULTS.md: the table of lcbench stays as it is." in printed
    second = (paper / "RESULTS.md").read_text()
    before, after = build_paper.sections_of(first), build_paper.sections_of(second)
    assert list(after) == ["bundled", "lcbench"]
    assert after["lcbench"] == before["lcbench"]
    assert "2 targets" in after["bundled"]
    build_paper.main(folders)
    assert (paper / "RESULTS.md").read_text() == second


def test_table_is_well_formed_and_marks_the_best():
    table = latex_table({"bundled": made_up_results()})
    rows = [line for line in table.splitlines() if line.split(" & ")[0] in {"amt", "random search"}]
    assert len(rows) == 2
    assert all(row.count(" & ") == 2 and row.endswith(r"\\") for row in rows)
    assert table.count(r"\textbf") == 2
    assert table.count("{") == table.count("}")


def test_a_short_budget_is_shown_at_its_end():
    assert "\n & 7 & 7 \\\\\n" in latex_table({"bundled": made_up_results(budget=7)})


def test_without_results_it_says_what_makes_them(build_paper, folders, capsys):
    with pytest.raises(SystemExit, match="nothing to build from"):
        build_paper.main(folders)
    assert "`.venv/bin/python experiments/at2.py database=bundled`" in capsys.readouterr().out


def test_a_pdf_that_does_not_compile_is_an_error(build_paper, tmp_path, folders, monkeypatch):
    save(made_up_results(), tmp_path / "results/bundled/one/results.parquet")
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("subprocess.run", lambda command, cwd: type("Done", (), {"returncode": 12}))
    with pytest.raises(SystemExit, match="latexmk failed"):
        build_paper.main(folders)


def test_every_citation_is_in_the_references_and_every_reference_cited():
    text = (ROOT / "paper" / "main.tex").read_text()
    cited = {k for keys in re.findall(r"\\cite[pt]\{([^}]*)\}", text) for k in keys.split(",")}
    entries = re.findall(r"@\w+\{(\w+),", (ROOT / "paper" / "references.bib").read_text())
    assert sorted(entries) == sorted(cited)
    assert text.count("{") == text.count("}")
