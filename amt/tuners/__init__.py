"""Tuners to compare, by name.

`TUNERS[name]` is a tuner's record (`amt.tuners.record`). A module of your own adds one by
`register(Record(...))`: name the module under `plugins` of an experiment, and the tuner under
`tuners`.
"""

from collections.abc import Mapping
from types import MappingProxyType

from amt.search.simulate import Decision, Feedback, Prediction
from amt.tuners import (
    amt,
    best_list,
    one_epoch_each,
    random_search,
    source_best,
    task_regression,
)
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


for _module in (amt, task_regression, best_list, source_best, one_epoch_each, random_search):
    register(_module.RECORD)

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
