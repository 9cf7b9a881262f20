"""Rows in long form, and how a file of them is read."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ConfigSpace import Categorical, ConfigurationSpace, EqualsCondition, Float, Integer

from amt.curves import LearningCurves
from amt.databases.long_form import examine, read_curves

TASKS, CONFIGS, EPOCHS = ("a", "b", "c"), 6, 4


def make_space() -> ConfigurationSpace:
    space = ConfigurationSpace()
    optimizer = Categorical("optimizer", ["sgd", "adam"])
    momentum = Float("momentum", (0, 1))
    space.add(Float("lr", (1e-4, 1), log=True), Integer("width", (1, 64)), optimizer, momentum)
    space.add(EqualsCondition(momentum, optimizer, "sgd"))
    return space


def make_rows() -> pd.DataFrame:
    """Rows of tasks, configurations and epochs, in that order: row r of the frame is row r + 2."""
    random = np.random.default_rng(0)
    sgd = np.arange(CONFIGS) % 2 == 0
    configs = pd.DataFrame(
        {
            "lr": 10.0 ** -np.linspace(0.5, 3.5, CONFIGS),
            "width": 2 ** np.arange(CONFIGS),
            "optimizer": np.where(sgd, "sgd", "adam"),
            "momentum": np.where(sgd, np.linspace(0.1, 0.9, CONFIGS), np.nan),
        }
    )
    t, c, e = np.indices((len(TASKS), CONFIGS, EPOCHS)).reshape(3, -1)
    level = random.uniform(0.3, 0.6, size=(len(TASKS), CONFIGS))[t, c]
    score = level * (1 - 0.5 ** (e + 1)) + 0.01 * random.normal(size=t.size)
    rows = pd.DataFrame({"task": np.array(TASKS)[t], "config": c, "epoch": e + 1, "score": score})
    rows["cost"] = 1.0 + c
    return rows.join(configs, on="config").astype(object)


def read(path: Path, **options) -> LearningCurves:
    """The examination of a file without faults and notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_curves(path, **{"space": make_space(), **options})


def lines(path: Path, **options) -> list[str]:
    """The message of the error on a file."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        read(path, **options)
    return str(raised.value).splitlines()


def notes(path: Path, **options) -> list[str]:
    found = examine(path, **{"space": make_space(), **options})
    assert not found.faults
    return [line for note in found.notes for line in note.lines()]


def at(row: int) -> str:
    """How the row of a CSV file is named."""
    cell = make_rows().iloc[row - 2]
    return (
        f"row {row}: task {cell['task']!r}, configuration '{cell['config']}', epoch {cell['epoch']}"
    )
