"""Databases of learning curves, by name.

`load(name)` reads "bundled", which comes with the package, or "hyperrec" and "lcbench", which
`scripts/download_databases.py` fetches.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from amt.curves import LearningCurves
from amt.databases import at2
from amt.databases._unpickle import UnsafePickleError
from amt.databases.at2 import hyperrec, lcbench
from amt.databases.bundled import bundled, bundled_pairs

DATABASES: dict[str, Callable[[], LearningCurves]] = {
    "bundled": bundled,
    "hyperrec": hyperrec,
    "lcbench": lcbench,
}


_PAIRS: dict[str, Callable[[], list[tuple[tuple[str, ...], str]]]] = {
    "bundled": bundled_pairs,
    "hyperrec": partial(at2.paper_pairs, "HyperRec"),
    "lcbench": partial(at2.paper_pairs, "LCBench"),
}


def load(name: str) -> LearningCurves:
    """The learning curves of the database `name`.

    Raises:
        KeyError: no such database; the message lists those there are.
        FileNotFoundError: its files are not on this machine; the message says how to get them.
    """
    return _find(name, DATABASES)()


def paper_pairs(name: str) -> list[tuple[tuple[str, ...], str]]:
    """Five (source tasks, target task) pairs of the database `name`: those of the AT2 paper.

    For "bundled" they are five of the same shape, four sources and one target.

    Raises:
        KeyError, FileNotFoundError: as `load`.
    """
    return _find(name, _PAIRS)()


def _find(name: str, known: dict[str, Callable[[], Any]]) -> Callable[[], Any]:
    if name not in known:
        raise KeyError(f"no database {name!r}; there are {', '.join(known)}")
    return known[name]


__all__ = [
    "DATABASES",
    "UnsafePickleError",
    "bundled",
    "hyperrec",
    "lcbench",
    "load",
    "paper_pairs",
]
