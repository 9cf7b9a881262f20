"""Places the scores of a table on the grid of all tasks, configurations and epochs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from jaxtyping import Float as Real

from amt.databases.long_form.columns import factorize, keep
from amt.databases.long_form.findings import Finding, Lines, name_ranges, name_rows
from amt.databases.spaces import text_order

if TYPE_CHECKING:
    import pandas as pd

_LARGEST_GRID = 2**28  # entries, 2 GiB
_MOSTLY = 0.75  # share of the curves, from which on a metric that gets worse is noted


class Grid(NamedTuple):
    """A metric, and the cost of an epoch if it is known, on a grid; NaN where it is missing."""

    tasks: list[str]
    epochs: Int[np.ndarray, "epoch"]
    metric: Real[np.ndarray, "repeat task config epoch"]
    cost: Real[np.ndarray, "task config epoch"] | None


def make_grid(
    table: "pd.DataFrame", configs: Sequence[str], minimise: bool, diverged: str
) -> tuple[Grid, list[Finding], list[Finding]]:
    """The metric on the grid of all tasks, configurations and epochs, notes and faults.

    Args:
        table: rows without faults (`rows.check_rows`, `rows.check_duplicates`).
        configs: name of each configuration, in the order of the grid.
        minimise, diverged: as in `examine`.
    """
    scored = table["score"].notna().to_numpy()
    notes = name_rows(f"{(~scored).sum()} rows have no score: it is missing", table, ~scored)
    tasks = sorted(factorize(table["task"])[1], key=text_order)
    without = {*tasks} - {*factorize(table["task"][scored])[1]}
    if without:
        return (
            Grid([], np.zeros(0, int), np.empty((0, 0, 0, 0)), None),
            notes,
            [_no_score(table, name) for name in tasks if name in without],
        )
    table = keep(table, np.isin(table["epoch"], table["epoch"].to_numpy()[scored]))
    task, config = _positions(table, "task", tasks), _positions(table, "config", configs)
    epochs, epoch = np.unique(table["epoch"].to_numpy(), return_inverse=True)
    repeat = _repeats(table, task * len(configs) + config)
    repeats = int(repeat.max()) + 1
    shape = len(tasks), len(configs), len(epochs)
    if repeats * np.prod(shape) > _LARGEST_GRID:
        sizes = f"{repeats} repeats, {shape[0]} tasks, {shape[1]} configurations"
        what = f"the grid of {sizes} and {shape[2]} epochs has more than {_LARGEST_GRID} entries"
        return Grid(tasks, epochs, np.empty((0, *shape[:2], 0)), None), [], [Finding(what)]
    metric = np.full((repeats, *shape), np.nan)
    metric[repeat, task, config, epoch] = table["score"]
    cost = _mean_cost(table, (task, config, epoch), shape) if "cost" in table else None

    there = np.any(~np.isnan(metric), axis=(0, 2))
    apart = [t for t in range(len(tasks)) if len(tasks) > 1 and not _shared(there, t)]
    if apart:
        lines = [f"{tasks[t]!r}: {', '.join(map(str, epochs[there[t]][:5]))} ..." for t in apart]
        notes.append(Finding("tasks share no epoch with another task", lines))
    gone = np.logical_or.accumulate(np.isinf(metric), axis=-1)
    after = int((gone & np.isfinite(metric)).sum())
    metric[gone] = np.nan
    faults = [
        _no_score(table, name) for t, name in enumerate(tasks) if np.isnan(metric[:, t]).all()
    ]
    if faults:
        return Grid(tasks, epochs, metric, cost), notes, faults
    if gone.any():
        row = np.zeros(metric.shape, int)
        row[repeat, task, config, epoch] = table.index
        runs = np.argwhere(gone.any(-1))

        def line(i: int) -> str:
            r, t, c = runs[i].tolist()
            e = int(gone[r, t, c].argmax())
            where = f"task {tasks[t]!r}, configuration {configs[c]!r}, repeat {r}"
            return f"row {row[r, t, c, e]}: {where}, from epoch {epochs[e]} on"

        treatment = "missing"
        if diverged == "worst":
            treatment = "the worst score of their task"
            worst = np.nanmax if minimise else np.nanmin
            for t in range(len(tasks)):
                metric[:, t][gone[:, t]] = worst(metric[:, t])
        what = f"{len(runs)} of {(~np.isnan(metric) | gone).any(-1).sum()} runs diverge"
        what += f" and are {treatment} from there on"
        what += f", {after} finite scores included" if after else ""
        notes.append(Finding(what, Lines(np.arange(len(runs)), line)))
    return (
        Grid(tasks, epochs, metric, cost),
        [*notes, *_notes(metric, tasks, configs, minimise)],
        [],
    )


def _no_score(table: "pd.DataFrame", task: str) -> Finding:
    rows = name_ranges(table.index[(table["task"] == task).to_numpy(bool)])
    return Finding(f"task {task!r} has no finite score", [rows])


def _shared(there: Bool[np.ndarray, "task epoch"], task: int) -> bool:
    """Whether a task has an epoch that another has too."""
    return bool((there[task] & np.delete(there, task, axis=0).any(0)).any())


def _repeats(table: "pd.DataFrame", curve: Int[np.ndarray, "row"]) -> Int[np.ndarray, "row"]:
    """The rank of each row's seed among those of its curve, which is a task and configuration."""
    if "seed" not in table:
        return np.zeros(len(table), int)
    seeds = sorted(factorize(table["seed"])[1], key=text_order)
    runs, run = np.unique(
        curve * len(seeds) + _positions(table, "seed", seeds), return_inverse=True
    )
    curves = runs // len(seeds)
    return (np.arange(len(runs)) - np.searchsorted(curves, curves))[run]


def _mean_cost(
    table: "pd.DataFrame", place: tuple[np.ndarray, ...], shape: tuple[int, int, int]
) -> Real[np.ndarray, "task config epoch"] | None:
    """The mean over seeds of the costs that are known; None if none is."""
    known = table["cost"].notna().to_numpy()
    if not known.any():
        return None
    place = tuple(axis[known] for axis in place)
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, place, table["cost"].to_numpy()[known])
    np.add.at(count, place, 1)
    return np.where(count, total, np.nan) / np.maximum(count, 1)


def _positions(table: "pd.DataFrame", column: str, names: Sequence[str]) -> Int[np.ndarray, "row"]:
    """The position among the names of each row's entry in a column."""
    import pandas as pd

    codes, texts = factorize(table[column])
    return pd.Index(names).get_indexer(texts)[codes]


def _notes(
    metric: Real[np.ndarray, "repeat task config epoch"],
    tasks: Sequence[str],
    configs: Sequence[str],
    minimise: bool,
) -> list[Finding]:
    """Notes on what is missing, and on a metric that gets worse along most curves."""
    notes = []
    measured = ~np.isnan(metric)
    never = np.flatnonzero(~measured.any((0, 1, 3))).tolist()
    if never:
        names = [repr(configs[c]) for c in never]
        notes.append(Finding("configurations have no score on any task", names))
    if len(metric[0]) > 1:
        flat = np.nanmax(metric, (0, 2, 3)) == np.nanmin(metric, (0, 2, 3))
        lines = [repr(tasks[t]) for t in np.flatnonzero(flat).tolist()]
        if lines and not flat.all():
            notes.append(
                Finding("tasks have the same metric everywhere, which tells nothing", lines)
            )
    later = np.logical_or.accumulate(measured[..., ::-1], axis=-1)[..., ::-1]
    gaps = (later & ~measured).any(-1).sum()
    if gaps:
        notes.append(Finding(f"{gaps} curves lack epochs before their last, which are missing"))
    same = np.nanmax(metric) == np.nanmin(metric)
    if same:
        notes.append(Finding(f"the metric is {np.nanmax(metric):g} everywhere: it tells nothing"))
    first = np.take_along_axis(metric, measured.argmax(-1)[..., None], -1)
    last = np.take_along_axis(
        metric, metric.shape[-1] - 1 - measured[..., ::-1].argmax(-1)[..., None], -1
    )
    change = (last - first)[measured.sum(-1) > 1]
    worse = change > 0 if minimise else change < 0
    if worse.size and worse.mean() > _MOSTLY:
        advice = "leave out minimise if larger" if minimise else "set minimise if smaller"
        what = f"the metric gets worse along {worse.mean():.0%} of the curves: {advice} is better"
        notes.append(Finding(what))
    return notes
