"""Databases of learning curves, by name.

`load(name)` reads "bundled", which comes with the package, or "hyperrec" and "lcbench", which
`scripts/download_databases.py` fetches.
"""

from collections.abc import Callable

from amt.curves import LearningCurves
from amt.databases._unpickle import UnsafePickleError
from amt.databases.at2 import hyperrec, lcbench, paper_pairs
from amt.databases.bundled import bundled

DATABASES: dict[str, Callable[[], LearningCurves]] = {
    "bundled": bundled,
    "hyperrec": hyperrec,
    "lcbench": lcbench,
}


def load(name: str) -> LearningCurves:
    """The learning curves of the database `name`.

    Raises:
        KeyError: no such database; the message lists those there are.
        FileNotFoundError: its files are not on this machine; the message says how to get them.
    """
    if name not in DATABASES:
        raise KeyError(f"no database {name!r}; there are {', '.join(DATABASES)}")
    return DATABASES[name]()


__all__ = [
    "DATABASES",
    "UnsafePickleError",
    "bundled",
    "hyperrec",
    "lcbench",
    "load",
    "paper_pairs",
]
