"""Checks the rows of a table: numbers that are none, and scores that come twice."""

import re
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool
from jaxtyping import Float as Real

from amt.databases.long_form.findings import Finding, name_rows

if TYPE_CHECKING:
    import pandas as pd

_WHOLE = re.compile("-?(0|[1-9][0-9]*)")
_WHOLE_AS_REAL = re.compile(r"-?(0|[1-9][0-9]*)\.0*")
_LARGEST = 1e100  # beyond it, squares overflow


def check_rows(table: "pd.DataFrame") -> tuple["pd.DataFrame", list[Finding]]:
    """Rows that have no fault in themselves, with numbers in place of texts, and the faults.

    A score that diverges becomes infinite, one that is empty NaN.
    """
    faults = []
    wrong = np.zeros(len(table), bool)

    def refuse(what: str, bad: Bool[np.ndarray, "row"], column: str) -> None:
        texts = table[column].to_numpy()
        shown = column in ("task", "config", "epoch")
        faults.extend(
            name_rows(what, table, bad, lambda i: "" if shown else f", {column} {texts[i]!r}")
        )
        wrong[bad] = True

    for name in ("task", "config", "seed"):
        if name in table:
            refuse(f"rows without a {name}", (table[name] == "").to_numpy(), name)
    epoch, _ = _numbers(table, "epoch")
    with np.errstate(invalid="ignore"):
        whole = (epoch == np.round(epoch)) & (epoch >= 1) & (epoch < 2**53)
    refuse("epochs that are not whole numbers from 1", ~whole, "epoch")
    score, text = _numbers(table, "score")
    refuse("scores that are not numbers", text, "score")
    empty = (table["score"] == "").to_numpy()
    score[~empty & ~(np.abs(score) <= _LARGEST)] = np.inf
    numbers = {"epoch": np.where(whole, epoch, 0).astype(int), "score": score}
    if "cost" in table:
        cost, text = _numbers(table, "cost")
        bad = text | np.isinf(cost) | (cost < 0) | (table["cost"].str.lower() == "nan").to_numpy()
        refuse("costs that are negative or not finite numbers", bad, "cost")
        numbers["cost"] = cost
    return table.assign(**numbers).loc[~wrong], faults


def _numbers(
    table: "pd.DataFrame", column: str
) -> tuple[Real[np.ndarray, "row"], Bool[np.ndarray, "row"]]:
    """A column's numbers, NaN where a text is none, and where it is neither that nor empty."""
    import pandas as pd

    texts = table[column]
    numbers = np.array(pd.to_numeric(texts, errors="coerce"), np.float64)
    empty_or_nan = texts.str.lower().str.lstrip("+-").isin(["", "nan"]).to_numpy()
    return numbers, np.isnan(numbers) & ~empty_or_nan


def merge_numbers(table: "pd.DataFrame") -> tuple["pd.DataFrame", list[Finding]]:
    """One text for each whole number that names a task, configuration or seed, and notes on them.

    A library that reads 3 as a real number writes 3.0: that is no other task.
    """
    notes = []
    for name in ("task", "config", "seed"):
        if name not in table:
            continue
        unique = table[name].unique().tolist()
        wholes = {text for text in unique if _WHOLE.fullmatch(text)}
        same = {
            text: text.partition(".")[0]
            for text in unique
            if _WHOLE_AS_REAL.fullmatch(text) and text.partition(".")[0] in wholes
        }
        if same:
            table = table.assign(**{name: table[name].replace(same)})
            lines = [f"{text!r} as {whole!r}" for text, whole in same.items()]
            notes.append(Finding(f"{name}s are read as the whole numbers that they are", lines))
    return table, notes


def check_duplicates(table: "pd.DataFrame") -> tuple["pd.DataFrame", list[Finding]]:
    """The first row of each score, and a fault for all others."""
    key = [c for c in ("task", "config", "epoch", "seed") if c in table]
    again = table.duplicated(key).to_numpy()
    first = table.index.to_series().groupby([table[c] for c in key]).transform("first").to_numpy()
    seeds = "" if "seed" in table else " (runs of several seeds need a column seed)"
    what = f"rows are of the {key[0]}, {', '.join(key[1:])} of another{seeds}"
    return table.loc[~again], name_rows(what, table, again, lambda i: f": as row {first[i]}")
