"""Examines a file in long form, and reads its learning curves if there are no faults in it."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ConfigSpace import ConfigurationSpace
from jaxtyping import Float as Real

from amt.curves import LearningCurves
from amt.databases.long_form.configs import configuration_texts, parse_configs, same_configs
from amt.databases.long_form.findings import Finding
from amt.databases.long_form.grid import make_grid
from amt.databases.long_form.rows import check_duplicates, check_rows, merge_numbers
from amt.databases.long_form.table import OPTIONAL, REQUIRED, read_table
from amt.databases.spaces import describe_space, infer_space, read_space
from amt.outcome import Outcome
from amt.space import Encoder


@dataclass(frozen=True)
class Examination:
    """The learning curves of a file, or the faults that keep it from being read.

    Attributes:
        rows: number of rows with anything in them.
        faults: what keeps the file from being read.
        notes: what is read, but not as one might think.
        space: the search space, unless a fault keeps it from being inferred.
        metric: the metric, before the outcome transform; None if there are faults.
        curves: the learning curves; None if there are faults.
    """

    rows: int
    faults: Sequence[Finding]
    notes: Sequence[Finding] = ()
    space: ConfigurationSpace | None = None
    metric: Real[np.ndarray, "repeat task config epoch"] | None = None
    curves: LearningCurves | None = None


def read_curves(path: str | PathLike[str], **options: Any) -> LearningCurves:
    """The learning curves of a file in long form.

    Args:
        path: a `.csv` file (UTF-8, commas) or a `.parquet` file.
        options: of `examine`.

    Raises:
        ImportError: pandas or pyarrow is not installed.
        FileNotFoundError: there is no such file.
        ValueError: there are faults in it; the message names the rows of each, 20 of a kind.

    Warns:
        UserWarning: there are notes on it (`Examination.notes`).
    """
    found = examine(path, **options)
    if found.curves is None:
        raise ValueError("\n".join([f"{path}:", *(x for f in found.faults for x in f.lines())]))
    for note in found.notes:
        warnings.warn("\n".join([f"{path}: {note.what}", *note.lines()[1:]]), stacklevel=2)
    return found.curves


def examine(
    path: str | PathLike[str],
    *,
    space: str | PathLike[str] | ConfigurationSpace | None = None,
    minimise: bool = False,
    outcome: Outcome | None = None,
    diverged: Literal["missing", "worst"] = "missing",
    columns: Mapping[str, str | None] | None = None,
    ignore: Iterable[str] = (),
) -> Examination:
    """Reads a file in long form and finds everything that is wrong with it.

    Args:
        path: the file.
        space: the search space, or a file of one; inferred if None.
        minimise: whether smaller values of the metric are better.
        outcome: how scores are made of the metric; by default `Outcome.fit` of the file's. Its sign
            takes the place of `minimise`.
        diverged: what a run is worth from where it diverges on.
        columns: what some columns are called in the file, such as `{"score": "val_loss"}`. A
            column that has the name of another meaning is a hyperparameter then, and so is `cost`
            or `seed` with `{"cost": None}`.
        ignore: names of columns to leave out.

    Raises:
        ImportError, FileNotFoundError: as `read_curves`.
        ValueError: a file, the search space's included, is of another format, or there is no such
            option.
    """
    if diverged not in ("missing", "worst"):
        raise ValueError(f"diverged is 'missing' or 'worst', not {diverged!r}")
    if outcome is not None:
        minimise = outcome.sign < 0
    renamed = dict(columns or {})
    for name in renamed:
        if name not in REQUIRED + OPTIONAL:
            raise ValueError(f"no column {name!r}; there are {', '.join(REQUIRED + OPTIONAL)}")
    if space is not None and not isinstance(space, ConfigurationSpace):
        space = read_space(space)
    table, faults, notes = read_table(Path(path), renamed, list(ignore), space)
    rows = len(table)
    if not rows or not {*REQUIRED} <= {*table.columns}:
        return Examination(rows, faults, notes, space)

    table, wrong = check_rows(table)
    faults += wrong
    table, found = merge_numbers(table)
    notes += found
    table, wrong = check_duplicates(table)
    faults += wrong
    settings, wrong = configuration_texts(table)
    faults += wrong
    if space is None and settings and not faults:
        try:
            space = infer_space(list(settings.values()))
        except ValueError as error:
            faults.append(Finding(str(error)))
        else:
            notes.insert(
                0,
                Finding(
                    "the search space was inferred from the columns; ranges, scales and "
                    "conditions are guesses, and a space file is better",
                    describe_space(space),
                ),
            )
    if space is None:
        return Examination(rows, faults, notes)
    configs, wrong = parse_configs(table, settings, space)
    faults += wrong
    if len(settings) == 1:
        faults.append(
            Finding("there is one configuration only: nothing to choose from", [*settings])
        )
    if not Encoder(space).num_features:
        names = ", ".join(space)
        what = f"no hyperparameter has more than one value ({names}): nothing to choose from"
        faults.append(Finding(what))
    if faults:
        return Examination(rows, faults, notes, space)

    grid, found, wrong = make_grid(table, list(settings), minimise, diverged)
    notes += found
    notes += same_configs(configs)
    if wrong:
        return Examination(rows, wrong, notes, space)
    outcome = Outcome.fit(grid.metric, minimise=minimise) if outcome is None else outcome
    curves = LearningCurves(
        configs=list(configs.values()),
        space=space,
        tasks=grid.tasks,
        epochs=grid.epochs,
        repeats=outcome.forward(grid.metric),
        cost=grid.cost,
        outcome=outcome,
    )
    return Examination(rows, (), notes, space, grid.metric, curves)
