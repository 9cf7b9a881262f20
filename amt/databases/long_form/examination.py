"""Examines a file in long form, and reads its learning curves if there are no faults in it."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ConfigSpace import ConfigurationSpace
from jaxtyping import Float as Real

from amt.curves import LearningCurves
from amt.databases.long_form.configs import (
    configuration_texts,
    number_configurations,
    parse_configs,
    same_configs,
)
from amt.databases.long_form.fidelities import FIDELITIES, bin_epochs
from amt.databases.long_form.findings import Finding
from amt.databases.long_form.grid import make_grid
from amt.databases.long_form.rows import check_duplicates, check_rows, merge_numbers
from amt.databases.long_form.table import OPTIONAL, REQUIRED, read_table
from amt.databases.spaces import describe_space, infer_space, read_space
from amt.outcome import Outcome
from amt.space import Encoder

if TYPE_CHECKING:
    import pandas as pd


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


def _is_frame(source: Any) -> bool:
    return hasattr(source, "columns")


def read_curves(source: "str | PathLike[str] | pd.DataFrame", **options: Any) -> LearningCurves:
    """The learning curves of a file or table in long form.

    Args:
        source: a `.csv` file (UTF-8, commas), a `.tsv` file (tabulators), either with `.gz` behind
            it, or a `.parquet` file; or the table that would be in one.
        options: of `examine`.

    Raises:
        ImportError: pandas or pyarrow is not installed.
        FileNotFoundError: there is no such file.
        ValueError: there are faults in it; the message names the rows of each, 20 of a kind.

    Warns:
        UserWarning: there are notes on it (`Examination.notes`).
    """
    found = examine(source, **options)
    name = "the table" if _is_frame(source) else f"{source}"
    if found.curves is None:
        raise ValueError("\n".join([f"{name}:", *(x for f in found.faults for x in f.lines())]))
    for note in found.notes:
        warnings.warn("\n".join([f"{name}: {note.what}", *note.lines()[1:]]), stacklevel=2)
    return found.curves


def examine(
    source: "str | PathLike[str] | pd.DataFrame",
    *,
    space: str | PathLike[str] | ConfigurationSpace | None = None,
    minimise: bool = False,
    outcome: Outcome | None = None,
    diverged: Literal["missing", "worst"] = "missing",
    nan: Literal["diverged", "missing"] = "diverged",
    columns: Mapping[str, str | None] | None = None,
    ignore: Iterable[str] = (),
    hyperparameters: Iterable[str] | None = None,
    first_epoch: int = 1,
    epoch_unit: float = 1.0,
    fidelities: int = FIDELITIES,
) -> Examination:
    """Reads a file or table in long form and finds everything that is wrong with it.

    Args:
        source: the file, or the table.
        space: the search space, or a file of one; inferred if None.
        minimise: whether smaller values of the metric are better.
        outcome: how scores are made of the metric; by default `Outcome.fit` of the file's. Its sign
            takes the place of `minimise`.
        diverged: what a run is worth from where it diverges on.
        nan: whether a score that is `nan` says that the run diverged, or that it was not evaluated.
        columns: what some columns are called in the file, such as `{"score": "val_loss"}`. A
            column that has the name of another meaning is a hyperparameter then, and so is `cost`
            or `seed` with `{"cost": None}`.
        ignore: names of columns to leave out.
        hyperparameters: names of the columns of hyperparameters, or patterns such as `config/*`; by
            default all that have no other meaning.
        first_epoch: what the file calls the first epoch, which becomes epoch 1.
        epoch_unit: the unit of epochs that are no whole numbers, such as 0.5; they are counted
            in it.
        fidelities: the largest number of epochs. Where the file has more, as runs that log at
            steps of their own do, they are put together (`fidelities.bin_epochs`).

    Raises:
        ImportError, FileNotFoundError: as `read_curves`.
        ValueError: a file, the search space's included, is of another format, or there is no such
            option.
    """
    for option, value, known in (
        ("diverged", diverged, ("missing", "worst")),
        ("nan", nan, ("diverged", "missing")),
    ):
        if value not in known:
            raise ValueError(f"{option} is {known[0]!r} or {known[1]!r}, not {value!r}")
    if not epoch_unit > 0:
        raise ValueError(f"epoch_unit must be positive, not {epoch_unit!r}")
    if not isinstance(fidelities, int) or fidelities < 1:
        raise ValueError(f"fidelities must be a whole number from 1, not {fidelities!r}")
    if outcome is not None:
        minimise = outcome.sign < 0
    renamed = dict(columns or {})
    for name in renamed:
        if name not in REQUIRED + OPTIONAL:
            raise ValueError(f"no column {name!r}; there are {', '.join(REQUIRED + OPTIONAL)}")
    if space is not None and not isinstance(space, ConfigurationSpace):
        space = read_space(Path(space).expanduser())
    where: Any = source
    if not _is_frame(source):
        where = Path(where).expanduser()
    chosen = None if hyperparameters is None else list(hyperparameters)
    table, faults, notes = read_table(where, renamed, list(ignore), space, chosen)
    rows = len(table)
    if not rows or not {*REQUIRED} - {"config"} <= {*table.columns}:
        return Examination(rows, faults, notes, space)
    if "config" not in table:
        table, wrong = number_configurations(table)
        faults += wrong
        notes.append(Finding("there is no column config: what has equal hyperparameters is one"))

    table, wrong, found = check_rows(table, first_epoch, epoch_unit, nan)
    faults += wrong
    notes += found
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

    table, found = bin_epochs(table, fidelities)
    notes += found
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
