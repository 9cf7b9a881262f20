"""Reads runs of MLflow from its file store or its SQLite database."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amt.databases.logs.runs import Run, gather

if TYPE_CHECKING:
    import pandas as pd


def mlflow(store: str | PathLike[str], score: str, *, task: str | None = None) -> "pd.DataFrame":
    """Runs of MLflow, from the folder `mlruns` or the file `mlflow.db`; deleted ones are left out.

    Epochs are the steps that metrics were logged at. Of a server, `gather` takes tables made of
    `MlflowClient.get_metric_history` and of `run.data.params`.

    Source: `mlflow/store/tracking/file_store.py`, `mlflow/store/tracking/dbmodels/models.py`.
    """
    path = Path(store).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no store of MLflow {path}")
    runs = _from_folder(path, score) if path.is_dir() else _from_database(path, score)
    return gather(runs, score, epoch="step", task=task)


def _history(values: list[Any], score: str) -> "pd.DataFrame":
    """The history of (time, value, step), in the order of time."""
    import pandas as pd

    values = sorted(values, key=lambda entry: int(entry[0]))
    return pd.DataFrame(values, columns=["time", score, "step"], dtype="str")


def _from_folder(store: Path, score: str) -> Iterator[Run]:
    """The runs of a file store.

    A metric is a file with lines of time, value and step, a parameter a file with its value.
    """
    import yaml

    for meta in sorted(store.glob("*/*/meta.yaml")):
        run = meta.parent
        about = yaml.safe_load(meta.read_text()) or {}
        if about.get("lifecycle_stage", "active") != "active" or not (run / "params").is_dir():
            continue
        experiment = run.with_name("meta.yaml")
        named = yaml.safe_load(experiment.read_text()) if experiment.is_file() else {}
        parameters = {
            path.relative_to(run / "params").as_posix(): path.read_text()
            for path in sorted((run / "params").rglob("*"))
            if path.is_file()
        }
        metric = run / "metrics" / score
        lines = metric.read_text().splitlines() if metric.is_file() else []
        values = [(*line.split(" "), "0")[:3] for line in lines if line]
        name = str(named.get("name", run.parent.name))
        yield Run(_history(values, score), parameters, name, f"run {run.name}")


def _from_database(path: Path, score: str) -> Iterator[Run]:
    """The runs of an SQLite database."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        runs = database.execute(
            "SELECT run_uuid, experiments.name FROM runs JOIN experiments USING (experiment_id) "
            "WHERE runs.lifecycle_stage = 'active' ORDER BY run_uuid"
        ).fetchall()
        for run, experiment in runs:
            parameters = dict(
                database.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run,))
            )
            values = database.execute(
                "SELECT timestamp, CASE WHEN is_nan THEN 'nan' ELSE value END, step FROM metrics "
                "WHERE run_uuid = ? AND key = ?",
                (run, score),
            ).fetchall()
            yield Run(_history(values, score), parameters, experiment, f"run {run}")
