"""Findings about a file, which name the rows that they concern."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool

if TYPE_CHECKING:
    import pandas as pd

LIMIT = 20
"""Rows that are printed of a kind of finding."""


class Finding(NamedTuple):
    """A fault of a file or a note on it, and the rows, configurations or columns concerned."""

    what: str
    where: Sequence[str] = ()

    def lines(self, limit: int = LIMIT) -> list[str]:
        """The lines to print: `what`, at most `limit` of `where`, and how many more there are."""
        more = len(self.where) - limit
        shown = [f"  {line}" for line in self.where[:limit]]
        return [self.what, *shown, *([f"  and {more} more"] if more > 0 else [])]


def name_ranges(rows: Iterable[int]) -> str:
    """Row numbers as a text such as `rows 2-76, 80`."""
    rows = np.unique(np.fromiter(rows, int))
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    texts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    more = f" and {len(texts) - LIMIT} more ranges" if len(texts) > LIMIT else ""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(texts[:LIMIT])}{more}"


def name_rows(
    what: str,
    table: "pd.DataFrame",
    bad: Bool[np.ndarray, "row"],
    detail: Callable[[int], str] = lambda position: "",
) -> list[Finding]:
    """A finding that names the bad rows, if there are any, with a detail for each position."""
    columns = [table[c].to_numpy() for c in ("task", "config", "epoch")]
    lines = []
    for i in np.flatnonzero(bad).tolist():
        task, config, epoch = (column[i] for column in columns)
        where = f"task {task!r}, configuration {config!r}, epoch {epoch}"
        lines.append(f"row {table.index[i]}: {where}{detail(i)}")
    return [Finding(what, lines)] if lines else []
