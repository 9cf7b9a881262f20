"""Runs of tuners on the splits of a database, into a folder: from plain settings to results.

Settings are those of `experiments/conf/at2.yaml`, as plain dicts, lists and values, and where
sources are to be made bad, `bad_sources`: `kind` and `share` of `bad_sources.spoil`. The folder is
that of `amt.evaluation.store`, so that a run that was stopped goes on where it was.
"""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context, get_start_method, set_start_method
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import pandas as pd

from amt import databases
from amt.curves import LearningCurves
from amt.evaluation.bad_sources import spoil
from amt.evaluation.experiment import Experiment
from amt.evaluation.plugins import load_plugins
from amt.evaluation.provenance import data_fingerprint, provenance
from amt.evaluation.rows import key_table, result_table
from amt.evaluation.settings import check_settings
from amt.evaluation.splits import make_cells, make_chunks, make_splits
from amt.evaluation.store import (
    Part,
    is_outdated,
    merge_parts,
    open_folder,
    read_part,
    write_part,
    write_table,
)
from amt.files import read_json, write_json
from amt.precision import precision
from amt.tuners import TUNERS
from amt.tuners.checks import check_choice

NOT_SHARED = ("tuners", "plugins", "workers")
"""Settings that can be others when a folder is taken up again."""


Name = TypeVar("Name")


class Run(NamedTuple):
    """The content of a run's folder.

    Attributes:
        frame: all rows.
        timings: the content of `timings.json`.
        computed, reused: numbers of parts.
        skipped: tuners that cannot run here, and why.
        anew: tuners whose parts of an earlier run had other data, code or versions.
    """

    folder: Path
    frame: pd.DataFrame
    timings: dict[str, Any]
    computed: int
    reused: int
    skipped: dict[str, str]
    anew: list[str]


def run(
    values: Mapping[str, Any],
    folder: Path,
    progress: Callable[[int, int, str], None] = lambda number, total, stage: None,
) -> Run:
    """Compute what is missing in the folder, and merge it.

    Args:
        values: settings.
        progress: is called with the position of a part, the number of them, and what begins.

    Raises:
        KeyError, FileNotFoundError: there is no such database.
        ValueError: settings that cannot be (`check_settings`), or the folder has results of others.
        RuntimeError: a tuner failed in its process.
    """
    begin = perf_counter()
    check_settings({"plugins": values["plugins"]})
    plugins = [str(Path(p).resolve()) if p.endswith(".py") else p for p in values["plugins"]]
    load_plugins(plugins)
    check_settings(values)
    for name in values["tuners"]:
        check_choice("tuner", name, TUNERS)
    records = [record for name, record in TUNERS.items() if name in values["tuners"]]
    skipped = {record.name: why for record in records if (why := record.missing())}
    records = [record for record in records if record.name not in skipped]
    if not records:
        raise ValueError(f"there is no tuner to run: {skipped or 'give their names in tuners'}")
    tuners = {record.name: record.make(**record.chosen(values)) for record in records}
    database, budget = str(values["database"]), values["budget"]
    # In a worker of joblib; a process that it spawns would look for a method of that name.
    if get_start_method(allow_none=True) == "loky":
        set_start_method("spawn", force=True)
    # Children are started by the first tuner on the host, if there is one.
    processes = ProcessPoolExecutor(
        values["workers"], get_context("spawn"), initializer=load_plugins, initargs=(plugins,)
    )
    with precision(values["precision"]), processes as executor:
        curves = _load(database, json.dumps(values["database_options"]))
        splits = make_splits(
            database,
            curves,
            kind=values["split"],
            pair=values["pair"],
            repeat=values["repeat"],
            num_sources=values["num_sources"],
            draws=values["draws"],
        )
        if bad := values.get("bad_sources"):
            splits = [s._replace(sources=spoil(s.sources, seed=s.index, **bad)) for s in splits]
        cells = make_cells(splits, seeds=values["seeds"])
        chunks = make_chunks(cells, size=values["chunk"])
        experiment = Experiment(
            budget=budget,
            precision=values["precision"],
            chunk=values["chunk"],
            executor=executor,
        )
        open_folder(folder, {k: v for k, v in values.items() if k not in NOT_SHARED})
        parts: dict[str, list[Part]] = {record.name: [] for record in records}
        data = [data_fingerprint(chunk) for chunk in chunks]
        computed, anew = 0, []
        jobs = [(record, number) for record in records for number in range(len(chunks))]
        for job, (record, number) in enumerate(jobs):
            name, chunk = record.name, chunks[number]
            path = folder / "parts" / name / f"{number:04d}.parquet"
            keys = key_table(database, chunk, name, orders=record.orders, budget=budget)
            origin = provenance(record, values, data[number])
            part = read_part(path, keys, origin)
            if part is None:
                if is_outdated(path, origin) and name not in anew:
                    anew.append(name)
                result = experiment.run(
                    tuners[name],
                    chunk,
                    orders=record.orders,
                    report=lambda stage, j=job, n=name: progress(j, len(jobs), f"{n}: {stage}"),
                )
                part = Part(
                    result_table(database, chunk, name, result.trajectory),
                    {
                        "provenance": origin,
                        "seconds": result.seconds,
                        "memory": result.memory,
                        "diagnostics": [dict(of_cell) for of_cell in result.diagnostics],
                    },
                )
                write_part(path, part)
                computed += 1
            parts[name].append(part)
        merged = merge_parts([part.table for of_tuner in parts.values() for part in of_tuner])
        write_table(folder / "results.parquet", merged)
    timings = {
        "cells": len(cells),
        **_timings({name: [p.record for p in of_tuner] for name, of_tuner in parts.items()}),
        "skipped": skipped,
        "latest_run": perf_counter() - begin,
    }
    write_json(folder / "timings.json", timings)
    reused = len(jobs) - computed
    return Run(folder, merged.to_pandas(), timings, computed, reused, skipped, anew)


class Job(NamedTuple):
    """A run that an experiment of several needs: its folder and settings."""

    folder: Path
    values: Mapping[str, Any]


def output_folder(values: dict[str, Any]) -> Path:
    """Where runs of a database go, below `output`; takes out of the settings what runs have not."""
    values.pop("log_x", None)
    return Path(values.pop("output")).resolve() / Path(values["database"]).stem


def run_jobs(
    jobs: Mapping[Name, Job], progress: Callable[[int, int, str], None]
) -> dict[Name, pd.DataFrame]:
    """Run jobs one after the other, and give the rows of each."""

    def rows(folder: Path, values: Mapping[str, Any]) -> pd.DataFrame:
        def named(number: int, total: int, stage: str) -> None:
            progress(number, total, f"{folder.name}, {stage}")

        return run(values, folder, named).frame

    return {name: rows(*job) for name, job in jobs.items()}


def difference(job: Job) -> str | None:
    """The reason why a folder does not have the finished results of a job; None if it has them."""
    settings, timings = (read_json(job.folder / f"{n}.json") for n in ("settings", "timings"))
    if settings is None or timings is None or not (job.folder / "results.parquet").exists():
        return "is missing" if settings is None else "is not finished"
    found = settings["settings"]
    wanted = json.loads(json.dumps({k: v for k, v in job.values.items() if k not in NOT_SHARED}))
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            return f"has {name}={found.get(name)!r}, not {wanted.get(name)!r}"
    tuners = {*timings["tuners"], *timings["skipped"]}
    if tuners != {*job.values["tuners"]}:
        others = sorted(tuners ^ {*job.values["tuners"]})
        return f"has other tuners: {', '.join(others)}"
    return None


@cache
def _load(database: str, options: str) -> LearningCurves:
    return databases.load(database, **json.loads(options))


def _timings(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Seconds in all and of each tuner, the worst of its diagnostics, and the machine."""
    tuners = {name: _timings_of(of_tuner) for name, of_tuner in records.items()}
    seconds = pd.DataFrame([of_tuner["seconds"] for of_tuner in tuners.values()]).sum()
    return {
        "seconds": seconds.to_dict(),
        "tuners": tuners,
        "machine": platform.platform(),
        "host": platform.node(),
        "cores": os.cpu_count(),
        "device": str(jax.devices()[0].device_kind),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def _timings_of(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seconds = pd.DataFrame([record["seconds"] for record in records]).sum()
    fits = [fit for record in records for fit in record["diagnostics"]]

    def diagnostic(name: str, summary: Callable[[np.ndarray], Any]) -> Any:
        return summary(np.array([fit[name] for fit in fits])) if name in fits[0] else None

    return {
        "seconds": seconds.to_dict(),
        "memory": max(record.get("memory", np.nan) for record in records),
        "not_converged": diagnostic("converged", lambda values: int((values == 0).sum())),
        "r_hat": diagnostic("r_hat", lambda values: float(values.max())),
        "divergences": diagnostic("divergences", lambda values: int(values.sum())),
    }
