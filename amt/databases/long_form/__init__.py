"""Reads learning curves from a table of your own with one row for each score.

It is a file (`.csv`, `.tsv`, either with `.gz` behind it, `.parquet`) or a `pandas.DataFrame`, such
as the logs of other tools (`amt.databases.logs`).

| column | |
|---|---|
| `task` | any names or numbers |
| `config` | the same; without it, rows of equal hyperparameters are of one configuration |
| `epoch` | whole numbers from 1 (or another unit of fidelity) |
| `score` | the metric after that epoch; empty where it was not measured |
| `cost` | optional: cost of that epoch by itself, in any one unit |
| `seed` | optional: which of several training runs |
| all others | hyperparameters of the configuration; empty (or NA, nan, None) where inactive |

A hyperparameter can have the name of another column: `columns={"epoch": "step"}` says that the
epochs are in `step`, and `columns={"cost": None}` that `cost` is a hyperparameter. Where most
columns are neither, `hyperparameters=["config/*"]` names those that are. Epochs that count from 0
are read with `first_epoch=0`, fractions of epochs with their `epoch_unit`.

Columns and rows come in any order, and curves may differ in length. Tasks and configurations are
sorted by their names (numbers by value), and what is not in the file is missing (NaN). The seeds of
each task and configuration, sorted, are its repeats 0, 1, ...; its cost is their mean.

Files with more than 100 epochs, such as of runs that log at steps of their own, are read as 100
fidelities (`fidelities=`, see `amt.databases.long_form.fidelities`), with a note.

A run *diverges* where its score is `nan` (unless `nan="missing"`), infinite or beyond 1e100. Its
curve ends before that epoch, finite scores after it included, or (`diverged="worst"`) has from
there on the worst score that the task has anywhere: a model that never sees the end may think that
the run went on well.

The search space is a file of ConfigSpace (`space.to_json`, `space.to_yaml`). Without one it is
inferred (`amt.databases.spaces`), with a warning. The metric becomes scores by a transform of your
own (`outcome=`, see `amt.outcome`) or by `Outcome.fit` of all tasks of the file, and
`curves.outcome` is that transform; a tuner is told the metric itself. To leave a future target out
of even its constants (a location, a scale), read it from a file of its own.

Every bad row is named, by its number in the file: the header of a CSV file is row 1, and the first
row of a Parquet file, which has no header, is row 1.
"""

from amt.databases.long_form.examination import Examination, examine, read_curves
from amt.databases.long_form.findings import LIMIT, Finding
from amt.databases.long_form.table import OPTIONAL, REQUIRED, SUFFIXES, is_table

__all__ = [
    "LIMIT",
    "OPTIONAL",
    "REQUIRED",
    "SUFFIXES",
    "Examination",
    "Finding",
    "examine",
    "is_table",
    "read_curves",
]
