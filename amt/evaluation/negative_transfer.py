"""Negative transfer: regret against the share of sources that are bad (`bad_sources`).

The bad sources of a target are the same for all tuners, and those of a share are among those of a
larger share. Tuners without sources are run once, to show where transfer does harm.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from amt import databases
from amt.evaluation.figures import styles, title_of
from amt.evaluation.output import write_output
from amt.evaluation.runs import run
from amt.evaluation.statistics import BUDGETS, label_of, methods_of, shown_budgets, summarize


def transfer_table(
    results: Mapping[tuple[str, float], pd.DataFrame],
    without: pd.DataFrame,
    *,
    budgets: Sequence[int] = BUDGETS,
) -> pd.DataFrame:
    """One row a kind of bad sources, tuner and share, which tuners without sources have none of.

    Columns are `kind`, `method`, `share`, and the mean over targets of normalized regret after some
    epochs and its standard error, in percent (`regret_10`, `regret_10_error`, ...).

    Args:
        results: rows of `amt.evaluation.rows`, by kind and share.
        without: those of tuners without sources.
    """
    shown = shown_budgets(set(without["query"]), budgets)
    frames: list[tuple[str, float, pd.DataFrame]] = [
        (kind, share, frame) for (kind, share), frame in results.items()
    ]
    frames += [(kind, float("nan"), without) for kind in dict.fromkeys(kind for kind, _ in results)]
    rows = []
    for kind, share, frame in frames:
        summary = summarize(frame).set_index(["method", "query"])
        for method in methods_of(frame):
            row = {"kind": kind, "method": method, "share": share}
            for budget in shown:
                at: Any = summary.loc[(method, budget)]
                row[f"regret_{budget}"] = 100 * at["normalized_regret"]
                row[f"regret_{budget}_error"] = 100 * at["normalized_regret_error"]
            rows.append(row)
    table: Any = pd.DataFrame(rows)
    return table.sort_values(["kind", "method", "share"], ignore_index=True)


def transfer_figure(table: pd.DataFrame, title: str) -> Figure:
    """Regret against the share of bad sources, a row of panels for each kind, one for each budget.

    Tuners without sources are level lines.
    """
    budgets = [c.split("_")[1] for c in table if str(c).startswith("regret") and c.count("_") == 1]
    kinds, methods = table["kind"].unique(), methods_of(table)
    size = 1.0 + 1.6 * len(budgets), 0.9 + 1.8 * len(kinds)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(kinds), len(budgets), squeeze=False, sharey="row")
    for kind, axes in zip(kinds, grid, strict=True):
        for budget, axis in zip(budgets, axes, strict=True):
            for method, (color, line) in zip(methods, styles(len(methods)), strict=True):
                rows: Any = table[(table["kind"] == kind) & (table["method"] == method)]
                look = {"color": color, "linestyle": line, "lw": 1.4, "label": label_of(method)}
                regret = rows[f"regret_{budget}"]
                if rows["share"].isna().all():
                    axis.axhline(regret.iloc[0], **look)
                    continue
                error = rows[f"regret_{budget}_error"]
                axis.errorbar(rows["share"], regret, error, capsize=1.5, elinewidth=0.7, **look)
            axis.set_title(f"{kind}, {budget} epochs", fontsize=8)
            axis.set_ylim(0, None)
            axis.tick_params(labelsize=7)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].set_ylabel("normalized regret (%)", fontsize=8)
    for axis in grid[-1]:
        axis.set_xlabel("share of bad sources", fontsize=8)
    figure.suptitle(f"{title}; bars: standard error of the mean over targets", fontsize=8)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=7)
    return figure


def transfer_run(
    settings: Mapping[str, Any], progress: Callable[[int, int, str], None]
) -> tuple[Path, pd.DataFrame]:
    """Run tuners with bad sources on a database, and write table and figure.

    Args:
        settings: of `experiments/conf/negative_transfer.yaml`, as plain dicts, lists and values.
        progress: as of `amt.evaluation.runs.run`.

    Returns:
        The folder, and the table.
    """
    values = dict(settings)
    database = str(values["database"])
    folder = Path(values.pop("output")).resolve() / Path(database).stem
    without, every = values.pop("without"), values.pop("every")
    kinds, shares = values.pop("kinds"), values.pop("shares")
    values.pop("log_x")
    tasks = databases.load(database, **values["database_options"]).num_tasks
    values["pair"] = list(range(0, tasks, every))

    def frame(name: str, **others: Any) -> pd.DataFrame:
        return run(
            values | others,
            folder / name,
            lambda number, total, stage: progress(number, total, f"{name}, {stage}"),
        ).frame

    # No source is bad, whatever the kind.
    good: Any = frame("good", tuners=[*without, *values["tuners"]])
    of_sources = good[~good["method"].isin(without)]
    results = {
        (kind, share): of_sources
        if share == 0
        else frame(f"{kind}_{share:g}", bad_sources={"kind": kind, "share": share})
        for kind in kinds
        for share in shares
    }
    table = transfer_table(results, good[good["method"].isin(without)])
    title = f"{title_of(database)}, {len(values['pair'])} targets"
    write_output(folder, "negative_transfer", table, transfer_figure(table, title))
    return folder, table
