"""Runs of the closed loop into a folder: from plain settings to results, resumable.

Settings are those of `experiments/conf/at2.yaml`, as plain dicts, lists and values. The folder is
that of `amt.evaluation.store`.
"""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import jax
import pandas as pd

from amt import databases
from amt.curves import LearningCurves
from amt.evaluation import store as results
from amt.evaluation.experiment import (
    METHODS,
    Cell,
    Experiment,
    Settings,
    make_cells,
    make_chunks,
    make_splits,
)
from amt.precision import precision


class Run(NamedTuple):
    """What a run left in its folder.

    Attributes:
        frame: all rows.
        timings: the content of `timings.json`.
        computed, reused: numbers of chunks.
        anew: whether data, code or versions were others in an earlier run, whose chunks were thrown
            away.
    """

    folder: Path
    frame: pd.DataFrame
    timings: dict[str, Any]
    computed: int
    reused: int
    anew: bool


def run(
    values: Mapping[str, Any],
    folder: Path,
    progress: Callable[[int, int, str], None] = lambda number, total, stage: None,
) -> Run:
    """Compute what is missing in the folder, and merge it.

    Args:
        values: settings.
        progress: is called with the position of a chunk, the number of them, and what begins.

    Raises:
        KeyError, FileNotFoundError: there is no such database.
        ValueError: settings that cannot be, or the folder has results of others.
    """
    begin = perf_counter()
    settings = read_settings(values)
    database = str(values["database"])
    curves = _load(database, json.dumps(values["database_options"]))
    splits = make_splits(
        database, curves, kind=values["split"], pair=values["pair"], repeat=values["repeat"]
    )
    cells = make_cells(splits, seeds=values["seeds"])
    chunks = make_chunks(cells, size=values["chunk"])
    with precision(settings.precision):
        anew = results.open_folder(folder, values, _provenance(cells))
        experiment = Experiment(settings, chunk=max(len(chunk) for chunk in chunks))
        tables, records, computed = [], [], 0
        for number, chunk in enumerate(chunks):
            path = folder / "parts" / f"{number:04d}.parquet"
            expected: Any = {"methods": METHODS, "budget": settings.budget}
            table = results.read_part(path, database, chunk, **expected)
            record = results.read_json(path.with_suffix(".json"))
            if table is None or record is None:
                result = experiment.run(chunk, lambda s, n=number: progress(n, len(chunks), s))
                table = results.result_table(database, chunk, result.trajectories)
                record = {"seconds": result.seconds, "diagnostics": result.diagnostics}
                results.write_json(path.with_suffix(".json"), record)
                results.write_table(path, table)
                computed += 1
            tables.append(table)
            records.append(record)
        merged = results.merge_parts(tables)
        results.write_table(folder / "results.parquet", merged)
    timings = _timings(records, len(cells)) | {"latest_run": perf_counter() - begin}
    results.write_json(folder / "timings.json", timings)
    return Run(folder, merged.to_pandas(), timings, computed, len(chunks) - computed, anew)


def read_settings(values: Mapping[str, Any]) -> Settings:
    """The part of the settings that a cell's numbers depend on."""
    inference, acquisition = dict(values["inference"]), dict(values["acquisition"])
    return Settings(
        **values["kernel"],
        inference=inference.pop("name"),
        restarts=inference.pop("restarts"),
        inference_options=inference,
        noise=values["noise"],
        nugget=values["nugget"],
        precision=values["precision"],
        acquisition=acquisition.pop("name"),
        acquisition_options=acquisition,
        budget=values["budget"],
    )


@cache
def _load(database: str, options: str) -> LearningCurves:
    return databases.load(database, **json.loads(options))


def _provenance(cells: Sequence[Cell]) -> dict[str, Any]:
    """What numbers depend on beside the settings."""
    splits = {(cell.split.index, cell.split.repeat): cell.split for cell in cells}.values()
    data = [a for s in splits for a in (s.sources.scores, s.sources.features, s.target.scores)]
    return {
        "data": results.fingerprint(*data),
        "code": results.code_fingerprint(),
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "platform": jax.default_backend(),
        "devices": jax.device_count(),
    }


def _timings(records: Sequence[Mapping[str, Any]], cells: int) -> dict[str, Any]:
    """Of all parts: seconds in all, the worst of the diagnostics, and the machine."""
    seconds = pd.DataFrame([record["seconds"] for record in records]).sum()
    fits = pd.DataFrame([fit for record in records for fit in record["diagnostics"]])
    return {
        "cells": cells,
        "seconds": seconds.to_dict(),
        "not_converged": int((fits["converged"] == 0).sum()) if "converged" in fits else None,
        "r_hat": float(fits["r_hat"].max()) if "r_hat" in fits else None,
        "divergences": int(fits["divergences"].sum()) if "divergences" in fits else None,
        "machine": platform.platform(),
        "host": platform.node(),
        "cores": os.cpu_count(),
        "device": str(jax.devices()[0].device_kind),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }
