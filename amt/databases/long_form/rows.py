"""Checks the rows of a table: numbers that are none, and scores that come twice."""

import re
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from amt.databases.long_form.columns import combine, factorize, keep, numbers_of, recode
from amt.databases.long_form.findings import Finding, name_ranges, name_rows

if TYPE_CHECKING:
    import pandas as pd

_WHOLE = re.compile("-?(0|[1-9][0-9]*)")
_WHOLE_AS_REAL = re.compile(r"-?(0|[1-9][0-9]*)\.0*")
_LARGEST = 1e100  # beyond it, squares overflow
_ROUNDING = 1e-6  # of epochs in their unit


def check_rows(
    table: "pd.DataFrame", first_epoch: int = 1, epoch_unit: float = 1.0, nan: str = "diverged"
) -> tuple["pd.DataFrame", list[Finding], list[Finding]]:
    """Rows that have no fault in themselves, with numbers in place of texts, faults and notes.

    A score that diverges becomes infinite, one that is empty NaN. Rows that have neither a score
    nor an epoch are left out.

    Args:
        first_epoch, epoch_unit, nan: as in `examine`.
    """
    faults = []
    score, empty, not_a_number = numbers_of(table["score"])
    epoch, nowhen, _ = numbers_of(table["epoch"])
    neither = empty & nowhen
    notes = []
    if neither.any():
        rows = [name_ranges(table.index[neither])]
        notes.append(Finding(f"{neither.sum()} rows without epoch and score are left out", rows))
    wrong = neither.copy()

    def refuse(what: str, bad: Bool[np.ndarray, "row"], column: str) -> None:
        texts = table[column]
        shown = column in ("task", "config", "epoch")
        faults.extend(
            name_rows(what, table, bad, lambda i: "" if shown else f", {column} {texts.iloc[i]!r}")
        )
        wrong[bad] = True

    for name in ("task", "config", "seed"):
        if name in table:
            refuse(f"rows without a {name}", (table[name] == "").to_numpy(bool) & ~neither, name)
    with np.errstate(invalid="ignore"):
        epoch = epoch / epoch_unit + (1 - first_epoch)
        rounded = np.round(epoch)
        whole = np.abs(epoch - rounded) <= (_ROUNDING if epoch_unit != 1 else 0)
        whole &= (rounded >= 1) & (epoch < 2**53)
        bad = ~whole & ~neither
        what = "epochs that are not whole numbers from 1"
        if bad.any() and ((first := epoch[bad]) == 0).any() and not (first < 0).any():
            what += " (first_epoch=0, --first-epoch 0, where they count from 0)"
        elif (bad & (epoch > 0) & (epoch != rounded) & np.isfinite(epoch)).any():
            what += " (epoch_unit=0.5, say, --epoch-unit, where they are multiples of that)"
    refuse(what, bad, "epoch")
    refuse("scores that are not numbers", np.isnan(score) & ~empty & ~not_a_number, "score")
    diverges = ~empty & ~(np.abs(score) <= _LARGEST)
    score[diverges & ~(not_a_number & (nan == "missing"))] = np.inf
    numbers = {"epoch": np.where(whole, rounded, 0).astype(int), "score": score}
    if "cost" in table:
        cost, nothing, _ = numbers_of(table["cost"])
        with np.errstate(invalid="ignore"):
            bad = (np.isnan(cost) & ~nothing) | np.isinf(cost) | (cost < 0)
        refuse("costs that are negative or not finite numbers", bad & ~neither, "cost")
        numbers["cost"] = cost
    return keep(table.assign(**numbers), ~wrong), faults, notes


def merge_numbers(table: "pd.DataFrame") -> tuple["pd.DataFrame", list[Finding]]:
    """One text for each whole number that names a task, configuration or seed, and notes on them.

    A library that reads 3 as a real number writes 3.0: that is no other task.
    """
    notes = []
    for name in ("task", "config", "seed"):
        if name not in table:
            continue
        unique = factorize(table[name])[1]
        wholes = {text for text in unique if _WHOLE.fullmatch(text)}
        same = {
            text: text.partition(".")[0]
            for text in unique
            if _WHOLE_AS_REAL.fullmatch(text) and text.partition(".")[0] in wholes
        }
        if same:
            texts = [same.get(text, text) for text in list(table[name].cat.categories)]
            table = table.assign(**{name: recode(table[name], texts)})
            lines = [f"{text!r} as {whole!r}" for text, whole in same.items()]
            notes.append(Finding(f"{name}s are read as the whole numbers that they are", lines))
    return table, notes


def check_duplicates(table: "pd.DataFrame") -> tuple["pd.DataFrame", list[Finding]]:
    """One row for each task, configuration, epoch and seed, and a fault for others with a score.

    It is the first one with a score, if there is any: rows without one conflict with nothing.
    """
    import pandas as pd

    names = [c for c in ("task", "config", "seed") if c in table]
    cell = pd.Series(combine([*(table[c] for c in names), table["epoch"]]))
    if not cell.duplicated().any():
        return table, []
    scored = table["score"].notna().to_numpy()
    order = np.argsort(~scored, kind="stable")
    again = np.zeros(len(table), bool)
    again[order] = cell.iloc[order].duplicated()
    first = np.zeros(int(cell.max()) + 1, int)
    kept = np.flatnonzero(~again)
    first[cell.to_numpy()[kept]] = kept
    seeds = "" if "seed" in table else " (runs of several seeds need a column seed)"
    key = ["task", "config", "epoch", *names[2:]]
    what = f"rows are of the {key[0]}, {', '.join(key[1:])} of another{seeds}"
    faults = name_rows(
        what, table, again & scored, lambda i: f": as row {table.index[first[cell.iloc[i]]]}"
    )
    return keep(table, ~again), faults
