"""Findings about a file, which name the rows that they concern."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
from jaxtyping import Bool, Int

if TYPE_CHECKING:
    import pandas as pd

LIMIT = 20
"""Rows that are printed of a kind of finding."""


class Lines(Sequence[str]):
    """The lines of a finding, each made when it is asked for: there can be millions of them.

    Args:
        positions: what the lines are about.
        line: makes a line of a position.
    """

    def __init__(self, positions: Int[np.ndarray, "line"], line: Callable[[int], str]):
        self._positions, self._line = positions, line

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Lines": ...
    def __getitem__(self, index: int | slice) -> "str | Lines":
        if isinstance(index, slice):
            return Lines(self._positions[index], self._line)
        return self._line(int(self._positions[index]))


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
    starts = np.flatnonzero(np.diff(rows, prepend=rows[:1] - 2) > 1)
    ends = np.append(starts[1:], len(rows)) - 1
    runs = zip(rows[starts[:LIMIT]].tolist(), rows[ends[:LIMIT]].tolist(), strict=True)
    texts = [f"{first}-{last}" if last > first else f"{first}" for first, last in runs]
    more = f" and {len(starts) - LIMIT} more ranges" if len(starts) > LIMIT else ""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(texts)}{more}"


def name_rows(
    what: str,
    table: "pd.DataFrame",
    bad: Bool[np.ndarray, "row"],
    detail: Callable[[int], str] = lambda position: "",
) -> list[Finding]:
    """A finding that names the bad rows, if there are any, with a detail for each position."""
    positions = np.flatnonzero(bad)

    def line(i: int) -> str:
        task, config, epoch = (table[c].iloc[i] for c in ("task", "config", "epoch"))
        where = f"task {task!r}, configuration {config!r}, epoch {epoch}"
        return f"row {table.index[i]}: {where}{detail(i)}"

    return [Finding(what, Lines(positions, line))] if len(positions) else []
