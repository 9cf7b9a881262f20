"""Databases of learning curves, by name.

`load(name)` reads "bundled", which comes with the package, "hyperrec" and "lcbench", which
`scripts/download_databases.py` fetches, or a CSV or Parquet file of your own (`long_form`), which
`python -m amt.databases check FILE` examines.
"""

from collections.abc import Callable
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from amt.curves import LearningCurves
from amt.databases import published
from amt.databases._unpickle import UnsafePickleError
from amt.databases.bundled import bundled, bundled_pairs
from amt.databases.long_form import SUFFIXES, read_curves
from amt.databases.published import hyperrec, lcbench

DATABASES: dict[str, Callable[[], LearningCurves]] = {
    "bundled": bundled,
    "hyperrec": hyperrec,
    "lcbench": lcbench,
}


_PAIRS: dict[str, Callable[[], list[tuple[tuple[str, ...], str]]]] = {
    "bundled": bundled_pairs,
    "hyperrec": partial(published.paper_pairs, "HyperRec"),
    "lcbench": partial(published.paper_pairs, "LCBench"),
}


def load(name: str | PathLike[str], **options: Any) -> LearningCurves:
    """The learning curves of the database `name`, or of a `.csv` or `.parquet` file.

    Args:
        name: a name in `DATABASES`, or the path of a file.
        options: of `long_form.examine` for a file, else of the database's function.

    Raises:
        KeyError: no such database; the message lists those there are.
        FileNotFoundError: its files are not on this machine; the message says how to get them.
        ValueError: there are faults in a file; the message names the rows.
    """
    if Path(name).suffix.lower() in SUFFIXES:
        return read_curves(name, **options)
    return _find(fspath(name), DATABASES)(**options)


def paper_pairs(name: str) -> list[tuple[tuple[str, ...], str]]:
    """Five (source tasks, target task) pairs of the database `name`: those of the AT2 paper.

    For "bundled" they are five of the same shape, four sources and one target.

    Raises:
        KeyError, FileNotFoundError: as `load`; a file of your own has no such pairs.
    """
    if Path(name).suffix.lower() in SUFFIXES:
        raise KeyError(f"{name} has no published pairs: split it by leave_one_out")
    return _find(name, _PAIRS)()


def _find(name: str, known: dict[str, Callable[[], Any]]) -> Callable[[], Any]:
    if name not in known:
        files = f"files that end in {', '.join(SUFFIXES)}"
        raise KeyError(f"no database {name!r}; there are {', '.join(known)} and {files}")
    return known[name]


__all__ = [
    "DATABASES",
    "UnsafePickleError",
    "bundled",
    "hyperrec",
    "lcbench",
    "load",
    "paper_pairs",
    "read_curves",
]
