"""Reads CSV and Parquet files as tables of texts, whose index are the numbers of their rows."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from ConfigSpace import ConfigurationSpace, Constant
from jaxtyping import Int

from amt.databases.long_form.findings import Finding, name_ranges

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("task", "config", "epoch", "score")
OPTIONAL = ("cost", "seed")
HYPERPARAMETER = "hyperparameter "
"""Precedes the names of hyperparameters in tables, as they can be those of other columns."""
SUFFIXES = (".csv", ".parquet", ".pq")


def read_table(
    path: Path,
    renamed: Mapping[str, str | None],
    ignore: Sequence[str],
    space: ConfigurationSpace | None,
) -> tuple["pd.DataFrame", list[Finding], list[Finding]]:
    """A file's table of texts, each column under the name that it is meant by, faults and notes.

    Args:
        path: a file that ends in one of `SUFFIXES`.
        renamed: what some columns are called in the file, by what they are meant by; None where
            there is none, so that a column of that name is a hyperparameter.
        ignore: names of columns to leave out.
        space: the search space, if it is known; columns that are not in it are left out.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} must end in {', '.join(SUFFIXES)}")
    table, faults = (_read_csv if suffix == ".csv" else _read_parquet)(path)

    def fault(what: str, names: Iterable[str]) -> None:
        names = [repr(name) for name in names]
        if names:
            faults.append(Finding(what, names))

    header = [name.strip() for name in table.columns]
    listed = ", ".join(header)
    table.columns = header
    fault("columns have the same name", sorted({name for name in header if header.count(name) > 1}))
    table = table.loc[:, ~table.columns.duplicated()]
    named = {role: column for role, column in renamed.items() if column is not None}
    fault(f"no such columns; there are {listed}", {*named.values(), *ignore} - {*header})
    table = table.drop(columns=ignore, errors="ignore")
    roles, notes = _roles(table, renamed, space)
    table = table.rename(columns={c: roles.get(c) or f"{HYPERPARAMETER}{c}" for c in table.columns})
    fault(f"columns are missing; there are {listed}", [c for c in REQUIRED if c not in table])
    others = hyperparameter_columns(table)
    fault("columns have no name (an index?): ignore them", [c for c in others if not c])
    if space is not None:
        alien = [c for c in others if c and c not in space]
        fault("columns are not in the search space: ignore them", alien)
        wanted = [c for c in space if not isinstance(space[c], Constant) and c not in others]
        fault("hyperparameters have no column", [c for c in wanted if c not in roles])
        faults += [
            Finding(
                f"hyperparameter {c!r} has the name of the column of {c}s: say which column has "
                f"those by columns={{{c!r}: NAME}}"
            )
            for c in wanted
            if c in roles
        ]
        table = table.drop(columns=[others[c] for c in (*alien, "") if c in others])

    blank = (table == "").all(axis=1).to_numpy()
    table, left_out = table[~blank], table.index[blank]
    if not len(table):
        faults.append(Finding("there are no rows"))
    if len(left_out):
        notes.append(Finding(f"{len(left_out)} blank rows are left out", [name_ranges(left_out)]))
    return table, faults, notes


def _roles(
    table: "pd.DataFrame", renamed: Mapping[str, str | None], space: ConfigurationSpace | None
) -> tuple[dict[str, str], list[Finding]]:
    """The role of each column that has one, and notes on those that might have another.

    A column has the role that it is named for, else that of its name, unless another column has it.
    """
    import pandas as pd

    roles = {column: role for role, column in renamed.items() if column is not None}
    notes = []
    for name in (*REQUIRED, *OPTIONAL):
        if name not in table or name in roles:
            continue
        if name in renamed:
            if renamed[name] is not None and space is None:
                what = f"column {name!r} is a hyperparameter, as column {renamed[name]!r} is the"
                notes.append(Finding(f"{what} {name}: ignore it if it is none"))
        elif name in OPTIONAL and space is not None and name in space:
            what = f"column {name!r} is the hyperparameter of the search space"
            notes.append(Finding(f"{what}: columns={{{name!r}: {name!r}}} makes it the {name}"))
        else:
            roles[name] = name
    if space is None and "config" in roles.values():
        config = next(column for column, role in roles.items() if role == "config")
        codes = pd.factorize(table[config])[0]
        for name in OPTIONAL:
            if name in table and roles.get(name) == name and name not in renamed:
                values = pd.factorize(table[name])[0]
                pairs = len(np.unique(np.stack([codes, values]), axis=1).T)
                if pairs == len(np.unique(codes)) and len(np.unique(values)) > 1:
                    what = f"column {name!r} is read as the {name} of a run, and is the same in all"
                    what += " rows of a configuration: if it is a hyperparameter, say "
                    notes.append(Finding(f"{what}columns={{{name!r}: None}}"))
    return roles, notes


def _read_csv(path: Path) -> tuple["pd.DataFrame", list[Finding]]:
    """The texts of a CSV file, and a fault that names the rows of another length."""
    pyarrow = _pyarrow()
    refused = []

    def refuse(row: Any) -> str:
        refused.append(row)
        return "skip"

    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            lines = max(reader.line_num, 1)  # of the header, whose names can have line breaks
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False,
                column_names=[str(i) for i in range(len(header))],
                skip_rows=lines,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=refuse
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={str(i): pyarrow.string() for i in range(len(header))}
            ),
        )
    except (pyarrow.ArrowException, UnicodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error
    wrong = [row for row in refused if row.text.strip()]
    below = lines - 1  # rows count from the header, which is one
    named = [f"row {r.number - below}: {r.actual_columns} of {r.expected_columns}" for r in wrong]
    numbers = np.arange(2, 2 + table.num_rows + len(refused))
    numbers = np.setdiff1d(numbers, [row.number - below for row in refused])
    faults = [Finding("rows have another number of cells than the header", named)] if wrong else []
    return _texts(table, header, numbers), faults


def _read_parquet(path: Path) -> tuple["pd.DataFrame", list[Finding]]:
    """The texts of a Parquet file, and faults that name the columns of another type."""
    pyarrow = _pyarrow()
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a Parquet file: {error}") from error
    columns, faults = [], []
    for name, column in zip(table.column_names, table.columns, strict=True):
        try:
            columns.append(column.cast(pyarrow.string()))
        except pyarrow.ArrowException:
            faults.append(Finding(f"column {name!r} holds {column.type}, no numbers or texts"))
            columns.append(pyarrow.array(["?"] * table.num_rows))
    names, texts = table.column_names, pyarrow.table(columns, [str(i) for i in range(len(columns))])
    return _texts(texts, names, np.arange(1, table.num_rows + 1)), faults


def _texts(table: Any, names: Sequence[str], rows: Int[np.ndarray, "row"]) -> "pd.DataFrame":
    """The table of a pyarrow table's texts, stripped, empty where there are none."""
    import pandas as pd

    columns = {
        i: table[i].to_pandas().fillna("").astype("str").str.strip() for i in range(len(names))
    }
    frame = pd.DataFrame(columns).set_axis(list(names), axis=1)
    return frame.set_axis(rows, axis=0)


def hyperparameter_columns(table: "pd.DataFrame") -> dict[str, str]:
    """The column of each hyperparameter: those that are not of another meaning."""
    columns = [c for c in table.columns if c.startswith(HYPERPARAMETER)]
    return {column.removeprefix(HYPERPARAMETER): column for column in columns}


def _pyarrow() -> ModuleType:
    """The package pyarrow, which an extra installs."""
    try:
        import pandas  # noqa: F401
        import pyarrow
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "files of learning curves need pandas and pyarrow: `pip install amt[experiments]`"
        ) from error
    return pyarrow
