"""The page has all that is in results and states, as text, and needs nothing beside itself."""

from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ConfigSpace import Categorical, ConfigurationSpace, EqualsCondition, Float, Integer

import amt
from amt.evaluation.comparison import by_target, comparison_table, differences
from amt.evaluation.fidelity_quality import fidelity_quality
from amt.evaluation.negative_transfer import transfer_table
from amt.evaluation.roi import roi_table
from amt.evaluation.statistics import label_of, summarize
from amt.evaluation.sweeps import collect
from amt.files import write_json
from amt.gp.task_regression.model import TaskRegression
from amt.inference.task_regression import TaskRegressionFit
from amt.search.state import State, read, write
from tests.problems import METHODS, SMALL_RUN, made_up_results, small_curves

pytest.importorskip("jinja2")
main = pytest.importorskip("amt.report.__main__").main
result_sections = pytest.importorskip("amt.report.results").result_sections

VOID = {"meta", "link", "br"}
OPTIMIZER, MOMENTUM, RATE = '<b>optimizer</b> "&"', "momentum & 'more'", "rate $x$ </td>"
TASKS = ["<script>alert(1)</script>", 'task & "1"', "$a$ & $b$", "task <3>"]


class Page(HTMLParser):
    """A page whose elements are closed in order, with its texts, identifiers and references."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.references, self.text = [], [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name.split(":")[-1] in ("href", "src", "srcset", "action", "data"):
                self.references.append(value)
            if "url(" in value:
                self.references.append(value.partition("url(")[2])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            assert "url(" not in data
            assert "@import" not in data
        self.text += data


def read_page(path):
    text = path.read_text()
    assert text.startswith("<!DOCTYPE html>")
    page = Page(text)
    page.references = [r for r in page.references if not r.startswith("data:image/png;base64,")]
    assert all(r.startswith("#") for r in page.references)
    assert {r.partition(")")[0][1:] for r in page.references} <= set(page.ids)
    assert not {"script", "b", "link", "img", "iframe", "object"} & set(page.tags)
    return page


# Results of experiments


def write_run(folder, results, **settings):
    folder.mkdir(parents=True)
    results.to_parquet(folder / "results.parquet")
    write_json(folder / "settings.json", {"settings": SMALL_RUN | settings})
    of_tuner = {
        "seconds": {"compile": 9.0, "fit": 4.0, "condition": 1.0, "loop": 5.25},
        **{"not_converged": 3, "r_hat": None, "divergences": None},
    }
    timings = {
        "cells": 5,
        "skipped": {"tpe": "needs <optuna>"},
        "seconds": {"compile": 54.0, "loop": 31.5},
        "tuners": dict.fromkeys(METHODS, of_tuner),
        **{"machine": "Linux & co", "host": "h", "cores": 2, "device": "cpu"},
        **{"python": "3.11.1", "jax": "0.8.9"},
    }
    write_json(folder / "timings.json", timings)
    part = folder / "parts/amt/0000.json"
    part.parent.mkdir(parents=True)
    write_json(part, {"provenance": {"versions": {"numpy": "2.9.9"}}})


def test_results_are_in_tables_and_figures(tmp_path, capsys):
    results = made_up_results(5, budget=25).assign(database="<i>made & up")
    write_run(tmp_path / "alone", results, database="<i>made & up")
    write_run(tmp_path / "stopped", results)
    (tmp_path / "stopped/timings.json").unlink()
    assert main([str(tmp_path)]) == 0
    assert "report.html" in capsys.readouterr().out
    page = read_page(tmp_path / "report.html")
    assert page.tags.count("section") == 2
    assert page.tags.count("svg") == 1
    for text in (*map(label_of, METHODS), "<i>made & up", "Linux & co", "3.11.1", "0.8.9", "2.9.9"):
        assert text in page.text
    assert "not finished" in page.text
    assert f"{label_of('tpe')} (not run: needs <optuna>)" in page.text
    at = summarize(results).set_index(["method", "query"]).loc[("amt", 25)]
    assert f"{at['rank']:.1f} ± {at['rank_error']:.1f}" in page.text


def test_comparisons_have_their_table_and_diagram(tmp_path):
    pytest.importorskip("scikit_posthocs")
    results = made_up_results(5, budget=25)
    skipped = {"tpe": "needs <optuna>"}
    seconds = dict.fromkeys(METHODS, 0.25)
    table = comparison_table(results, seconds, seconds, reference="amt", skipped=skipped)
    table.to_csv(tmp_path / "comparison.csv", index=False)
    differences(by_target(results)).pairs.to_csv(tmp_path / "pairs.csv")
    assert main([str(tmp_path), "--output", str(tmp_path / "page.html")]) == 0
    page = read_page(tmp_path / "page.html")
    assert page.tags.count("section") == page.tags.count("svg") == 1
    for area in table["area"].dropna():
        assert f"{area:.1f}" in page.text
    assert "Mean place among 6 tuners" in page.text
    assert page.text.count("not run") == 1
    assert f"{label_of('tpe')} (not run: needs <optuna>)" in page.text


def test_a_sweep_is_one_section(tmp_path):
    for config in ("matern", "tree"):
        kernel = {"task": "icm", "config": config, "fidelity": "at2"}
        folder = tmp_path / "bundled" / f"icm-{config}-at2-mle"
        write_run(folder, made_up_results(5, 25), kernel=kernel, inference={"name": "mle"})
    collect(tmp_path).to_csv(tmp_path / "table.csv", index=False)
    assert main([str(tmp_path)]) == 0
    page = read_page(tmp_path / "report.html")
    assert page.tags.count("section") == 2
    assert page.tags.count("svg") == 1
    assert "matern" in page.text
    assert "coverage 10 (%)" in page.text
    before = (tmp_path / "report.html").read_bytes()
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "report.html").read_bytes() == before


def test_experiments_of_several_runs_have_one_section_each(tmp_path):
    results = made_up_results(3, budget=10)
    ours, without = (results[results["method"] == m] for m in ("amt", "random_search"))
    bad = transfer_table({("flipped", 0.5): ours}, without)
    tasks = {"target": "task " + results["split"].astype(str), "config": 0, "epoch": 1}
    ours, without = (frame.assign(score=0.5, **tasks) for frame in (ours, without))
    curves = small_curves(3, 4, 2)
    tables = {
        "roi": roi_table({2: ours}, without, curves),
        "negative_transfer": bad,
        "fidelity_quality": fidelity_quality(curves, top=2),
    }
    for name, table in tables.items():
        write_run(tmp_path / name / "bundled" / "one_run", results)
        table.to_csv(tmp_path / name / "bundled" / f"{name}.csv", index=False)
    # Not drawn, which takes seconds.
    overview, *sections = result_sections(tmp_path)
    assert overview.title == "What was run, and where"
    assert [section.title for section in sections] == [
        "roi/bundled: roi",
        "fidelity_quality/bundled: fidelity quality",
        "negative_transfer/bundled: negative transfer",
    ]
    *_, of_bad = sections
    note, drawing, numbers = of_bad.blocks
    assert note.text.startswith("Negative transfer: ")
    assert drawing.figure.axes
    assert numbers.rows[1][1] == label_of("random_search")
    assert f"{bad['regret_10'][0]:.4g}" in numbers.rows[0]


def test_a_folder_with_nothing_in_it_is_one_message(tmp_path, capsys):
    np.savez(tmp_path / "network.npz", weights=np.zeros(3))
    assert main([str(tmp_path)]) == 1
    assert main([str(tmp_path / "absent")]) == 1
    nothing, absent = capsys.readouterr().out.splitlines()
    assert nothing.startswith(f"nothing to report in {tmp_path}: there are neither finished")
    assert absent == f"there is no folder or file {tmp_path / 'absent'}"
    assert [path.name for path in tmp_path.iterdir()] == ["network.npz"]


# Live tuners


@pytest.fixture(scope="module")
def sources():
    plain = small_curves(num_tasks=5, num_configs=12, num_epochs=6)
    new = {"optimizer": OPTIMIZER, "momentum": MOMENTUM, "rate": RATE, "depth": "depth"}
    space = ConfigurationSpace()
    optimizer, momentum = Categorical(OPTIMIZER, ["adam", "sgd"]), Float(MOMENTUM, (0.0, 0.99))
    space.add([optimizer, momentum, Float(RATE, (1e-4, 1.0), log=True), Integer("depth", (1, 9))])
    space.add(EqualsCondition(momentum, optimizer, "sgd"))
    return amt.LearningCurves(
        configs=[{new[name]: v for name, v in config.items()} for config in plain.configs],
        space=space,
        tasks=TASKS,
        scores=plain.scores[:4],
    )


@pytest.fixture(scope="module")
def path(sources, tmp_path_factory):
    """The state of a tuner whose model was not learned, which takes seconds."""
    model = TaskRegression.init(sources, jax.random.key(0))
    nothing = jnp.zeros((1, 1))
    fit = TaskRegressionFit(model, nothing, nothing, jnp.ones(1, bool), jnp.zeros((), int))
    path = tmp_path_factory.mktemp("live") / "tuner.npz"
    amt.Tuner(sources, jax.random.key(0), fit=fit, continuous=False, state=path)
    told = [
        (number, epoch, float(sources.scores[1, number, epoch - 1]))
        for number in (2, 5, 7)
        for epoch in (1, 2)
    ]
    told.append((9, 6, 0.123456))
    state = State(told=told, pending=[(3, 1)], failed=[5], stopped=[7], asked=9)
    saved = read(path)
    write(path, saved._replace(state=state, settings=saved.settings | {"fit": None}))
    return path


def test_a_tuner_with_its_sources(path, sources, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("amt.databases.load", lambda name, **o: asked.update(o) or sources)
    before = path.read_bytes(), path.stat().st_mtime_ns
    output = tmp_path / "page.html"
    command = [str(path.parent), "--output", str(output), "--sources", "made up", "--tasks", *TASKS]
    assert main([*command, "--options", '{"minimise": false}']) == 0
    assert asked == {"minimise": False}
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    page = read_page(output)
    for text in (*TASKS, OPTIMIZER, MOMENTUM, RATE, "depth"):
        assert page.text.count(text) >= 2
    assert page.tags.count("svg") == 2
    tuner = amt.Tuner.resume(path, sources)
    best = tuner.recommend()
    mean, lower, upper = (f"{values[0, -1]:.4g}" for values in tuner.predict([best]))
    assert f"configuration {best}" in page.text
    assert f"{mean}, 90% interval from {lower} to {upper}" in page.text
    weights = tuner.similarity().mean
    assert all(f"{weight:.4g}" in page.text for weight in weights)
    # Three configurations for two epochs and one for all six.
    assert "7 metrics of 4 configurations" in page.text
    assert "12 of 24 (50%), which all configurations tried" in page.text
    assert "0.1235" in page.text
    assert "Proposals waiting" in page.text
    assert all(word in page.text for word in ("Given up", "failed", "stopped"))


def test_a_state_alone_has_its_history(path, sources, tmp_path, monkeypatch):
    output = tmp_path / "page.html"
    assert main([str(path), "--output", str(output)]) == 0
    page = read_page(output)
    assert "name them (--sources)" in page.text
    assert "0.1235" in page.text
    assert "Proposals waiting" in page.text
    assert "svg" not in page.tags

    other = sources.select(tasks=TASKS[:3])
    monkeypatch.setattr("amt.databases.load", lambda name: other)
    assert main([str(path), "--output", str(output), "--sources", "other"]) == 0
    page = read_page(output)
    assert "tuner.npz is the state of a tuner with other sources" in page.text
    assert "0.1235" in page.text
