"""Figures of experiments.

They are drawn with Matplotlib's object interface, so that nothing global changes, in colours that
remain distinct with the common colour vision deficiencies (Okabe and Ito 2008) and in line styles,
both by a rule (`styles`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from amt.databases import DATABASES
from amt.evaluation.statistics import CELL, label_of, methods_of, summarize
from amt.files import atomic_write
from amt.kernels import AT2, KERNELS

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (1, 1)),
)


def styles(count: int) -> list[tuple[str, Any]]:
    """A colour and a line style for each of several lines, all different up to 49 of them.

    Neighbours differ in both, so that the first ones can be told apart in grey too.
    """
    colors, lines = len(COLORS), len(LINES)
    return [
        (COLORS[number % colors], LINES[(number + number // colors) % lines])
        for number in range(count)
    ]


WIDTH = 6.2
"""Inches, those of a page's text, so that texts are as large on paper as their sizes say."""

TITLE, LABEL, TICK = 8, 8, 7
COLUMNS = 4  # of a legend


def finish(axis: Any, xlabel: str = "", ylabel: str = "", *, title: str = "") -> None:
    """Give a panel its labels, and the sizes and the frame of all panels."""
    axis.set_title(title, fontsize=TITLE)
    axis.set_xlabel(xlabel, fontsize=LABEL)
    axis.set_ylabel(ylabel, fontsize=LABEL)
    axis.tick_params(labelsize=TICK)
    axis.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure) -> None:
    """Put the legend of the first panel, which is that of all, below the panels."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(len(labels), COLUMNS),
        frameon=False,
        fontsize=TICK,
    )


def recommendation_figure(
    results: pd.DataFrame, *, title: str | None = None, log_x: bool = False
) -> Figure:
    """Rank and regret of the recommended configuration against the epochs spent.

    One line a method, the mean over cells (of a method with several random orders, over these
    first), its standard error shaded.

    Args:
        results: rows of `amt.evaluation.rows`, of one database.
        title: stands before the number of targets; by default that of the database.
        log_x: epochs on a logarithmic axis.
    """
    summary = summarize(results)
    methods = methods_of(results)
    figure = Figure(figsize=(WIDTH, 2.6 + 0.15 * len(methods) / COLUMNS), layout="constrained")
    panels = {
        "rank": "rank (0: best)",
        "normalized_regret": "normalized regret",
    }
    axes = figure.subplots(1, len(panels))
    for axis, (metric, label) in zip(axes, panels.items(), strict=True):
        for method, (color, line) in zip(methods, styles(len(methods)), strict=True):
            rows = summary[summary["method"] == method]
            query, mean, error = (
                np.asarray(rows[column]) for column in ("query", metric, f"{metric}_error")
            )
            axis.plot(
                query, mean, color=color, linestyle=line, linewidth=1.6, label=label_of(method)
            )
            axis.fill_between(query, mean - error, mean + error, color=color, alpha=0.15, lw=0)
        axis.set_xlim(1, summary["query"].max())
        axis.set_ylim(0, None)
        if log_x:
            axis.set_xscale("log")
        finish(axis, "epochs spent on the target", label)
    cells, targets = len(results[CELL].drop_duplicates()), results["target"].nunique()
    counted = f"{targets} target{'s' * (targets > 1)}"
    if cells != targets:
        counted += f", {cells} cells (target, training run, seed)"
    bands = "bands: standard error of the mean over them" if cells > 1 else "no bands: one cell"
    name = results["database"].iloc[0]
    if title is None:
        title = title_of(name)
    figure.suptitle(f"{title}: {counted}; {bands}", fontsize=TITLE)
    legend_below(figure)
    return figure


def title_of(database: str) -> str:
    """How figures call a database, or a file."""
    return DATABASES[database].title if database in DATABASES else Path(database).stem


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure in the format that its path ends in; the same figure is the same bytes."""
    form = path.suffix.removeprefix(".")
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(form)
    # Fonts as TrueType in a PDF, and identifiers of an SVG that stay.
    with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "amt"}):
        atomic_write(path, lambda f: figure.savefig(f, format=form, dpi=200, metadata=metadata))


def difference_figure(places: pd.Series, pairs: pd.DataFrame, title: str) -> Figure:
    """Critical-difference diagram: mean places, and bars that join those that do not differ.

    Args:
        places: mean place of each method.
        pairs: p-values of all pairs of them.
    """
    from scikit_posthocs import critical_difference_diagram  # pyright: ignore

    labels = {method: label_of(str(method)) for method in places.index}
    figure = Figure(figsize=(WIDTH, 1.2 + 0.17 * len(places)), layout="constrained")
    axes = figure.subplots()
    drawn: Any = critical_difference_diagram(
        places.rename(labels),
        pairs.rename(index=labels, columns=labels),
        ax=axes,
        label_fmt_left="{label} ({rank:.1f})",
        label_fmt_right="({rank:.1f}) {label}",
        label_props={"fontsize": TICK},
        elbow_props={"color": "0.25", "linewidth": 0.7},
        marker_props={"color": "black", "s": 10},
        crossbar_props={"color": "black", "marker": "", "linewidth": 2},
    )
    for (bar,) in drawn["crossbars"]:  # its points are a set's: in another order in each process
        bar.set_xdata(sorted(bar.get_xdata()))
    axes.tick_params(labelsize=TICK)
    figure.suptitle(title, fontsize=TITLE)
    return figure


def kernel_figure(table: pd.DataFrame, budgets: Sequence[int]) -> Figure:
    """Rank of the recommended for every combination of kernels, one panel a database and budget.

    AT2's combination has a frame.

    Args:
        table: from `amt.evaluation.sweeps.collect`.
    """
    names = {axis: [k for k in known if k in set(table[axis])] for axis, known in KERNELS.items()}
    rows = [(task, config) for task in names["task"] for config in names["config"]]
    databases, columns = table["database"].unique(), names["fidelity"]
    size = 2.5 + 1.5 * len(budgets), (1.0 + 0.22 * len(rows)) * len(databases)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(databases), len(budgets), squeeze=False)
    for database, panels in zip(databases, grid, strict=True):
        of_database = table[table["database"] == database].set_index(list(KERNELS))
        worst = of_database[[f"rank_{budget}" for budget in budgets]].to_numpy().max()
        for axis, budget in zip(panels, budgets, strict=True):
            rank = of_database[f"rank_{budget}"]
            values = [[rank.get((*row, column), np.nan) for column in columns] for row in rows]
            image = axis.imshow(values, cmap="viridis_r", vmin=0, vmax=worst, aspect="auto")
            for (y, x), value in np.ndenumerate(values):
                color = "white" if value > worst / 2 else "black"
                axis.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=6, color=color)
            axis.set_title(f"{database}, {budget} epochs", fontsize=8)
            axis.set_xticks(range(len(columns)), columns, fontsize=7, rotation=45, ha="right")
            axis.set_yticks(range(len(rows)), ["-".join(row) for row in rows], fontsize=7)
            if AT2[:2] in rows and AT2[2] in columns:
                corner = columns.index(AT2[2]) - 0.5, rows.index(AT2[:2]) - 0.5
                axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#D55E00", lw=2))
            if axis is not panels[0]:
                axis.tick_params(labelleft=False)
        figure.colorbar(image, ax=panels, label="rank (0: best)")  # pyright: ignore
    figure.suptitle(
        f"mean rank of the recommended; {_cells(table)}; frame: the published kernels", fontsize=8
    )
    return figure


def inference_figure(table: pd.DataFrame, budgets: Sequence[int]) -> Figure:
    """Rank, regret, density and coverage after some epochs for every way of inference.

    Args:
        table: from `amt.evaluation.sweeps.collect`.
    """
    panels = {
        "rank": "rank of the recommended",
        "normalized_regret": "normalized regret",
        "log_density": "log density of final scores",
        "coverage90": "coverage of the 90% interval",
    }
    runs = [*KERNELS, "inference"]
    differing = [c for c in runs if len(set(table[c])) > 1] or ["inference"]
    labels = table[differing].agg("-".join, axis=1)
    names = sorted(set(labels))
    databases = table["database"].unique()
    figure = Figure(figsize=(10.0, 0.5 + 2.3 * len(databases)), layout="constrained")
    grid = figure.subplots(len(databases), len(panels), squeeze=False)
    for database, axes in zip(databases, grid, strict=True):
        rows = table.set_index(labels)[(table["database"] == database).to_numpy()]
        for axis, (metric, title) in zip(axes, panels.items(), strict=True):
            for number, name in enumerate(names):
                if name not in rows.index:
                    continue
                mean, error = (
                    [rows.loc[name, f"{metric}_{budget}{ending}"] for budget in budgets]
                    for ending in ("", "_error")
                )
                place = np.arange(len(budgets)) + 0.1 * (number - (len(names) - 1) / 2)
                axis.errorbar(place, mean, error, marker="o", markersize=3, lw=1, label=name)
            if metric == "coverage90":
                axis.axhline(0.9, color="0.5", lw=0.8, ls=":")
            axis.set_xticks(range(len(budgets)), map(str, budgets))
            finish(axis, "epochs spent on the target", title=f"{database}: {title}")
    figure.suptitle(f"{_cells(table)}; bars: standard error of the mean over them", fontsize=TITLE)
    legend_below(figure)
    return figure


def _cells(table: pd.DataFrame) -> str:
    """The number of cells of each database, in words."""
    counts = dict(zip(table["database"], table["cells"], strict=True))
    return ", ".join(f"{count} cells of {database}" for database, count in counts.items())
