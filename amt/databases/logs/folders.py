"""Reads the folders in which tools log, a folder or a file for each run."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amt.databases.logs.runs import Run, gather, settings_beside

if TYPE_CHECKING:
    import pandas as pd

Given = Mapping[str, Mapping[str, Any]] | None
Folder = str | PathLike[str]


def lightning(
    folder: Folder,
    score: str,
    *,
    task: str | None = None,
    epoch: str = "epoch",
    hyperparameters: Given = None,
) -> "pd.DataFrame":
    """Runs of Lightning's `CSVLogger`, `metrics.csv` and `hparams.yaml` in a folder for each.

    Of each epoch there are rows of training and rows of validation, which have values of `score`
    or none. Lightning counts epochs and steps from 0.

    Source: `lightning/fabric/loggers/csv_logs.py`, `lightning/pytorch/loggers/csv_logs.py`.
    """
    runs = _runs(folder, "metrics.csv", _read_csv, hyperparameters)
    return gather(runs, score, epoch=epoch, task=task, first_epoch=0)


def keras(
    folder: Folder,
    score: str,
    *,
    task: str | None = None,
    separator: str = ",",
    hyperparameters: Given = None,
) -> "pd.DataFrame":
    """Runs of Keras' `CSVLogger`, a `.csv` or `.log` file for each.

    Keras does not log hyperparameters: they are in a JSON file beside it, or given. It counts
    epochs from 0, and writes NA for what was not evaluated.

    Source: `keras/src/callbacks/csv_logger.py`.
    """
    read = partial(_read_csv, separator=separator)
    runs = [r for p in ("*.csv", "*.log") for r in _runs(folder, p, read, hyperparameters)]
    return gather(runs, score, epoch="epoch", task=task, first_epoch=0)


def ray(
    folder: Folder,
    score: str,
    *,
    task: str | None = None,
    epoch: str = "training_iteration",
    hyperparameters: Given = None,
) -> "pd.DataFrame":
    """Trials of Ray Tune, `progress.csv` or else `result.json`, and `params.json` in a folder each.

    Nested results are joined by slashes, as in `progress.csv`.

    Source: `ray/tune/logger/csv.py`, `ray/tune/logger/json.py`.
    """
    runs = [*_runs(folder, "progress.csv", _read_csv, hyperparameters)]
    known = {run.name for run in runs}
    more = _runs(folder, "result.json", _read_json_lines, hyperparameters)
    runs += [run for run in more if run.name not in known]
    return gather(runs, score, epoch=epoch, task=task)


def wandb(
    folder: Folder,
    score: str,
    *,
    task: str | None = None,
    epoch: str = "_step",
    hyperparameters: Given = None,
) -> "pd.DataFrame":
    """Histories of W&B, a `.csv` file for each run with its configuration beside it.

    They are what `run.history().to_csv(f"{run.id}.csv")` writes, with `run.config` as
    `f"{run.id}.json"`, or with the `config.yaml` of the run's files. `_step` counts from 0; of
    another `epoch` that does, read the table with `first_epoch=0`.

    Source: W&B's documentation of its public API, class `Run`.
    """
    runs = _runs(folder, "*.csv", _read_csv, hyperparameters)
    return gather(runs, score, epoch=epoch, task=task, first_epoch=int(epoch != "_step"))


def wandb_chart(
    path: Folder,
    score: str,
    hyperparameters: Mapping[str, Mapping[str, Any]],
    *,
    task: str | None = None,
) -> "pd.DataFrame":
    """Line plots of W&B, exported as CSV from their panels: one such file, or all in a folder.

    The first column is the x axis, which has to count steps (from 0, if it is `Step`) or epochs,
    not time. Each run has a column `RUN - SCORE`; those of its range within a point, `__MIN` and
    `__MAX`, are not read. A panel has up to 1500 points of a run, and no hyperparameters: those of
    each run are in the table of runs, exported as `runs.csv`, say,

    ```python
    runs = pd.read_csv("runs.csv").set_index("Name")[["lr", "width", "dataset"]]
    table = wandb_chart("chart.csv", "val_acc", runs.to_dict("index"), task="dataset")
    ```

    Source: such exports in public repositories.

    Raises:
        ValueError: the x axis is time, there is no such score, two runs have one name, or a run has
            no hyperparameters.
    """
    path = Path(path).expanduser()
    files = sorted(path.rglob("*.csv")) if path.is_dir() else [path]
    runs = [run for file in files for run in _runs_of_chart(file, score, hyperparameters)]
    if not runs:
        raise ValueError(f"there is no CSV file with columns `RUN - {score}` in {path}")
    return gather(runs, score, epoch="x", task=task)


def _runs_of_chart(path: Path, score: str, given: Mapping[str, Mapping[str, Any]]) -> Iterator[Run]:
    """The runs that a chart has columns of."""
    import pandas as pd

    table, ending = _read_csv(path), f" - {score}"
    x = str(table.columns[0])
    for column in table.columns[1:]:
        if re.sub(r"\.\d+$", "", column) != column and re.sub(r"\.\d+$", "", column) in table:
            raise ValueError(f"{path.name} has several runs called {column.rsplit('.', 1)[0]!r}")
        if not column.endswith(ending):
            continue
        if "time" in x.lower():
            raise ValueError(f"the x axis of {path.name} is {x!r}: export it by step or epoch")
        name = column.removesuffix(ending)
        at: Any = pd.to_numeric(table[x])
        history = pd.DataFrame({"x": at + (x == "Step"), score: table[column]})
        yield Run(history, given.get(name, {}), path.parent.resolve().name, name)


def tensorboard(
    folder: Folder, score: str, *, task: str | None = None, hyperparameters: Given = None
) -> "pd.DataFrame":
    """Scalars of TensorBoard: event files, or the CSV files that its page offers for download.

    Hyperparameters are those of its HParams plugin, in the run's folder or one below it, those
    in a file beside it, or given. Downloads are called `run-NAME-tag-TAG.csv`, and have none: they
    are in `NAME.json`, or given.

    Raises:
        ImportError: there are event files, and the package tensorboard is not installed.
    """
    root, given = _folder(folder), hyperparameters or {}
    runs = [*_downloaded_runs(root, score, given), *_event_runs(root, score, given)]
    return gather(runs, score, epoch="step", task=task)


def _runs(
    folder: Folder, pattern: str, read: Callable[[Path], "pd.DataFrame"], given: Given
) -> Iterator[Run]:
    """The runs of the logs below a folder, each called by its path there.

    A log of a name of its own is a run in the folder, one of a fixed name is a folder's.
    """
    root = _folder(folder)
    for path in sorted(root.rglob(pattern)):
        run = path.with_suffix("") if "*" in pattern else path.parent
        name = run.relative_to(root).as_posix()
        settings = (given or {}).get(name) or settings_beside(path)
        yield Run(read(path), settings, run.parent.resolve().name, name)


def _folder(folder: Folder) -> Path:
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    return root


def _read_csv(path: Path, separator: str = ",") -> "pd.DataFrame":
    import pandas as pd

    return pd.read_csv(path, dtype="str", keep_default_na=False, sep=separator)


def _read_json_lines(path: Path) -> "pd.DataFrame":
    import pandas as pd

    def joined(result: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
        flat = {}
        for key, value in result.items():
            if isinstance(value, dict):
                flat |= joined(value, f"{prefix}{key}/")
            else:
                flat[prefix + key] = "" if value is None else str(value)
        return flat

    return pd.DataFrame([joined(json.loads(line)) for line in path.read_text().splitlines()])


def _downloaded_runs(
    root: Path, score: str, given: Mapping[str, Mapping[str, Any]]
) -> Iterator[Run]:
    """The runs of the CSV files that TensorBoard's page offers, of one tag if they name it."""

    def word(name: str) -> str:
        return re.sub(r"\W", "_", name)

    for path in sorted(root.rglob("*.csv")):
        named = re.fullmatch("run-(.*)-tag-(.*)", path.stem)
        if named is None or word(named[2]) == word(score):
            name = path.stem if named is None else named[1]
            settings = given.get(name) or settings_beside(path.with_name(f"{name}.csv"))
            history = _read_csv(path).rename(columns={"Step": "step", "Value": score})
            yield Run(history, settings, path.parent.resolve().name, name)


def _event_runs(root: Path, score: str, given: Mapping[str, Mapping[str, Any]]) -> Iterator[Run]:
    """The runs below a folder whose event files have a scalar."""
    import pandas as pd

    folders = sorted({path.parent for path in root.rglob("*tfevents*")})
    if not folders:
        return
    try:
        accumulator: Any = import_module("tensorboard.backend.event_processing.event_accumulator")
        plugin: Any = import_module("tensorboard.plugins.hparams.plugin_data_pb2")
        tensor_util: Any = import_module("tensorboard.util.tensor_util")
    except ImportError as error:
        raise ImportError(
            "event files need the package tensorboard: `pip install amt[tensorboard]`"
        ) from error
    logs, settings = {}, {}
    for folder in folders:
        log = accumulator.EventAccumulator(str(folder), {"scalars": 0, "tensors": 0}).Reload()
        tags = log.Tags()
        if score in tags["scalars"]:
            logs[folder] = [(event.step, event.value) for event in log.Scalars(score)]
        elif score in tags["tensors"]:
            tensors = log.Tensors(score)
            logs[folder] = [
                (t.step, tensor_util.make_ndarray(t.tensor_proto).item()) for t in tensors
            ]
        plugins = log.summary_metadata.get("_hparams_/session_start_info")
        if plugins is not None:
            data = plugin.HParamsPluginData.FromString(plugins.plugin_data.content)
            values = data.session_start_info.hparams
            settings[folder] = {n: getattr(v, v.WhichOneof("kind")) for n, v in values.items()}
    for folder, values in logs.items():
        name = folder.relative_to(root).as_posix()
        below = [of for at, of in settings.items() if at == folder or at.parent == folder]
        found = given.get(name) or settings_beside(folder / "events") or next(iter(below), {})
        history = pd.DataFrame(values, columns=["step", score]).astype("str")
        yield Run(history, found, folder.parent.resolve().name, name)
