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
from amt.evaluation.figures import TITLE, WIDTH, finish, legend_below, styles, title_of
from amt.evaluation.output import write_output
from amt.evaluation.runs import Job, output_folder, run_jobs
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
    figure = Figure(figsize=(WIDTH, 0.8 + 1.7 * len(kinds)), layout="constrained")
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
            axis.set_ylim(0, None)
            xlabel = "share of bad sources" if kind == kinds[-1] else ""
            ylabel = "normalized regret (%)" if axis is axes[0] else ""
            finish(axis, xlabel, ylabel, title=f"{kind}, {budget} epochs")
    figure.suptitle(f"{title}; bars: standard error of the mean over targets", fontsize=TITLE)
    legend_below(figure)
    return figure


def transfer_jobs(settings: Mapping[str, Any]) -> dict[tuple[str, float] | None, Job]:
    """The runs of a database, by kind and share of bad sources; None is that of good ones alone.

    Args:
        settings: of `experiments/conf/negative_transfer.yaml`, as plain dicts, lists and values.
    """
    values = dict(settings)
    folder = output_folder(values)
    without, every = values.pop("without"), values.pop("every")
    kinds, shares = values.pop("kinds"), values.pop("shares")
    tasks = databases.load(str(values["database"]), **values["database_options"]).num_tasks
    values["pair"] = list(range(0, tasks, every))
    good = values | {"tuners": [*without, *values["tuners"]]}
    jobs: dict[tuple[str, float] | None, Job] = {None: Job(folder / "good", good)}
    for kind in kinds:
        for share in shares:
            if share > 0:
                bad = values | {"bad_sources": {"kind": kind, "share": share}}
                jobs[kind, share] = Job(folder / f"{kind}_{share:g}", bad)
    return jobs


def transfer_output(
    settings: Mapping[str, Any], frames: Mapping[tuple[str, float] | None, pd.DataFrame]
) -> tuple[pd.DataFrame, Figure]:
    """Table and figure of the rows of `transfer_jobs`."""
    good: Any = frames[None]
    of_none = good["method"].isin(settings["without"])
    # No source is bad, whatever the kind.
    results = {
        (kind, share): frames[kind, share] if share else good[~of_none]
        for kind in settings["kinds"]
        for share in settings["shares"]
    }
    table = transfer_table(results, good[of_none])
    title = f"{title_of(settings['database'])}, {good['target'].nunique()} targets"
    return table, transfer_figure(table, title)


def transfer_run(
    settings: Mapping[str, Any], progress: Callable[[int, int, str], None]
) -> tuple[Path, pd.DataFrame]:
    """Run tuners with bad sources on a database, and write table and figure.

    Args:
        settings: as of `transfer_jobs`.
        progress: as of `amt.evaluation.runs.run`.

    Returns:
        The folder, and the table.
    """
    table, figure = transfer_output(settings, run_jobs(transfer_jobs(settings), progress))
    folder = output_folder(dict(settings))
    write_output(folder, "negative_transfer", table, figure)
    return folder, table
