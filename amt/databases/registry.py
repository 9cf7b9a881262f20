"""The databases by name, those that come with amt and those that a user registers.

A database is a function that returns `LearningCurves`. It is registered once, from any module:

```python
from amt import databases


def curves() -> LearningCurves: ...


databases.register(databases.Database("mine", curves, title="My networks"))
databases.load("mine")
```

From then on `databases.load` and the experiments that run in that process know its name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from os import PathLike, fspath
from types import MappingProxyType
from typing import Any

from amt.curves import LearningCurves
from amt.databases import published
from amt.databases.bundled import bundled, bundled_pairs
from amt.databases.long_form import SUFFIXES, is_table, read_curves

Pair = tuple[tuple[str, ...], str]


@dataclass(frozen=True)
class Database:
    """Learning curves under a name.

    Attributes:
        name: how it is asked for.
        load: returns the learning curves; its options are those of `amt.databases.load`.
        pairs: returns the (source tasks, target task) pairs that experiments are made of; None if
            there are none but each task with all others as its sources.
        title: how tables and figures call it; by default as `name`.
    """

    name: str
    load: Callable[..., LearningCurves]
    pairs: Callable[[], list[Pair]] | None = None
    title: str = ""

    def __post_init__(self):
        if not self.title:
            object.__setattr__(self, "title", self.name)


_registered: dict[str, Database] = {}

DATABASES: Mapping[str, Database] = MappingProxyType(_registered)
"""The databases that are registered, by name."""


def register(database: Database) -> None:
    """Make a database known by its name, in place of an earlier one of that name.

    Raises:
        ValueError: the name ends as that of a data file does.
    """
    if is_table(database.name):
        raise ValueError(f"a database must not be called {database.name!r}: that is a file's name")
    _registered[database.name] = database


def load(name: str | PathLike[str], **options: Any) -> LearningCurves:
    """The learning curves of the database `name`, or of a file (`long_form`).

    Args:
        name: a name in `DATABASES`, or the path of a file.
        options: of `long_form.examine` for a file, else of the database's function.

    Raises:
        KeyError: no such database; the message lists those there are.
        FileNotFoundError: its files are not on this machine; the message says how to get them.
        ValueError: there are faults in a file; the message names the rows.
    """
    if is_table(name):
        return read_curves(name, **options)
    return _find(fspath(name)).load(**options)


def paper_pairs(name: str) -> list[Pair]:
    """The published (source tasks, target task) pairs of the database `name`.

    "hyperrec" and "lcbench" have the five of the AT2 paper, "bundled" five of the same shape, four
    sources and one target.

    Raises:
        KeyError: no such database, or it has no such pairs, as a file of your own has none.
        FileNotFoundError: as `load`.
    """
    pairs = None if is_table(name) else _find(name).pairs
    if pairs is None:
        raise KeyError(f"{name} has no published pairs: split it by leave_one_out")
    return pairs()


def _find(name: str) -> Database:
    if name not in _registered:
        files = f"files that end in {', '.join(SUFFIXES)}"
        raise KeyError(f"no database {name!r}; there are {', '.join(_registered)} and {files}")
    return _registered[name]


register(Database("bundled", bundled, bundled_pairs))
register(
    Database(
        "hyperrec",
        published.hyperrec,
        partial(published.paper_pairs, "HyperRec"),
        title="HyperRec",
    )
)
register(
    Database(
        "lcbench", published.lcbench, partial(published.paper_pairs, "LCBench"), title="LCBench"
    )
)
