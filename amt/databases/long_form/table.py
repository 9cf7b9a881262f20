"""Reads CSV and Parquet files as tables of texts, whose index are the numbers of their rows."""

import csv
import gzip
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from os import PathLike, fspath
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from ConfigSpace import ConfigurationSpace, Constant
from jaxtyping import Int

from amt.databases.long_form.columns import factorize, keep, texts_of
from amt.databases.long_form.findings import Finding, name_ranges

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("task", "config", "epoch", "score")
OPTIONAL = ("cost", "seed")
HYPERPARAMETER = "hyperparameter "
"""Precedes the names of hyperparameters in tables, as they can be those of other columns."""
TEXT_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_FEW = 1000
SUFFIXES = (*TEXT_SUFFIXES, ".parquet", ".pq")


def is_table(path: str | PathLike[str]) -> bool:
    """Whether a file is called as those are that can be read."""
    return fspath(path).lower().endswith(SUFFIXES)


def read_table(
    source: "Path | pd.DataFrame",
    renamed: Mapping[str, str | None],
    ignore: Sequence[str],
    space: ConfigurationSpace | None,
    hyperparameters: Sequence[str] | None = None,
) -> tuple["pd.DataFrame", list[Finding], list[Finding]]:
    """A file's table of texts, each column under the name that it is meant by, faults and notes.

    Columns of scores and costs are plain, all others categorical.

    Args:
        source: a file that ends in one of `SUFFIXES`, or the table that would be in one.
        renamed: what some columns are called in the file, by what they are meant by; None where
            there is none, so that a column of that name is a hyperparameter.
        ignore: names of columns to leave out.
        space: the search space, if it is known; columns that are not in it are left out.
        hyperparameters: names or patterns of the columns of hyperparameters; other columns that
            have no meaning are left out. None for all.
    """
    plain = {renamed.get(role, role) for role in ("score", "cost")}
    if isinstance(source, Path):
        if not source.is_file():
            raise FileNotFoundError(f"there is no file {source}")
        if not is_table(source):
            raise ValueError(f"{source} must end in {', '.join(SUFFIXES)}")
        text = str(source).lower().endswith(TEXT_SUFFIXES)
        table, faults = (_read_csv if text else _read_parquet)(source, plain)
    else:
        table, faults = _read_frame(source, plain)

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
    if hyperparameters is not None:
        others = [c for c in table.columns if not roles.get(c)]
        wanted = {p: {c for c in others if fnmatchcase(c, p)} for p in hyperparameters}
        fault(f"no such hyperparameters; there are {listed}", [p for p in wanted if not wanted[p]])
        table = table.drop(columns=[c for c in others if not any(c in w for w in wanted.values())])
    table = table.rename(columns={c: roles.get(c) or f"{HYPERPARAMETER}{c}" for c in table.columns})
    missing = [c for c in REQUIRED if c not in table]
    if hyperparameter_columns(table) and "config" not in renamed:
        missing = [c for c in missing if c != "config"]  # equal hyperparameters are one
    fault(f"columns are missing; there are {listed}", missing)
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

    blank = np.ones(len(table), bool)
    for column in table.columns:
        blank = blank & (table[column] == "").to_numpy(bool) if blank.any() else blank
    table, left_out = keep(table, ~blank), table.index[blank]
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
        for name in OPTIONAL:
            if name in table and roles.get(name) == name and name not in renamed:
                few = table[:_FEW]  # all take longer
                if all(_is_constant(rows[config], rows[name]) for rows in (few, table)):
                    what = f"column {name!r} is read as the {name} of a run, and is the same in all"
                    what += " rows of a configuration: if it is a hyperparameter, say "
                    notes.append(Finding(f"{what}columns={{{name!r}: None}}"))
    return roles, notes


def _is_constant(configs: Any, column: Any) -> bool:
    """Whether a column is the same in all rows of a configuration, and not in all of them."""
    (codes, _), (values, different) = factorize(configs), factorize(column)
    first = np.unique(codes, return_index=True)[1]
    return len(different) > 1 and bool((values == values[first][codes]).all())


def _read_csv(path: Path, plain: Collection[Any]) -> tuple["pd.DataFrame", list[Finding]]:
    """The texts of a CSV file, and a fault that names the rows of another length."""
    pyarrow = _pyarrow()
    refused = []

    def refuse(row: Any) -> str:
        refused.append(row)
        return "skip"

    name = path.name.lower()
    delimiter = "\t" if name.endswith((".tsv", ".tsv.gz")) else ","
    opener: Any = gzip.open if name.endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            header = next(reader, [])
            lines = max(reader.line_num, 1)  # of the header, whose names can have line breaks
        encoded = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
        types = [pyarrow.string() if name.strip() in plain else encoded for name in header]
        table = pyarrow.csv.read_csv(
            pyarrow.input_stream(path, compression="gzip" if name.endswith(".gz") else None),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False,
                column_names=[str(i) for i in range(len(header))],
                skip_rows=lines,
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter,
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=refuse,
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={str(i): kind for i, kind in enumerate(types)}
            ),
        )
    except (
        pyarrow.ArrowException,
        UnicodeError,
        csv.Error,
        EOFError,
        OSError,
        zlib.error,
    ) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error
    wrong = [row for row in refused if row.text.strip()]
    below = lines - 1  # rows count from the header, which is one
    named = [f"row {r.number - below}: {r.actual_columns} of {r.expected_columns}" for r in wrong]
    numbers = np.arange(2, 2 + table.num_rows + len(refused))
    if refused:
        numbers = np.delete(numbers, [row.number - below - 2 for row in refused])
    faults = [Finding("rows have another number of cells than the header", named)] if wrong else []
    return _texts(table, header, numbers), faults


def _read_parquet(path: Path, plain: Collection[Any]) -> tuple["pd.DataFrame", list[Finding]]:
    """The texts of a Parquet file, and faults that name the columns of another type."""
    pyarrow = _pyarrow()
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a Parquet file: {error}") from error
    return _cast(table.column_names, table.columns, plain)


def _read_frame(
    frame: "pd.DataFrame", plain: Collection[Any]
) -> tuple["pd.DataFrame", list[Finding]]:
    """The texts of a table in memory, as if it came from a Parquet file."""
    pyarrow = _pyarrow()
    columns = []
    for _, column in frame.items():
        try:
            array = pyarrow.array(column, from_pandas=column.dtype == object)
        except pyarrow.ArrowException:  # of several types
            texts = [None if x is None or x != x else str(x) for x in column]
            array = pyarrow.array(texts, pyarrow.string())
        columns.append(pyarrow.chunked_array(array))
    return _cast([str(name) for name in frame.columns], columns, plain)


def _cast(
    names: Sequence[str], columns: Sequence[Any], plain: Collection[Any]
) -> tuple["pd.DataFrame", list[Finding]]:
    """The texts of typed columns, and faults that name those of another type."""
    pyarrow = _pyarrow()
    texts, faults = [], []
    for name, column in zip(names, columns, strict=True):
        try:
            text = column.cast(pyarrow.string())
        except pyarrow.ArrowException:
            faults.append(Finding(f"column {name!r} holds {column.type}, no numbers or texts"))
            text = pyarrow.chunked_array([["?"] * len(column)], pyarrow.string())
        texts.append(text if name.strip() in plain else text.dictionary_encode())
    rows = np.arange(1, (len(columns[0]) if columns else 0) + 1)
    return _texts(pyarrow.table(texts, [str(i) for i in range(len(texts))]), names, rows), faults


def _texts(table: Any, names: Sequence[str], rows: Int[np.ndarray, "row"]) -> "pd.DataFrame":
    """The table of a pyarrow table's texts."""
    import pandas as pd

    columns = {}
    for i in range(len(names)):
        columns[i] = texts_of(table[0])
        table = table.remove_column(0)  # frees it
    frame = pd.DataFrame(columns, copy=False).set_axis(list(names), axis=1)
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
