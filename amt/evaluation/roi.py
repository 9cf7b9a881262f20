r"""Epochs that past tasks save in a later project, against those that collecting them took.

A project has come *within* a share of the best after the first epoch from which on the normalized
regret of all that is recommended, up to the budget, is at most that share; after the whole budget
where this is not so. Means are over targets, random orders and draws of sources averaged first.
As the budget stands for projects that take longer, such means are lower bounds, and `reached` says
how many do not count so.

Sources are complete grids here: to collect n of them takes all their configurations and epochs,
n times the mean of a task. After

\[ \mathrm{projects} = \frac{\mathrm{collected}}{\mathrm{epochs\ without} - \mathrm{epochs}} \]

later projects they have paid for themselves; never (inf) where they save nothing. Where costs are
known, the same is said of cost.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from amt import databases
from amt.curves import LearningCurves
from amt.evaluation.figures import TICK, TITLE, WIDTH, finish, styles, title_of
from amt.evaluation.output import write_output
from amt.evaluation.runs import Job, output_folder, run_jobs
from amt.evaluation.statistics import label_of, mean_and_standard_error, methods_of
from amt.tuners.checks import check_positive

WITHIN = (0.01, 0.05)
"""Normalized regrets that are near enough to the best."""


def epochs_within(results: pd.DataFrame, curves: LearningCurves, within: float) -> pd.DataFrame:
    """One row a target: `epochs` to come within a share of the best, whether `reached`, and `cost`.

    Args:
        results: rows of `amt.evaluation.rows`, of one tuner.
        curves: of all tasks, with the costs that are spent; `cost` is NaN where they have none.
        within: normalized regret.
    """
    ordered = results.sort_values(["target", "split", "repeat", "seed", "order", "query"])
    budget = int(ordered["query"].max())  # pyright: ignore
    names, *columns = (
        ordered[name].to_numpy().reshape(-1, budget)
        for name in ("target", "normalized_regret", "config", "epoch", "score")
    )
    regret, config, epoch, score = columns
    # NaN is not within anything.
    left = np.where(regret <= within, 0, np.arange(1, budget + 1)).max(1)
    reached, epochs = left < budget, np.minimum(left + 1, budget)
    spent = np.full(len(epochs), np.nan)
    if curves.cost is not None:
        task = np.array([curves.tasks.index(name) for name in names[:, 0]])
        cost = curves.cost[task[:, None], config, np.searchsorted(curves.epochs, epoch)]
        cost = np.nancumsum(np.where(np.isnan(score), 0.0, cost), axis=1)
        spent = cost[np.arange(len(epochs)), epochs - 1]
    each: Any = pd.DataFrame(
        {"target": names[:, 0], "epochs": epochs, "reached": reached, "cost": spent}
    )
    return each.groupby("target").mean()


def roi_table(
    results: Mapping[int, pd.DataFrame], without: pd.DataFrame, curves: LearningCurves
) -> pd.DataFrame:
    """One row a share of regret, tuner and number of sources, 0 of tuners that know none.

    Columns are `within`, `method`, `sources`, `epochs` with their standard error over targets
    (`error`), the share of projects that `reached` it, `collected` epochs of the sources, and
    against each tuner without sources the epochs `saved` in a project and the `projects` until the
    sources have paid for themselves (`saved_random_search`, `projects_random_search`). Where the
    curves have costs, `cost`, `collected_cost` and `projects_by_cost` of each are the same of them.

    Args:
        results: rows of `amt.evaluation.rows`, by the number of sources.
        without: those of tuners without sources.
    """
    of_task = np.isfinite(curves.scores).sum() / curves.num_tasks
    cost_of_task = None if curves.cost is None else np.nansum(curves.cost) / curves.num_tasks
    rows = []
    for within in WITHIN:
        of_within = []
        for count, frame in {0: without, **results}.items():
            for method in methods_of(frame):
                of_method: Any = frame[frame["method"] == method]
                each = epochs_within(of_method, curves, within)
                epochs, error = mean_and_standard_error(each["epochs"].to_numpy())
                row = {"within": within, "method": method, "sources": count}
                row |= {"epochs": float(epochs), "error": float(error)}
                row |= {"reached": each["reached"].mean(), "collected": count * of_task}
                if cost_of_task is not None:
                    row |= {"cost": each["cost"].mean(), "collected_cost": count * cost_of_task}
                of_within.append(row)
        references = {row["method"]: row for row in of_within if row["sources"] == 0}
        for row in of_within:
            for name, reference in references.items():
                if row["sources"] > 0:
                    row[f"saved_{name}"] = saved = reference["epochs"] - row["epochs"]
                    row[f"projects_{name}"] = _projects(row["collected"], saved)
                if row["sources"] > 0 and cost_of_task is not None:
                    row[f"projects_by_cost_{name}"] = _projects(
                        row["collected_cost"], reference["cost"] - row["cost"]
                    )
        rows += of_within
    return pd.DataFrame(rows)


def _projects(collected: float, saved: float) -> float:
    return collected / saved if saved > 0 else np.inf


def roi_figure(table: pd.DataFrame, title: str) -> Figure:
    """Epochs of a project against the number of sources, and all epochs against later projects.

    Below, a line starts at the epochs of collecting the sources; where it crosses that of a tuner
    without sources, they have paid for themselves.
    """
    shares = table["within"].unique()
    figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
    grid = figure.subplots(2, len(shares), squeeze=False)
    projects = np.geomspace(1, 1e4, 100)
    for within, (above, below) in zip(shares, grid.T, strict=True):
        rows: Any = table[table["within"] == within]
        with_sources, without = rows[rows["sources"] > 0], rows[rows["sources"] == 0]
        methods = [*methods_of(with_sources), *methods_of(without)]
        for method, (color, line) in zip(methods, styles(len(methods)), strict=True):
            of_method: Any = rows[rows["method"] == method]
            look = {"color": color, "linestyle": line, "lw": 1.4, "label": label_of(method)}
            if of_method["sources"].iloc[0] == 0:
                above.axhline(of_method["epochs"].iloc[0], **look)
            else:
                bars = of_method["sources"], of_method["epochs"], of_method["error"]
                above.errorbar(*bars, capsize=2, marker="o", markersize=3, **look)
        lines: Any = pd.concat([without, with_sources[with_sources["method"] == methods[0]]])
        for (_, row), (color, line) in zip(lines.iterrows(), styles(len(lines)), strict=True):
            count = f"{row['sources']} source{'s' * (row['sources'] > 1)}"
            label = label_of(row["method"]) if row["sources"] == 0 else count
            total = row["collected"] + projects * row["epochs"]
            below.plot(projects, total, color=color, linestyle=line, lw=1.2, label=label)
        above.set_xscale("log", base=2)
        above.set_xticks(counts := sorted(set(with_sources["sources"])), map(str, counts))
        above.set_ylim(0, None)
        below.set(xscale="log", yscale="log")
        title_above = f"within {within:.0%} of the best"
        finish(above, "past tasks", "epochs of a project", title=title_above)
        finish(below, "later projects", "epochs, the sources' included")
        for axis in (above, below):
            axis.legend(fontsize=TICK - 1, frameon=False)
    figure.suptitle(f"{title}; bars: standard error of the mean over targets", fontsize=TITLE)
    return figure


def roi_jobs(settings: Mapping[str, Any]) -> dict[int, Job]:
    """The runs of a database, by the number of sources; 0 is that of tuners that know none.

    Numbers of sources that the database does not have are left out.

    Args:
        settings: of `experiments/conf/roi.yaml`, as plain dicts, lists and values.

    Raises:
        ValueError: a number of sources that cannot be.
    """
    values = dict(settings)
    folder = output_folder(values)
    without, every, counts = (values.pop(name) for name in ("without", "every", "sources"))
    for count in counts:
        if count != "all":
            check_positive("number of sources", count)
    tasks = _curves(settings).num_tasks
    targets, draws, most = range(0, tasks, every), values["draws"], tasks - 1
    whole = values | {"num_sources": None, "draws": 1, "pair": list(targets)}
    jobs = {0: Job(folder / "without", whole | {"tuners": without})}
    for count in counts:
        if count == "all":
            jobs[most] = Job(folder / "sources_all", whole)
        elif count < most:
            # The same targets in each draw.
            pair = [draw * tasks + target for draw in range(draws) for target in targets]
            of_count = values | {"num_sources": count, "pair": pair}
            jobs[count] = Job(folder / f"sources_{count}", of_count)
    return jobs


def roi_output(
    settings: Mapping[str, Any], frames: Mapping[int, pd.DataFrame]
) -> tuple[pd.DataFrame, Figure]:
    """Table and figure of the rows of `roi_jobs`."""
    results = {count: frame for count, frame in frames.items() if count}
    table = roi_table(results, frames[0], _curves(settings))
    title = f"{title_of(settings['database'])}, {frames[0]['target'].nunique()} targets"
    return table, roi_figure(table, title)


def roi_run(
    settings: Mapping[str, Any], progress: Callable[[int, int, str], None]
) -> tuple[Path, pd.DataFrame]:
    """Run tuners with more and more sources on a database, and write table and figure.

    Args:
        settings: as of `roi_jobs`.
        progress: as of `amt.evaluation.runs.run`.

    Returns:
        The folder, and the table.
    """
    table, figure = roi_output(settings, run_jobs(roi_jobs(settings), progress))
    folder = output_folder(dict(settings))
    write_output(folder, "roi", table, figure)
    return folder, table


def _curves(settings: Mapping[str, Any]) -> LearningCurves:
    return databases.load(str(settings["database"]), **settings["database_options"])
