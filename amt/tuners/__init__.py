"""Tuners to compare, by name.

`TUNERS[name]` is a tuner's record (`amt.tuners.record`). Every module of this package that has a
`RECORD`, or several `RECORDS`, is found. A module of your own adds one by
`register(Record(...))`: name the module under `plugins` of an experiment, and the tuner under
`tuners`.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import walk_packages
from types import MappingProxyType

from amt.search.replay import Decision, Feedback, Prediction
from amt.tuners.record import (
    Host,
    HostProblem,
    HostTuner,
    Prepared,
    Problem,
    Pure,
    Record,
    RunStage,
)

_registered: dict[str, Record] = {}

TUNERS: Mapping[str, Record] = MappingProxyType(_registered)
"""The tuners that are registered, by name, in the order of tables and figures."""


def register(record: Record) -> Record:
    """Make a tuner known by its name, in place of an earlier one of its module.

    Raises:
        ValueError: another module has registered that name.
    """
    known = TUNERS.get(record.name)
    if known is not None and known.make.__module__ != record.make.__module__:
        raise ValueError(f"{known.make.__module__} has a tuner {record.name!r} already")
    _registered[record.name] = record
    return record


_FIRST = (
    "amt",
    "task_regression",
    "best_list",
    "source_best",
    "one_epoch_each",
    "random_search",
)


def _records() -> Iterator[Record]:
    """The records of all modules of this package, in the order of their names."""
    for found in walk_packages(__path__, f"{__name__}."):
        module = import_module(found.name)
        yield from getattr(module, "RECORDS", ())
        if hasattr(module, "RECORD"):
            yield module.RECORD


for _record in sorted(_records(), key=lambda r: [r.name != name for name in _FIRST]):
    register(_record)

__all__ = [
    "TUNERS",
    "Decision",
    "Feedback",
    "Host",
    "HostProblem",
    "HostTuner",
    "Prediction",
    "Prepared",
    "Problem",
    "Pure",
    "Record",
    "RunStage",
    "register",
]
