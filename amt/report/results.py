"""Sections on the folders of experiments: runs (`amt.evaluation.runs`), comparisons and sweeps."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from amt.databases import DATABASES
from amt.evaluation.comparison import entries_of_comparison
from amt.evaluation.fidelity_quality import fidelity_figure
from amt.evaluation.figures import (
    difference_figure,
    inference_figure,
    kernel_figure,
    recommendation_figure,
    title_of,
)
from amt.evaluation.negative_transfer import transfer_figure
from amt.evaluation.roi import roi_figure
from amt.evaluation.statistics import CELL, label_of
from amt.evaluation.sweeps import budgets_of, highlights
from amt.evaluation.tables import entries_of_results, entries_of_runs
from amt.files import read_json
from amt.report.page import Drawing, Facts, Note, Section, Table

LINES = 7
"""The most tuners that a figure of regrets shows."""

EXPERIMENTS: Mapping[str, tuple[Callable[[pd.DataFrame, str], Figure], str]] = {
    "roi": (
        roi_figure,
        "What past tasks are worth: epochs until all that is recommended is within a share of the "
        "best, by the number of past tasks, and the later projects after which collecting them "
        "has paid.",
    ),
    "fidelity_quality": (
        fidelity_figure,
        "How good a low fidelity is: what the score after an epoch says about the best score of "
        "its curve. Recommended is the cheapest epoch that is good enough.",
    ),
    "negative_transfer": (
        transfer_figure,
        "Negative transfer: normalized regret in percent after some epochs, by the share of past "
        "tasks that are bad.",
    ),
}
"""Experiments that leave a table under their name: their figures, and what they show."""

_PLACES = 16  # of a critical-difference diagram


def result_sections(root: Path) -> list[Section]:
    """Sections on all results below a folder: what was run and where, comparisons, sweeps, runs.

    The runs of a sweep, and of an experiment of several runs, have no sections of their own.
    """
    found = [file.parent for file in sorted(root.rglob("settings.json")) if _is_run(file.parent)]
    finished = [folder for folder in found if _is_finished(folder)]
    compared = [file.parent for file in sorted(root.rglob("comparison.csv"))]
    together = [folder for folder in compared if folder not in finished]
    sections = [_overview(root, found)] if found else []
    sections += [Section(_name(root, folder), _comparison(folder)) for folder in together]
    tables = [file.parent for file in sorted(root.rglob("table.csv"))]
    swept = [folder for folder in tables if any(folder.glob("*/*/timings.json"))]
    sections += [Section(_name(root, folder), _sweep(folder)) for folder in swept]
    for experiment, (draw, note) in EXPERIMENTS.items():
        for file in sorted(root.rglob(f"{experiment}.csv")):
            swept.append(file.parent)
            title = f"{_name(root, file.parent)}: {experiment.replace('_', ' ')}"
            sections.append(Section(title, _experiment(file, draw, note)))
    alone = [folder for folder in finished if not {*folder.parents} & {*swept}]
    return sections + [_run(root, folder) for folder in alone]


def _is_run(folder: Path) -> bool:
    return (folder / "parts").is_dir() or _is_finished(folder)


def _is_finished(folder: Path) -> bool:
    return all((folder / file).is_file() for file in ("results.parquet", "timings.json"))


def _name(root: Path, folder: Path) -> str:
    return folder.name if folder == root else folder.relative_to(root).as_posix()


def _title(database: str) -> str:
    return DATABASES[database].title if database in DATABASES else Path(database).name


def _overview(root: Path, folders: Sequence[Path]) -> Section:
    rows = []
    for folder in folders:
        values = read_json(folder / "settings.json")["settings"]
        row = {
            "run": _name(root, folder),
            "database": _title(values["database"]),
            "split": values["split"],
            "sources": values["num_sources"] or ("four" if values["split"] == "paper" else "all"),
        }
        if _is_finished(folder):
            timings = read_json(folder / "timings.json")
            row |= {
                "tuners": len(timings["tuners"]),
                "cells": timings["cells"],
                "seconds": round(sum(timings["seconds"].values())),
                **{k: timings.get(k) for k in ("device", "cores", "machine", "host")},
                **{k: timings.get(k) for k in ("python", "jax")},
            }
        else:
            row["tuners"] = "not finished"
        rows.append(row)
    caption = (
        "Cells are pairs of a target and a seed; seconds are those of all computation, compiling "
        "included; the machine is that of the latest run"
    )
    return Section("What was run, and where", [Table.of(caption, pd.DataFrame(rows, dtype=object))])


def _run(root: Path, folder: Path) -> Section:
    values = read_json(folder / "settings.json")["settings"]
    timings = read_json(folder / "timings.json")
    results = pd.read_parquet(folder / "results.parquet")
    areas: Any = results.groupby("method")["normalized_regret"].mean()
    best = list(areas.sort_values(kind="stable").index[:LINES])
    counts = (
        f"{results['target'].nunique()} targets, {len(results[CELL].drop_duplicates())} cells, "
        f"{areas.size} tuners, {results['query'].max()} epochs on each target"
    )
    facts = {"database": _title(values["database"]), "covered": counts}
    blocks: list[Any] = [Facts("Results", facts)]
    if (folder / "comparison.csv").is_file():
        blocks += _comparison(folder)
    else:
        heads, rows = entries_of_results(results)
        skipped = [
            [f"{label_of(name)} (not run: {why})", *[""] * (len(heads) - 1)]
            for name, why in timings["skipped"].items()
        ]
        caption = (
            "Rank and normalized regret of the recommended after some epochs (± standard error)"
        )
        blocks.append(Table(caption, ["tuner", *heads[1:]], [*rows, *skipped]))
    which = "all tuners" if areas.size <= LINES else f"the best {LINES} by area under the regret"
    shown = results.loc[results["method"].isin(best)]
    caption = f"Rank and normalized regret of the recommended against epochs spent, {which}"
    blocks.append(Drawing(caption, recommendation_figure(shown)))
    return Section(_name(root, folder), [*blocks, _seconds(timings), _settings(folder, values)])


def _comparison(folder: Path) -> list[Table | Drawing]:
    """Table and critical-difference diagram, as `amt.evaluation.comparison` left them."""
    table = pd.read_csv(folder / "comparison.csv")
    table["note"] = table["note"].astype(object).where(table["note"].notna(), "")
    heads, rows = entries_of_comparison(table)
    caption = (
        "Normalized regret and rank after some epochs, area under the regret, mean place by it, "
        "wins, ties and losses of the reference, whose own row has ties alone, against the tuner, "
        "and own seconds and memory of a run"
    )
    blocks: list[Table | Drawing] = [Table(caption, ["tuner", *heads[1:]], rows)]
    if (folder / "pairs.csv").is_file():
        pairs = pd.read_csv(folder / "pairs.csv", index_col=0)
        means: Any = table.set_index("method")["place"]
        places = means.dropna().sort_values(kind="stable")
        shown = list(places.index[:_PLACES])
        title = (
            f"Mean place among {places.size} tuners by area under the regret\n"
            "a bar joins tuners that do not differ (Wilcoxon, Holm, 5%)"
        )
        figure = difference_figure(places.loc[shown], pairs.loc[shown, shown], title)
        blocks.append(Drawing(f"Critical-difference diagram of the best {len(shown)}", figure))
    return blocks


def _sweep(folder: Path) -> list[Table | Drawing]:
    """Table and figure of the runs of a sweep, as `amt.evaluation.reports` left them."""
    table = pd.read_csv(folder / "table.csv")
    budgets = budgets_of(table)
    draw = kernel_figure if len(set(table["inference"])) == 1 else inference_figure
    caption = "Runs of the sweep: the best, the published and the worst of each database"
    return [
        Table(caption, *entries_of_runs(highlights(table))),
        Drawing("All runs of the sweep", draw(table, budgets)),
    ]


def _experiment(
    file: Path, draw: Callable[[pd.DataFrame, str], Figure], note: str
) -> list[Note | Table | Drawing]:
    """Figure and table of an experiment, as `amt.evaluation.output` left them."""
    table = pd.read_csv(file)
    figure = draw(table, title_of(file.parent.name))
    if "method" in table:
        table = table.assign(method=table["method"].map(label_of))
    return [Note(note), Drawing("The main columns", figure), Table.of("All numbers", table)]


def _seconds(timings: Any) -> Table:
    rows = [
        {"tuner": label_of(name), **of_tuner["seconds"]}
        | {k: of_tuner.get(k) for k in ("not_converged", "r_hat", "divergences")}
        for name, of_tuner in timings["tuners"].items()
    ]
    frame = pd.DataFrame(rows).dropna(axis=1, how="all")
    caption = "Seconds of each tuner for all cells, and what its fits say of themselves"
    return Table.of(caption, frame, folded=True)


def _settings(folder: Path, values: Any) -> Table:
    """Settings, and the versions that the parts were computed with."""
    entries = {name: json.dumps(value) for name, value in values.items()}
    versions: dict[str, set[str]] = {}
    for file in sorted(folder.glob("parts/*/*.json")):
        for name, version in read_json(file)["provenance"]["versions"].items():
            versions.setdefault(name, set()).add(version)
    entries |= {f"version of {name}": ", ".join(sorted(v)) for name, v in versions.items()}
    return Table("Settings and versions", ["name", "value"], list(map(list, entries.items())), True)
