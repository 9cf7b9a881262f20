"""Runs that differ in one choice, side by side: kernels, or ways of inference.

A sweep is a folder with the folder of one run (`amt.evaluation.runs`) for each combination.
`sweep_run` is the job of a sweep, and `collect` makes one table of its runs.

    <database>/<task>-<config>-<fidelity>-<inference>/
                   results of one run
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from amt.evaluation.runs import Job, output_folder, run
from amt.evaluation.statistics import BUDGETS, shown_budgets, summarize
from amt.files import read_json
from amt.kernels import AT2, KERNELS

CHOICES = ["database", *KERNELS, "inference"]


def sweep_job(settings: Mapping[str, Any]) -> Job:
    """The run of one job of a sweep, its folder below `output`."""
    values = dict(settings)
    name = "-".join([*values["kernel"].values(), values["inference"]["name"]])
    folder = output_folder(values)
    return Job(folder / name, values)


def sweep_run(settings: Mapping[str, Any]) -> None:
    """Run one job of a sweep, and print one line when it is done."""
    folder, values = sweep_job(settings)
    row = _row(run(values, folder).folder, BUDGETS)
    Console().print(
        f"{values['database']} {folder.name}: rank {row['mean_rank']:.1f}, density "
        f"{row['mean_log_density']:.2f}, fit {row['fit_seconds']:.1f} s and loop "
        f"{row['loop_seconds']:.2f} s a cell, compilation {row['compile_seconds']:.1f} s",
        soft_wrap=True,
        highlight=False,
    )


def collect(folder: Path, budgets: Sequence[int] = BUDGETS) -> pd.DataFrame:
    """One row for each run in the folder of a sweep, by database and the best mean rank first.

    Columns are what was chosen (`CHOICES`), the number of `cells`, means over them of rank,
    normalized regret, log predictive density and coverages of what amt recommended after each of
    the budgets (`rank_10`, and its standard error `rank_10_error`), means over these (`mean_rank`),
    seconds of fit and loop for each cell, of compilation for the run, and diagnostics of the fits.

    Raises:
        FileNotFoundError: there is no finished run.
    """
    rows = [_row(path.parent, budgets) for path in sorted(folder.glob("*/*/timings.json"))]
    if not rows:
        raise FileNotFoundError(f"no finished run in {folder}")
    table = pd.DataFrame(rows).sort_values(["database", "mean_rank"], kind="stable")
    return table.reset_index(drop=True)


def _row(folder: Path, budgets: Sequence[int]) -> dict[str, Any]:
    settings, timings = (read_json(folder / f"{n}.json") for n in ("settings", "timings"))
    values, cells = settings["settings"], timings["cells"]
    frame = pd.read_parquet(folder / "results.parquet")
    summary = summarize(frame.loc[frame["method"] == "amt"]).set_index("query")
    shown, of_amt = shown_budgets(summary.index, budgets), timings["tuners"]["amt"]
    row: dict[str, Any] = {
        "database": Path(values["database"]).stem,
        **values["kernel"],
        "inference": values["inference"]["name"],
        "cells": cells,
    }
    for metric in ("rank", "normalized_regret", "log_density", "coverage50", "coverage90"):
        at = summary.loc[shown, metric]
        row[f"mean_{metric}"] = float(at.mean())
        for budget in shown:
            row[f"{metric}_{budget}"] = float(summary.loc[budget, metric])
            row[f"{metric}_{budget}_error"] = float(summary.loc[budget, f"{metric}_error"])
    seconds = of_amt["seconds"]
    return row | {
        "fit_seconds": seconds["fit"] / cells,
        "loop_seconds": (seconds["condition"] + seconds["loop"]) / cells,
        "compile_seconds": seconds["compile"],
        **{name: of_amt[name] for name in ("not_converged", "r_hat", "divergences")},
    }


def budgets_of(table: pd.DataFrame) -> list[int]:
    """The budgets that a table of `collect` has columns for."""
    names = (name.removeprefix("rank_") for name in table.columns if name.startswith("rank_"))
    return [int(name) for name in names if name.isdigit()]


def highlights(table: pd.DataFrame, most: int = 8) -> pd.DataFrame:
    """Rows to show: all of a small database, else its best five, the published and the worst.

    With a column `place`, from 1.

    Args:
        most: rows that a small database has.
    """
    of_database = table.groupby("database", sort=False)["task"]
    place, count = of_database.cumcount() + 1, np.asarray(of_database.transform("size"))
    published = (table[list(KERNELS)] == list(AT2)).all(axis=1)
    chosen = (count <= most) | (place <= 5) | (place == count) | published
    return table.assign(place=place, published=published).loc[chosen]
