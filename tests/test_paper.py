import importlib.util
import re
from pathlib import Path

import pandas as pd
import pytest

from amt import databases
from amt.evaluation import comparison
from amt.evaluation.runs import NOT_SHARED, Job, difference
from amt.evaluation.statistics import label_of
from amt.evaluation.tables import latex_table
from amt.files import read_json, write_json
from amt.tuners import TUNERS
from paper_parts.content import Source
from paper_runs import composed, jobs_of
from tests.problems import METHODS, SMALL_RUN, made_up_results

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


@pytest.fixture(autouse=True)
def nothing_drawn(monkeypatch, build_paper):
    monkeypatch.setattr("shutil.which", lambda name: None)
    for module in (build_paper, comparison):
        monkeypatch.setattr(module, "save_figure", lambda figure, path: path.write_text("drawn"))


def finish(job: Job, results: pd.DataFrame) -> None:
    """Leave what a run leaves in its folder."""
    job.folder.mkdir(parents=True)
    results.to_parquet(job.folder / "results.parquet")
    values = {name: v for name, v in job.values.items() if name not in NOT_SHARED}
    write_json(job.folder / "settings.json", {"settings": values})
    seconds = {"seconds": {"compile": 9.0, "loop": 1.0}}
    tuners = dict.fromkeys(job.values["tuners"], seconds)
    write_json(job.folder / "timings.json", {"tuners": tuners, "skipped": {}, "cells": 3})


def of_tuners(tuners: list[str], **columns) -> pd.DataFrame:
    """Made-up rows of some tuners on tasks of the bundled database."""
    rows = made_up_results(budget=100)
    rows = rows[rows["method"] == "amt"]
    frames = [rows.assign(method=t, normalized_regret=rows["normalized_regret"]) for t in tuners]
    tasks = dict(enumerate(databases.load("bundled").tasks))
    results = pd.concat(frames, ignore_index=True).assign(database="bundled", **columns)
    return results.assign(target=results["split"].map(tasks), config=0, epoch=1, score=0.5)


def test_results_of_other_settings_tuners_or_none_are_named(tmp_path):
    job = Job(tmp_path / "run", SMALL_RUN)
    assert difference(job) == "is missing"
    finish(job, made_up_results())
    assert difference(job) is None
    assert difference(job._replace(values=SMALL_RUN | {"workers": 7})) is None
    assert difference(job._replace(values=SMALL_RUN | {"budget": 9})) == "has budget=3, not 9"
    fewer = job._replace(values=SMALL_RUN | {"tuners": ["best_list"]})
    assert difference(fewer) == "has other tuners: random_search"
    (job.folder / "timings.json").unlink()
    assert difference(job) == "is not finished"


def test_a_part_is_made_of_all_of_its_runs_or_stays_as_it_is(build_paper, tmp_path, capsys):
    paper, results = tmp_path / "paper", tmp_path / "results"
    arguments = ["--results", str(results), "--paper", str(paper), "--parts", "pairs"]
    paper.mkdir()
    (paper / "benchmarks.md").write_text("## Measured by hand\n")
    plan = {"databases": ["bundled", "lcbench"], "pairs": {"script": "at2", "settings": []}}
    plan["pairs"]["settings"] = ["seeds=3", "output=results/pairs/${database}"]
    build_paper.OmegaConf.save(plan, tmp_path / "runs.yaml")
    arguments += ["--plan", str(tmp_path / "runs.yaml")]
    jobs = {d: s.jobs[None] for d, s in build_paper.sources_of(plan, "pairs", results)}
    for name, job in jobs.items():
        finish(job, made_up_results(3, budget=100).assign(database=name))
    settings = jobs["lcbench"].folder / "settings.json"
    right = read_json(settings)
    write_json(settings, {"settings": right["settings"] | {"pair": [0, 0]}})
    build_paper.main(arguments)
    printed = capsys.readouterr().out
    assert f"{jobs['lcbench'].folder} has pair=[0, 0], not None" in printed
    assert (
        "python experiments/at2.py seeds=3 output=results/pairs/${database} database=lcb" in printed
    )
    assert not (paper / "tables").exists()

    write_json(settings, right)
    build_paper.main(arguments)
    assert "latexmk is not installed" in capsys.readouterr().out
    table = (paper / "tables/pairs.tex").read_text()
    assert "LCBench, 3 cells" in table
    rows = made_up_results(3, budget=100)
    ours = rows[(rows["method"] == "task_regression") & (rows["query"] == 10)]["rank"].mean()
    assert re.search(rf"task regression & (\\textbf{{)?{ours:.1f}", table)
    text = (paper / "numbers/pairs.tex").read_text()
    assert f"On bundled its mean rank after 10, 25, 50 and 100 epochs is {ours:.1f}, " in text
    assert (paper / "figures/at2-bundled.svg").read_text() == "drawn"
    first = (paper / "RESULTS.md").read_text()
    assert "3 targets with 4 sources, 3 cells." in first
    assert "3 seeds of each split." in first
    assert r"\newcommand{\pairsSeeds}{3}" in text
    assert first.endswith("## Measured by hand\n")
    settings.unlink()
    build_paper.main(arguments)
    assert (paper / "RESULTS.md").read_text() == first
    write_json(settings, {"settings": right["settings"] | {"seeds": 2}})
    plan["pairs"]["settings"][0] = "seeds=2"
    build_paper.OmegaConf.save(plan, tmp_path / "runs.yaml")
    build_paper.main(arguments)
    assert "has 2 of 3 seeds that a published table has" in capsys.readouterr().out
    assert (paper / "RESULTS.md").read_text() == first


def test_the_comparison_says_where_task_regression_stands_and_is_beaten(
    build_paper, tmp_path, monkeypatch
):
    pytest.importorskip("scikit_posthocs")
    for name in ("recommendation_figure", "difference_figure"):  # made once more, for its folder
        monkeypatch.setattr(comparison, name, lambda *_: None)
    results = made_up_results(9, budget=25).assign(database="bundled")
    better = results["method"].isin(["best_list"])
    results["normalized_regret"] += 1.0 - better
    job = Job(tmp_path / "bundled-all", SMALL_RUN | {"tuners": [*METHODS]})
    finish(job, results)
    settings = {"reference": "task_regression", "every": 3}
    content = build_paper.comparison({"bundled": Source(settings, {None: job})})
    ours = 100 * results[results["method"] == "task_regression"]["normalized_regret"].mean()
    assert content.numbers["Area"] == f"{ours:.1f}"
    assert content.numbers["Which"] == "every third task"
    assert "behind best list of sources (" in content.numbers["Summary"]
    assert content.numbers["Lost"].startswith("on bundled after ")
    assert r"\textbf{task regression} & " in content.tables["comparison"]
    assert content.tables["comparison-all"].count(r"\\") == 1 + len(METHODS)
    assert content.tables["behind"].count(r"\\") == 1 + 2  # budgets


def test_worth_and_bad_sources_are_told_in_sentences(build_paper, tmp_path):
    settings = composed("roi", ["sources=[1,all]", "draws=1"], tmp_path)
    jobs = jobs_of("roi", settings)
    for count, job in jobs.items():
        near = 0.5 if count == 0 else 0.0
        finish(job, of_tuners(job.values["tuners"], normalized_regret=near))
    content = build_paper.roi({"bundled": Source(settings, jobs)})
    summary = content.numbers["Summary"]
    assert "within 5\\% of the best after 1 epochs with 28 past tasks, 1 with 1, and 100" in summary
    assert f"pays after {28 * 100 * 50 / 99:,.0f} projects" in summary
    assert content.tables["roi"].count(r"\\") == 1 + 4

    options = ["shares=[0,0.5,1]", "tuners=[task_regression]"]
    settings = composed("negative_transfer", options, tmp_path)
    jobs = jobs_of("negative_transfer", settings)
    for name, job in jobs.items():
        regret = 0.1 if name is None else name[1]
        finish(job, of_tuners(job.values["tuners"], normalized_regret=regret))
    content = build_paper.negative_transfer({"bundled": Source(settings, jobs)})
    assert "50\\% of flipped sources leave it at 50.0, 50.0" in content.numbers["Summary"]
    row = "bundled & task regression & 10.0 / 10.0 & 50.0 / 50.0 & 100.0 / 100.0 & 50.0"
    assert row in content.tables["negative_transfer"]


def test_every_run_of_the_paper_has_a_part_and_settings_that_are_known(build_paper):
    loaded = build_paper.OmegaConf.load(ROOT / "paper/runs.yaml")
    plan = build_paper.OmegaConf.to_container(loaded)
    assert set(plan) == {"databases", *build_paper.PARTS}
    only = {"databases": ["bundled"], "comparison": plan["comparison"]}
    source = dict(build_paper.sources_of(only, "comparison", Path("results")))["bundled"]
    assert source.jobs[None].folder.name == "bundled-all"
    assert set(source.jobs[None].values["tuners"]) < set(TUNERS)
    assert build_paper.commands(plan, "roi")[0][-1] == "database=hyperrec"
    for part in build_paper.PARTS:
        script = plan[part]["script"]
        settings = composed(script, plan[part]["settings"], Path("results"))
        jobs = jobs_of(script, settings | {"database": "bundled"})
        assert [build_paper.few_seeds(job) for job in jobs.values()] == [None] * len(jobs)


def test_table_is_well_formed_and_marks_the_best():
    table = latex_table({"bundled": made_up_results()})
    rows = [line for line in table.splitlines() if line.split(" & ")[0] in {"amt", "random search"}]
    assert len(rows) == 2
    assert all(row.count(" & ") == 2 and row.endswith(r"\\") for row in rows)
    assert table.count(r"\textbf") == 2
    assert table.count("{") == table.count("}")
    assert label_of("best_list") in table


def test_a_short_budget_is_shown_at_its_end():
    assert "\n & 7 & 7 \\\\\n" in latex_table({"bundled": made_up_results(budget=7)})


def test_a_pdf_that_does_not_compile_is_an_error(build_paper, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("subprocess.run", lambda command, cwd: type("Done", (), {"returncode": 12}))
    with pytest.raises(SystemExit, match="latexmk failed"):
        build_paper.compile_pdf(tmp_path)


def test_every_citation_is_in_the_references_and_every_reference_cited():
    text = (ROOT / "paper" / "main.tex").read_text()
    cited = {k for keys in re.findall(r"\\cite[pt]\{([^}]*)\}", text) for k in keys.split(",")}
    entries = re.findall(r"@\w+\{(\w+),", (ROOT / "paper" / "references.bib").read_text())
    assert sorted(entries) == sorted(cited)
    assert text.count("{") == text.count("}")


def test_every_number_of_the_text_is_defined_where_it_is_not_made_yet(build_paper):
    text = (ROOT / "paper" / "main.tex").read_text()
    prefixes = "|".join(part.split("_")[0] for part in build_paper.PARTS)
    used = set(re.findall(rf"\\((?:{prefixes})[A-Z]\w*)", text))
    assert used == set(re.findall(r"\\providecommand\{\\(\w+)\}", text))
