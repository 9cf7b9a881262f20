"""Your own database: a CSV or Parquet file with one row for each score, and a search space.

| column | |
|---|---|
| `task`, `config` | any names or numbers |
| `epoch` | whole numbers from 1 (or another unit of fidelity) |
| `score` | the metric after that epoch; empty where it was not measured |
| `cost` | optional: cost of that epoch by itself, in any one unit |
| `seed` | optional: which of several training runs |
| all others | hyperparameters of the configuration; empty where inactive |

Columns and rows come in any order, and curves may differ in length. Tasks and configurations are
sorted by their names (numbers by value), and what is not in the file is missing (NaN). The seeds of
each task and configuration, sorted, are its repeats 0, 1, ...; its cost is their mean.

A run *diverges* where its score is `nan`, infinite or beyond 1e100. Its curve ends before that
epoch, finite scores after it included, or (`diverged="worst"`) has from there on the worst score
that the task has anywhere: a model that never sees the end may think that the run went on well.

The search space is a file of ConfigSpace (`space.to_json`, `space.to_yaml`). Without one it is
inferred (`amt.databases.spaces`), with a warning. The metric becomes scores by
`amt.outcome.Outcome`, fitted to all tasks of the file, and `curves.outcome` is that transform: tell
a tuner `curves.outcome.forward(metric)`. To leave a future target out of even its constants (a
location, a scale), read it from a file of its own.

Every bad row is named, by its number in the file: the header of a CSV file is row 1, and the first
row of a Parquet file, which has no header, is row 1.
"""

import csv
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from ConfigSpace import ConfigurationSpace, Constant
from jaxtyping import Bool, Shaped
from jaxtyping import Float as Real

from amt.curves import LearningCurves
from amt.databases.spaces import (
    describe,
    describe_space,
    infer_space,
    parse,
    parse_number,
    read_space,
    text_order,
)
from amt.outcome import Outcome
from amt.space import check_configs

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("task", "config", "epoch", "score")
OPTIONAL = ("cost", "seed")
SUFFIXES = (".csv", ".parquet", ".pq")
LIMIT = 20
_LARGEST = 1e100  # beyond it, squares overflow
_LARGEST_GRID = 2**28  # entries, 2 GiB


class Finding(NamedTuple):
    """Something about a file, and the rows, configurations or columns that it concerns."""

    what: str
    where: Sequence[str] = ()

    def lines(self, limit: int = LIMIT) -> list[str]:
        """To print: at most `limit` of them, and how many more there are."""
        more = len(self.where) - limit
        shown = [f"  {line}" for line in self.where[:limit]]
        return [self.what, *shown, *([f"  and {more} more"] if more > 0 else [])]


@dataclass(frozen=True)
class Examination:
    """What is in a file.

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
    diverged: Literal["missing", "worst"] = "missing",
    columns: Mapping[str, str] | None = None,
    ignore: Iterable[str] = (),
) -> Examination:
    """What is in a file in long form, and everything that is wrong with it.

    Args:
        path: the file.
        space: the search space, or a file of one; inferred if None.
        minimise: whether smaller values of the metric are better.
        diverged: what a run is worth from where it diverges on.
        columns: what some columns are called in the file, such as `{"score": "val_loss"}`.
        ignore: names of columns to leave out.

    Raises:
        ImportError, FileNotFoundError: as `read_curves`.
        ValueError: a file, the search space's included, is of another format, or there is no such
            option.
    """
    if diverged not in ("missing", "worst"):
        raise ValueError(f"diverged is 'missing' or 'worst', not {diverged!r}")
    renamed = dict(columns or {})
    for name in renamed:
        if name not in REQUIRED + OPTIONAL:
            raise ValueError(f"no column {name!r}; there are {', '.join(REQUIRED + OPTIONAL)}")
    if space is not None and not isinstance(space, ConfigurationSpace):
        space = read_space(space)
    table, faults, notes = _read(Path(path), renamed, list(ignore), space)
    rows = len(table)
    if not rows or not {*REQUIRED} <= {*table.columns}:
        return Examination(rows, faults, notes, space)

    table, wrong = _check_rows(table)
    faults += wrong
    table, wrong = _check_duplicates(table)
    faults += wrong
    settings, wrong = _settings(table)
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
    configs, wrong = _configs(table, settings, space)
    faults += wrong
    if len(settings) == 1:
        faults.append(
            Finding("there is one configuration only: nothing to choose from", [*settings])
        )
    if faults:
        return Examination(rows, faults, notes, space)

    grid, found, wrong = _grid(table, list(settings), minimise, diverged)
    notes += found
    notes += _same_configs(configs)
    if wrong:
        return Examination(rows, wrong, notes, space)
    outcome = Outcome.fit(grid.metric, minimise=minimise)
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


def _read(
    path: Path, renamed: Mapping[str, str], ignore: Sequence[str], space: ConfigurationSpace | None
) -> tuple["pd.DataFrame", list[Finding], list[Finding]]:
    """All cells as texts with the row numbers as their index, faults and notes."""
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

    there = [name.strip() for name in table.columns]
    listed = ", ".join(there)
    table.columns = there
    fault("columns have the same name", sorted({name for name in there if there.count(name) > 1}))
    table = table.loc[:, ~table.columns.duplicated()]
    fault(f"no such columns; there are {listed}", {*renamed.values(), *ignore} - {*there})
    table = table.drop(columns=ignore, errors="ignore")
    clash = [name for name, old in renamed.items() if name in table.columns and old != name]
    fault("columns are there by name, and others are to be called so: ignore one", clash)
    table = table.drop(columns=clash).rename(columns={old: new for new, old in renamed.items()})
    fault(f"columns are missing; there are {listed}", [c for c in REQUIRED if c not in table])
    fault("columns have no name (an index?): ignore them", [c for c in _others(table) if not c])
    if space is not None:
        alien = [c for c in _others(table) if c and c not in space]
        fault("columns are not in the search space: ignore them", alien)
        wanted = [c for c in space if not isinstance(space[c], Constant)]
        fault("hyperparameters have no column", [c for c in wanted if c not in _others(table)])
        table = table.drop(columns=[*alien, ""], errors="ignore")

    blank = (table == "").all(axis=1).to_numpy()
    table, left_out = table[~blank], table.index[blank]
    if not len(table):
        faults.append(Finding("there are no rows"))
    notes = []
    if len(left_out):
        notes.append(Finding(f"{len(left_out)} blank rows are left out", [_ranges(left_out)]))
    return table, faults, notes


def _read_csv(path: Path) -> tuple["pd.DataFrame", list[Finding]]:
    pyarrow = _pyarrow()
    refused = []

    def refuse(row: Any) -> str:
        refused.append(row)
        return "skip"

    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, column_names=[str(i) for i in range(len(header))], skip_rows=1
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
    lines = [f"row {r.number}: {r.actual_columns} of {r.expected_columns}" for r in wrong]
    numbers = np.arange(2, 2 + table.num_rows + len(refused))
    numbers = np.setdiff1d(numbers, [row.number for row in refused])
    faults = [Finding("rows have another number of cells than the header", lines)] if wrong else []
    return _texts(table, header, numbers), faults


def _read_parquet(path: Path) -> tuple["pd.DataFrame", list[Finding]]:
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


def _texts(table: Any, names: Sequence[str], rows: Shaped[np.ndarray, "row"]) -> "pd.DataFrame":
    import pandas as pd

    columns = {
        i: table[i].to_pandas().fillna("").astype("str").str.strip() for i in range(len(names))
    }
    frame = pd.DataFrame(columns).set_axis(list(names), axis=1)
    return frame.set_axis(rows, axis=0)


def _others(table: "pd.DataFrame") -> list[str]:
    """Columns of hyperparameters."""
    return [c for c in table.columns if c not in REQUIRED + OPTIONAL]


def _pyarrow() -> ModuleType:
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


def _ranges(rows: Iterable[int]) -> str:
    """Row numbers, to print: `rows 2-76, 80`."""
    rows = np.unique(np.fromiter(rows, int))
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    texts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    more = f" and {len(texts) - LIMIT} more ranges" if len(texts) > LIMIT else ""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(texts[:LIMIT])}{more}"


def _rows(
    what: str,
    table: "pd.DataFrame",
    bad: Bool[np.ndarray, "row"],
    detail: Callable[[int], str] = lambda position: "",
) -> list[Finding]:
    """A finding that names the rows, if there are any, each with a detail by its position."""
    columns = [table[c].to_numpy() for c in ("task", "config", "epoch")]
    lines = []
    for i in np.flatnonzero(bad):
        task, config, epoch = (column[i] for column in columns)
        where = f"task {task!r}, configuration {config!r}, epoch {epoch}"
        lines.append(f"row {table.index[i]}: {where}{detail(i)}")
    return [Finding(what, lines)] if lines else []


def _check_rows(table: "pd.DataFrame") -> tuple["pd.DataFrame", list[Finding]]:
    """Rows without a fault of their own, with numbers in place of texts, and the faults.

    A score that diverges becomes infinite, one that is empty NaN.
    """
    faults = []
    wrong = np.zeros(len(table), bool)

    def refuse(what: str, bad: Bool[np.ndarray, "row"], column: str) -> None:
        texts = table[column].to_numpy()
        shown = column in ("task", "config", "epoch")
        faults.extend(
            _rows(what, table, bad, lambda i: "" if shown else f", {column} {texts[i]!r}")
        )
        wrong[bad] = True

    for name in ("task", "config", "seed"):
        if name in table:
            refuse(f"rows without a {name}", (table[name] == "").to_numpy(), name)
    epoch, _ = _numbers(table["epoch"])
    with np.errstate(invalid="ignore"):
        whole = (epoch == np.round(epoch)) & (epoch >= 1) & (epoch < 2**53)
    refuse("epochs that are not whole numbers from 1", ~whole, "epoch")
    score, text = _numbers(table["score"])
    refuse("scores that are not numbers", text, "score")
    empty = (table["score"] == "").to_numpy()
    score[~empty & ~(np.abs(score) <= _LARGEST)] = np.inf
    numbers = {"epoch": np.where(whole, epoch, 0).astype(int), "score": score}
    if "cost" in table:
        cost, text = _numbers(table["cost"])
        bad = text | np.isinf(cost) | (cost < 0) | (table["cost"].str.lower() == "nan").to_numpy()
        refuse("costs that are negative or not finite numbers", bad, "cost")
        numbers["cost"] = cost
    return table.assign(**numbers).loc[~wrong], faults


def _numbers(
    texts: "pd.Series",
) -> tuple[Real[np.ndarray, "row"], Bool[np.ndarray, "row"]]:
    """Numbers, NaN where a text is empty or none, and which are no numbers though not empty."""
    import pandas as pd

    numbers = np.array(pd.to_numeric(texts, errors="coerce"), np.float64)
    not_a_number = texts.str.lower().str.lstrip("+-").isin(["", "nan"]).to_numpy()
    return numbers, np.isnan(numbers) & ~not_a_number


def _check_duplicates(table: "pd.DataFrame") -> tuple["pd.DataFrame", list[Finding]]:
    """The first row of each score, and a fault for all others."""
    key = [c for c in ("task", "config", "epoch", "seed") if c in table]
    again = table.duplicated(key).to_numpy()
    first = table.index.to_series().groupby([table[c] for c in key]).transform("first").to_numpy()
    seeds = "" if "seed" in table else " (runs of several seeds need a column seed)"
    what = f"rows are of the {key[0]}, {', '.join(key[1:])} of another{seeds}"
    return table.loc[~again], _rows(what, table, again, lambda i: f": as row {first[i]}")


def _settings(
    table: "pd.DataFrame",
) -> tuple[dict[str, dict[str, str]], list[Finding]]:
    """The texts of each configuration's hyperparameters, and the rows where they are others.

    Where there are several, the most frequent one is right, of equally frequent ones the first.
    """
    import pandas as pd

    faults, columns = [], {}
    codes, ids = pd.factorize(table["config"])
    for name in _others(table):
        code, unique = pd.factorize(table[name])
        values = [text if (x := parse_number(text)) is None else x for text in unique]
        value = pd.factorize(pd.Series(values, dtype=object))[0][code]
        pairs, first, count = np.unique(
            np.stack([codes, value]), axis=1, return_index=True, return_counts=True
        )
        order = np.lexsort((first, -count, pairs[0]))
        right = order[np.unique(pairs[0][order], return_index=True)[1]]
        row = first[right]
        texts = table[name].to_numpy()
        columns[name] = texts[row]

        def other(i: int, name: str = name, texts: Any = texts, row: Any = row) -> str:
            as_in = row[codes[i]]
            return f": {name} is {texts[i]!r}, but {texts[as_in]!r} in row {table.index[as_in]}"

        what = f"configurations have several values of {name}"
        faults += _rows(what, table, value != value[row][codes], other)
    order = sorted(range(len(ids)), key=lambda k: text_order(ids[k]))
    return {ids[k]: {name: texts[k] for name, texts in columns.items()} for k in order}, faults


def _configs(
    table: "pd.DataFrame", settings: Mapping[str, Mapping[str, str]], space: ConfigurationSpace
) -> tuple[dict[str, dict[str, Any]], list[Finding]]:
    """Configurations as values of the space, and those that are not in it."""
    configs, wrong = {}, {}
    for name, texts in settings.items():
        values, errors = {}, []
        for hyperparameter, text in texts.items():
            h = space[hyperparameter]
            if not text:
                continue
            try:
                values[h.name] = parse(h, text)
            except ValueError as error:
                errors.append(str(error))
            else:
                if not h.legal_value(values[h.name]):
                    errors.append(f"{h.name} is {text}, outside of {describe(h)}")
        if not errors:
            try:
                (configs[name],) = check_configs(space, [values])
            except ValueError as error:
                errors.append(" ".join(str(error).split()).removeprefix("configuration 0 is "))
        if errors:
            wrong[name] = "; ".join(errors)
    rows = table.groupby("config").groups if wrong else {}
    lines = [f"configuration {name!r}, {_ranges(rows[name])}: {why}" for name, why in wrong.items()]
    return configs, [Finding("configurations are not in the search space", lines)] if wrong else []


class _Grid(NamedTuple):
    tasks: list[str]
    epochs: Shaped[np.ndarray, "epoch"]
    metric: Real[np.ndarray, "repeat task config epoch"]
    cost: Real[np.ndarray, "task config epoch"] | None


def _grid(
    table: "pd.DataFrame", ids: Sequence[str], minimise: bool, diverged: str
) -> tuple[_Grid, list[Finding], list[Finding]]:
    """The metric on the grid of all tasks, configurations and epochs, notes and faults."""
    tasks = sorted(table["task"].unique(), key=text_order)
    task, config = _position(table["task"], tasks), _position(table["config"], ids)
    epochs, epoch = np.unique(table["epoch"].to_numpy(), return_inverse=True)
    repeat = np.zeros(len(table), int)
    if "seed" in table:  # the rank of the seed among those of its task and configuration
        seeds = sorted(table["seed"].unique(), key=text_order)
        run = (task * len(ids) + config) * len(seeds) + _position(table["seed"], seeds)
        runs, which = np.unique(run, return_inverse=True)
        cells = runs // len(seeds)
        repeat = (np.arange(len(runs)) - np.searchsorted(cells, cells))[which]
    shape = len(tasks), len(ids), len(epochs)
    if (repeat.max() + 1) * np.prod(shape) > _LARGEST_GRID:
        sizes = f"{repeat.max() + 1} repeats, {shape[0]} tasks, {shape[1]} configurations"
        what = f"the grid of {sizes} and {shape[2]} epochs has more than {_LARGEST_GRID} entries"
        return _Grid(tasks, epochs, np.empty((0, *shape[:2], 0)), None), [], [Finding(what)]
    metric = np.full((repeat.max() + 1, *shape), np.nan)
    metric[repeat, task, config, epoch] = table["score"]
    cost = None
    if "cost" in table:
        known = table["cost"].notna().to_numpy()
        cells = tuple(axis[known] for axis in (task, config, epoch))
        total, count = np.zeros(shape), np.zeros(shape)
        np.add.at(total, cells, table["cost"].to_numpy()[known])
        np.add.at(count, cells, 1)
        cost = np.where(count, total, np.nan) / np.maximum(count, 1)

    notes, faults = [], []
    empty = table["score"].isna().to_numpy()
    notes += _rows(f"{empty.sum()} rows have no score: it is missing", table, empty)
    gone = np.logical_or.accumulate(np.isinf(metric), axis=-1)
    after = int((gone & np.isfinite(metric)).sum())
    metric[gone] = np.nan
    for t, name in enumerate(tasks):
        if np.isnan(metric[:, t]).all():
            rows = _ranges(table.index[task == t])
            faults.append(Finding(f"task {name!r} has no finite score", [rows]))
    if faults:
        return _Grid(tasks, epochs, metric, cost), notes, faults
    if gone.any():
        row = np.zeros(metric.shape, int)
        row[repeat, task, config, epoch] = table.index
        runs = [(*run, gone[tuple(run)].argmax()) for run in np.argwhere(gone.any(-1))]
        lines = [
            f"row {row[r, t, c, e]}: task {tasks[t]!r}, configuration {ids[c]!r}, repeat {r}, from "
            f"epoch {epochs[e]} on"
            for r, t, c, e in runs
        ]
        treatment = "missing"
        if diverged == "worst":
            treatment = "the worst score of their task"
            worst = np.nanmax if minimise else np.nanmin
            for t in range(len(tasks)):
                metric[:, t][gone[:, t]] = worst(metric[:, t])
        what = f"{len(runs)} of {(~np.isnan(metric) | gone).any(-1).sum()} runs diverge"
        what += f" and are {treatment} from there on"
        what += f", {after} finite scores included" if after else ""
        notes.append(Finding(what, lines))
    return _Grid(tasks, epochs, metric, cost), [*notes, *_notes(metric, ids, minimise)], []


def _position(column: "pd.Series", names: Sequence[str]) -> Shaped[np.ndarray, "row"]:
    return column.map({name: index for index, name in enumerate(names)}).to_numpy(int)


def _notes(
    metric: Real[np.ndarray, "repeat task config epoch"], ids: Sequence[str], minimise: bool
) -> list[Finding]:
    notes = []
    there = ~np.isnan(metric)
    never = ~there.any((0, 1, 3))
    if never.any():
        names = [repr(ids[c]) for c in np.flatnonzero(never)]
        notes.append(Finding("configurations have no score on any task", names))
    later = np.logical_or.accumulate(there[..., ::-1], axis=-1)[..., ::-1]
    gaps = (later & ~there).any(-1).sum()
    if gaps:
        notes.append(Finding(f"{gaps} curves lack epochs before their last, which are missing"))
    first = np.take_along_axis(metric, there.argmax(-1)[..., None], -1)
    last = np.take_along_axis(
        metric, metric.shape[-1] - 1 - there[..., ::-1].argmax(-1)[..., None], -1
    )
    change = (last - first)[there.sum(-1) > 1]
    worse = change > 0 if minimise else change < 0
    if worse.size and worse.mean() > 0.75:
        advice = "leave out minimise if larger" if minimise else "set minimise if smaller"
        what = f"the metric gets worse along {worse.mean():.0%} of the curves: {advice} is better"
        notes.append(Finding(what))
    return notes


def _same_configs(configs: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    groups: dict[Any, list[str]] = {}
    for name, config in configs.items():
        groups.setdefault(tuple(sorted(config.items())), []).append(name)
    same = [", ".join(map(repr, names)) for names in groups.values() if len(names) > 1]
    return [Finding("configurations have the same hyperparameters", same)] if same else []
