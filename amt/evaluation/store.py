"""Results of experiments as Parquet files: resumable, and the same bytes for the same numbers.

A run writes one part for each tuner and chunk of cells as soon as it is computed, and at the end
merges the parts into `results.parquet`. Every file is written under a temporary name in its own
folder, flushed to disk and then renamed, so that a file that exists is complete. A run that was
killed finds its parts, computes those that are missing, and its merged file is byte-identical to
that of an uninterrupted run: no time, date or host is in it. Those are in `timings.json`.

    settings.json              settings that all parts share
    parts/<tuner>/0000.parquet rows of the tuner's first chunk (`amt.evaluation.rows`), and so on
    parts/<tuner>/0000.json    provenance (`amt.evaluation.provenance`), seconds, diagnostics
    results.parquet            all rows, by split, repeat, seed, method, order and query
    timings.json               seconds and diagnostics of all parts; machine of the latest run
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from amt.evaluation.rows import KEYS, SCHEMA, in_order
from amt.files import TEMPORARY, atomic_write, read_json, write_json


class Part(NamedTuple):
    """Rows of one tuner on one chunk, and how they came about.

    Attributes:
        record: has the `provenance`, `seconds` and `diagnostics`.
    """

    table: pa.Table
    record: Mapping[str, Any]


def read_part(path: Path, keys: pa.Table, provenance: Mapping[str, Any]) -> Part | None:
    """A part of an earlier run; None unless it is whole and has these keys and provenance."""
    record = read_json(path.with_suffix(".json"))
    if record is None or record["provenance"] != _as_json(provenance):
        return None
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
    except (OSError, pa.ArrowException):
        return None
    if table.schema != SCHEMA or not table.select(KEYS).equals(keys):
        return None
    return Part(table, record)


def write_part(path: Path, part: Part) -> None:
    """Write a part's rows, and then its record, which says that the rows are there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, part.table)
    write_json(path.with_suffix(".json"), part.record)


def is_outdated(path: Path, provenance: Mapping[str, Any]) -> bool:
    """Whether a part is there, of other data, code or versions."""
    record = read_json(path.with_suffix(".json"))
    return record is not None and record["provenance"] != _as_json(provenance)


def merge_parts(parts: Sequence[pa.Table]) -> pa.Table:
    """All rows, in an order that does not depend on the chunks, methods as they first appear."""
    return in_order(pa.concat_tables(parts))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file, completely or not at all."""
    atomic_write(path, lambda file: pq.write_table(table, file, write_page_checksum=True))


def open_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Prepare the folder of a run, and remove what a run that was killed was about to write.

    Raises:
        ValueError: the folder has results of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.rglob(f"*{TEMPORARY}"):
        left_over.unlink(missing_ok=True)
    path, record = folder / "settings.json", {"settings": _as_json(settings)}
    earlier = read_json(path) or record
    if earlier["settings"] != record["settings"]:
        raise ValueError(f"{folder} has results of other settings: give another output folder")
    write_json(path, record)


def _as_json(content: Any) -> Any:
    return json.loads(json.dumps(content))
