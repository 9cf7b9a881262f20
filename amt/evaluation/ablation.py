"""Runs that differ in one choice, side by side: kernels, or ways of inference.

A sweep is a folder with the folder of one run (`amt.evaluation.runs`) for each combination. `sweep_run` is the
job of a sweep, `collect` makes one table of its runs, and `Report`, a callback of Hydra, writes
table and figure when all jobs are done.

    <database>/<task>-<config>-<fidelity>-<inference>/
                   results of one run
    table.csv      one row a run, the best first
    table.tex      the best, the worst and the published of each database, if there are many
    figure.pdf, figure.png
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from amt.evaluation import figures as plotting
from amt.evaluation.runs import run
from amt.evaluation.store import read_json, shown_budgets, summarize
from amt.files import atomic_write
from amt.kernels import AT2, KERNELS

CHOICES = ["database", *KERNELS, "inference"]


def sweep_run(conf: DictConfig) -> None:
    """One run of a sweep, its folder below `conf.output`; prints one line when it is done."""
    values: dict[str, Any] = OmegaConf.to_container(conf, resolve=True)  # pyright: ignore
    output = Path(values.pop("output")).resolve()
    values.pop("log_x")
    name = "-".join([*values["kernel"].values(), values["inference"]["name"]])
    row = _row(run(values, output / Path(values["database"]).stem / name).folder)
    Console().print(
        f"{values['database']} {name}: rank {row['mean_rank']:.1f}, density "
        f"{row['mean_log_density']:.2f}, fit {row['fit_seconds']:.1f} s and loop "
        f"{row['loop_seconds']:.2f} s a cell, compilation {row['compile_seconds']:.1f} s",
        soft_wrap=True,
        highlight=False,
    )


def collect(folder: Path) -> pd.DataFrame:
    """One row for each run in the folder of a sweep, by database and the best mean rank first.

    Columns are what was chosen (`CHOICES`), the number of `cells`, means over them of rank,
    normalized regret, log predictive density and coverages of the recommended after each of
    `amt.evaluation.store.BUDGETS` (`rank_10`, and its standard error `rank_10_error`), means over these
    budgets (`mean_rank`), seconds of fit and loop for each cell, of compilation for the run, and
    diagnostics of the fits.

    Raises:
        FileNotFoundError: there is no finished run.
    """
    rows = [_row(path.parent) for path in sorted(folder.glob("*/*/timings.json"))]
    if not rows:
        raise FileNotFoundError(f"no finished run in {folder}")
    table = pd.DataFrame(rows).sort_values(["database", "mean_rank"], kind="stable")
    return table.reset_index(drop=True)


def _row(folder: Path) -> dict[str, Any]:
    settings, timings = (read_json(folder / f"{n}.json") for n in ("settings", "timings"))
    values, cells = settings["settings"], timings["cells"]
    frame = pd.read_parquet(folder / "results.parquet")
    summary = summarize(frame[frame["method"] == "amt"]).set_index("query")
    budgets = shown_budgets(summary.index)
    row: dict[str, Any] = {
        "database": Path(values["database"]).stem,
        **values["kernel"],
        "inference": values["inference"]["name"],
        "cells": cells,
    }
    for metric in ("rank", "normalized_regret", "log_density", "coverage50", "coverage90"):
        at = summary.loc[budgets, metric]
        row[f"mean_{metric}"] = float(at.mean())
        for budget in budgets:
            row[f"{metric}_{budget}"] = float(summary.loc[budget, metric])
            row[f"{metric}_{budget}_error"] = float(summary.loc[budget, f"{metric}_error"])
    seconds = timings["seconds"]
    return row | {
        "fit_seconds": seconds["fit"] / cells,
        "loop_seconds": (seconds["condition"] + seconds["loop"]) / cells,
        "compile_seconds": seconds["compile"],
        **{name: timings[name] for name in ("not_converged", "r_hat", "divergences")},
    }


def budgets_of(table: pd.DataFrame) -> list[int]:
    """The budgets that a table of `collect` has columns for."""
    names = (name.removeprefix("rank_") for name in table.columns if name.startswith("rank_"))
    return [int(name) for name in names if name.isdigit()]


def highlights(table: pd.DataFrame, most: int = 8) -> pd.DataFrame:
    """Of each database with more than `most` rows: the best five, the published and the worst.

    With a column `place`, from 1.
    """
    of_database = table.groupby("database", sort=False)["task"]
    place, count = of_database.cumcount() + 1, of_database.transform("size")
    published = (table[list(KERNELS)] == list(AT2)).all(axis=1)
    chosen = (count <= most) | (place <= 5) | (place == count) | published
    return table.assign(place=place, published=published).loc[chosen]


def latex(table: pd.DataFrame) -> str:
    """A LaTeX tabular of `highlights`: what differs, ranks, regret, forecast and seconds."""
    differing = [c for c in CHOICES if len(set(table[c])) > 1] or ["database"]
    differing += ["place"]
    budgets = budgets_of(table)
    metrics = [("rank", b, 1, 1) for b in budgets] + [
        ("normalized_regret", budgets[-1], 100, 1),
        ("log_density", budgets[0], 1, 2),
        ("coverage90", budgets[0], 100, 0),
    ]
    heads = [*(f"rank {b}" for b in budgets), rf"regret {budgets[-1]} (\%)"]
    heads += [f"density {budgets[0]}", rf"coverage {budgets[0]} (\%)", "fit (s)", "loop (s)"]
    lines = [
        "% Made by amt.evaluation.ablation; do not edit.",
        rf"\begin{{tabular}}{{{'l' * (len(differing) - 1)}r{'r' * len(heads)}}}",
        r"\toprule",
        " & ".join([*differing, *heads]) + r" \\",
        r"\midrule",
    ]
    for _, row in table.iterrows():
        entries = [str(row[c]).replace("_", r"\_") for c in differing]
        for metric, budget, scale, digits in metrics:
            mean, error = (scale * row[f"{metric}_{budget}{end}"] for end in ("", "_error"))
            text = f"{mean:.{digits}f}"
            entries.append(text if np.isnan(error) else rf"{text} $\pm$ {error:.{digits}f}")
        entries += [f"{row['fit_seconds']:.1f}", f"{row['loop_seconds']:.2f}"]
        lines.append(" & ".join(entries) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def write_report(folder: Path, figure: str, console: Console) -> None:
    """Table and figure (by its name in `amt.evaluation.figures`) of the folder of a sweep."""
    table = collect(folder)
    budgets, shown = budgets_of(table), highlights(table)
    atomic_write(folder / "table.csv", lambda f: f.write(table.to_csv(index=False).encode()))
    atomic_write(folder / "table.tex", lambda f: f.write(latex(shown).encode()))
    drawn = getattr(plotting, figure)(table, budgets)
    for ending in ("pdf", "png"):
        plotting.save_figure(drawn, folder / f"figure.{ending}")
    say = partial(console.print, soft_wrap=True, highlight=False)
    for database, rows in shown.groupby("database", sort=False):
        say(f"{database}: mean rank of the recommended ({', '.join(map(str, budgets))} epochs)")
        for _, row in rows.iterrows():
            name = "-".join(row[c] for c in CHOICES[1:]) + " (published)" * row["published"]
            ranks = (f"{row[f'rank_{b}']:.1f} ± {row[f'rank_{b}_error']:.1f}" for b in budgets)
            say(f"  {row['place']}. {name}: {row['mean_rank']:.1f} ({', '.join(ranks)})")
    for file in ("table.csv", "table.tex", "figure.pdf", "figure.png"):
        say(str(folder / file))


class Report(Callback):
    """Writes table and figure of a sweep when all of its jobs are done.

    Args:
        figure: a function of `amt.evaluation.figures`.
    """

    def __init__(self, figure: str):
        self._figure = figure

    def on_multirun_end(self, config: Mapping[str, Any], **_: Any) -> None:
        try:
            write_report(Path(config["output"]).resolve(), self._figure, Console())
        except Exception as error:  # Hydra would only warn
            raise SystemExit(f"the report of the sweep failed: {error!r}") from error
