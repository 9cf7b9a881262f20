"""Results of experiments as Parquet files: resumable, and the same bytes for the same numbers.

A run writes one part for each chunk of cells as soon as it is computed, and at the end merges the
parts into `results.parquet`. Every file is written under a temporary name in its own folder,
flushed to disk and then renamed, so that a file that exists is complete. A run that was killed
finds its parts, computes those that are missing, and its merged file is byte-identical to that of
an uninterrupted run: no time, date or host is in it. Those are in `timings.json`.

    settings.json       what was asked for ("settings") and computed with ("provenance")
    parts/0000.parquet  rows of the first chunk, and so on
    parts/0000.json     its seconds, and the diagnostics of its fits
    results.parquet     all rows, by split, repeat, seed, method and query
    timings.json        seconds and diagnostics of all parts; machine of the latest run

One row is one query of one method in one cell: `query` counts from 1 and is the number of epochs
spent so far, `epoch` counts from 1, and `rank`, `regret` and `normalized_regret` (`amt.evaluation.metrics`)
are those of the configuration `recommended` after it. `log_density`, `coverage50` and `coverage90`
are of the forecast of final scores (`amt.search.simulate.Forecast`), NaN of methods that make none.
`repeat` is the training run of the database, -1 the mean of all.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from amt.evaluation.experiment import METHODS, Cell
from amt.evaluation.metrics import mean_and_standard_error, normalized_regret, rank, regret
from amt.files import TEMPORARY, atomic_write, read_json, write_json
from amt.search.simulate import Forecast, Trajectory

SCHEMA = pa.schema(
    {
        "database": pa.string(),
        "split": pa.int32(),
        "sources": pa.string(),
        "target": pa.string(),
        "repeat": pa.int32(),
        "seed": pa.int32(),
        "method": pa.string(),
        "query": pa.int32(),
        "config": pa.int32(),
        "epoch": pa.int32(),
        "score": pa.float64(),
        "recommended": pa.int32(),
        "rank": pa.int32(),
        "regret": pa.float64(),
        "normalized_regret": pa.float64(),
        "log_density": pa.float64(),
        "coverage50": pa.float64(),
        "coverage90": pa.float64(),
    }
)
BUDGETS = (10, 25, 50, 100)
METRICS = ("rank", "regret", "normalized_regret", *Forecast._fields)
CELL = ["split", "repeat", "seed"]
_KEYS = SCHEMA.names[:8]


def result_table(
    database: str, cells: Sequence[Cell], trajectories: Mapping[str, Trajectory]
) -> pa.Table:
    """Rows of cells, from the trajectories of each method (`amt.evaluation.experiment.Experiment.run`)."""
    rows = []
    for method, trajectory in trajectories.items():
        for index, cell in enumerate(cells):
            config, epoch, score, recommended = (np.asarray(leaf)[index] for leaf in trajectory[:4])
            nothing = Forecast(*[np.full((index + 1, len(score)), np.nan)] * 3)
            forecast = trajectory.forecast or nothing
            target = cell.split.target
            curves = target.scores[0]
            columns = {
                **_key_columns(database, cell, method, len(score)),
                "config": config,
                "epoch": target.epochs[epoch],
                "score": score,
                "recommended": recommended,
                "rank": rank(curves, recommended),
                "regret": regret(curves, recommended),
                "normalized_regret": normalized_regret(curves, recommended),
                **{n: np.asarray(leaf)[index] for n, leaf in forecast._asdict().items()},
            }
            arrays = [pa.array(columns[f.name]).cast(f.type) for f in SCHEMA]
            rows.append(pa.Table.from_arrays(arrays, schema=SCHEMA))
    return _in_order(pa.concat_tables(rows))


def read_part(
    path: Path, database: str, cells: Sequence[Cell], *, methods: Sequence[str], budget: int
) -> pa.Table | None:
    """The rows of a chunk from the file of an earlier run; None unless they are all there."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
    except (OSError, pa.ArrowException):
        return None
    if table.schema != SCHEMA:
        return None
    keys = [
        pa.table({k: pa.array(v).cast(SCHEMA.field(k).type) for k, v in columns.items()})
        for method in methods
        for cell in cells
        for columns in [_key_columns(database, cell, method, budget)]
    ]
    expected = _in_order(pa.concat_tables(keys))
    return table if table.select(_KEYS).equals(expected) else None


def merge_parts(parts: Sequence[pa.Table]) -> pa.Table:
    """All rows, in an order that does not depend on the chunks."""
    return _in_order(pa.concat_tables(parts))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file, completely or not at all."""
    atomic_write(path, lambda file: pq.write_table(table, file, write_page_checksum=True))


def open_folder(folder: Path, settings: Mapping[str, Any], provenance: Mapping[str, Any]) -> bool:
    """Prepare the folder of a run; whether parts of an earlier run were thrown away.

    Earlier parts stay if they had the same settings and provenance (data, code, versions). With
    another provenance their numbers need not be the same, so that they are deleted.

    Raises:
        ValueError: the folder has results of other settings.
    """
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    for left_over in [*folder.glob(f"*{TEMPORARY}"), *folder.glob(f"parts/*{TEMPORARY}")]:
        left_over.unlink(missing_ok=True)
    record = json.loads(json.dumps({"settings": settings, "provenance": provenance}))
    path = folder / "settings.json"
    earlier = read_json(path) or {}
    if "settings" in earlier and earlier["settings"] != record["settings"]:
        raise ValueError(f"{folder} has results of other settings: give another output folder")
    stale = [] if earlier == record else [*folder.glob("parts/*"), *folder.glob("*.parquet")]
    for file in stale:
        file.unlink()
    write_json(path, record)
    return bool(stale)


def fingerprint(*content: bytes | np.ndarray | str) -> str:
    """SHA-256 of bytes, texts and arrays."""
    digest = hashlib.sha256()
    for item in content:
        if isinstance(item, np.ndarray):
            digest.update(f"{item.dtype}{item.shape}".encode())
            item = np.ascontiguousarray(item).tobytes()
        digest.update(item.encode() if isinstance(item, str) else item)
    return digest.hexdigest()


@cache
def code_fingerprint() -> str:
    """SHA-256 of the source code of `amt`, whose numbers may change with it."""
    package = Path(__file__).parents[1]
    files = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
    return fingerprint(*files, *((package / file).read_bytes() for file in files))


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """Mean over cells and standard error of every metric, by method and query.

    Columns are `method`, `query`, and for each of `METRICS` its mean under its name and its
    standard error under the name with `_error` appended. Methods are in the order of `METHODS`.
    """
    parts = []
    for method in [m for m in METHODS if m in set(results["method"])]:
        rows = results.loc[results["method"] == method]
        columns: dict[str, Any] = {"method": method}
        for metric in METRICS:
            by_cell = rows.pivot(index=CELL, columns="query", values=metric)
            columns["query"] = by_cell.columns
            mean, error = mean_and_standard_error(by_cell.to_numpy())
            columns |= {metric: mean, f"{metric}_error": error}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def shown_budgets(queries: Collection[int]) -> list[int]:
    """Those of `BUDGETS` that there are, else the largest there is: what tables show."""
    return [budget for budget in BUDGETS if budget in queries] or [max(queries)]


def _key_columns(database: str, cell: Cell, method: str, budget: int) -> dict[str, Any]:
    return {
        "database": [database] * budget,
        "split": np.full(budget, cell.split.index),
        "sources": [",".join(cell.split.sources.tasks)] * budget,
        "target": [cell.split.target.tasks[0]] * budget,
        "repeat": np.full(budget, cell.split.repeat),
        "seed": np.full(budget, cell.seed),
        "method": [method] * budget,
        "query": np.arange(1, budget + 1),
    }


def _in_order(table: pa.Table) -> pa.Table:
    """By split, repeat, seed, method in the order of `METHODS`, and query; as one chunk."""
    place = {name: number for number, name in enumerate(METHODS)}
    method = np.array([place[m] for m in table["method"].to_pylist()])
    split, repeat, seed, query = (table[c].to_numpy() for c in (*CELL, "query"))
    order = np.lexsort((query, method, seed, repeat, split))
    return table.take(pa.array(order)).combine_chunks()
