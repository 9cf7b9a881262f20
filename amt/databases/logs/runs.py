"""One table in long form of the logs of many runs, and the hyperparameters beside a log."""

import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from amt.databases.long_form.table import OPTIONAL, REQUIRED

if TYPE_CHECKING:
    import pandas as pd

_EMPTY = ("", "NA")  # as Keras writes what was not evaluated
_SETTINGS = ("params.json", "config.json", "hparams.json", "hparams.yaml", "config.yaml")


class Run(NamedTuple):
    """A training run as a tool logged it.

    Attributes:
        history: the logged values: texts, of which those that are empty or NA were not logged, or
            numbers, of which NaN were not. The text `nan` is a value.
        hyperparameters: by name, nested or not.
        task: what it is called unless a hyperparameter names it.
        name: for messages.
    """

    history: "pd.DataFrame"
    hyperparameters: Mapping[str, Any]
    task: str = ""
    name: str = ""


def gather(
    runs: "Iterable[Run | tuple[pd.DataFrame, Mapping[str, Any]]]",
    score: str,
    *,
    epoch: str,
    task: str | None = None,
    first_epoch: int = 1,
) -> "pd.DataFrame":
    """A table in long form of runs: task, epoch, score, seed where there are several, and settings.

    Rows without the score are left out. Where a run has scores of an epoch several times, as one
    that was resumed has, the last counts.

    Args:
        runs: each a history and hyperparameters.
        score, epoch: the names in histories of the metric and of what counts epochs.
        task: the name of the hyperparameter that tells the task of a run, such as its data set.
        first_epoch: what the histories call the first epoch, which is 1 in the table.

    Raises:
        ValueError: there is no run with the score, or one lacks the task or all hyperparameters.

    Warns:
        UserWarning: runs lack the score, or have it several times at an epoch.
    """
    import pandas as pd

    parts, counts, lacking, again = [], {}, [], []
    given: Any
    for number, given in enumerate(runs):
        run = Run(*given)
        name = run.name or f"run {number}"
        settings = flatten(run.hyperparameters)
        if task is not None and task not in settings:
            there = ", ".join(settings) or "none"
            raise ValueError(f"{name} has no hyperparameter {task!r}; there are {there}")
        if not settings.keys() - {task}:
            raise ValueError(f"{name} has no hyperparameters: there are none beside its log")
        history: Any = run.history
        if score not in history or epoch not in history:
            lacking.append(name)
            continue
        values = history[score]
        history = history[~(values.isna() | values.isin(_EMPTY)).to_numpy()]
        if not len(history):
            lacking.append(name)
            continue
        twice = history[epoch].duplicated(keep="last").to_numpy()
        if twice.any():
            again.append(name)
            history = history[~twice]
        of_task = run.task if task is None else settings.pop(task)
        settings = {
            f"config/{key}" if key in (*REQUIRED, *OPTIONAL[:1]) else key: value
            for key, value in settings.items()
        }
        part = pd.DataFrame(
            {"task": of_task, "epoch": history[epoch], "score": history[score].astype("str")}
        )
        if first_epoch != 1:
            epochs: Any = pd.to_numeric(part["epoch"])
            part["epoch"] = epochs + (1 - first_epoch)
        same = json.dumps([of_task, settings], sort_keys=True)
        counts[same] = counts.get(same, -1) + 1
        parts.append(part.assign(**{"seed": str(counts[same]), **settings}))
    if not parts:
        raise ValueError(f"no run has values of {score!r} by {epoch!r}: {', '.join(lacking[:5])}")
    for what, names in (
        (f"have no {score!r} by {epoch!r} and are left out", lacking),
        (f"have several values of {score!r} at an epoch, of which the last counts", again),
    ):
        if names:
            more = ", ..." if len(names) > 3 else ""
            warnings.warn(f"{len(names)} runs {what}: {', '.join(names[:3])}{more}", stacklevel=3)
    table: Any = pd.concat(parts, ignore_index=True)
    settings = [c for c in table.columns if c not in ("task", "epoch", "score")]
    table[settings] = table[settings].fillna("")
    table = table.drop(columns=[c for c in settings if (table[c] == "").all()])
    several = max(counts.values()) or (table["seed"] != "0").any()
    return table if several else table.drop(columns="seed")


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Texts of nested settings, names joined by dots; empty where they are None.

    Entries `{"desc": ..., "value": ...}`, as W&B writes them, are their values, and what starts
    with an underscore is left out.
    """
    flat = {}
    for key, value in settings.items():
        if str(key).startswith("_") or key == "wandb_version":
            continue
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and "value" in value and {*value} <= {"desc", "value"}:
            value = value["value"]
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        elif isinstance(value, list | tuple | dict):
            flat[name] = json.dumps(value)
        else:
            flat[name] = "" if value is None else str(value)
    return flat


def settings_beside(log: Path) -> dict[str, Any]:
    """The hyperparameters in a file beside a log; none if there is no such file.

    It is called as the log, but ends in `.json` or `.yaml`, or `params.json`, `config.json`,
    `hparams.json`, `hparams.yaml` or `config.yaml`.
    """
    names = *(log.with_suffix(ending).name for ending in (".json", ".yaml")), *_SETTINGS
    for name in names:
        path = log.with_name(name)
        if path != log and path.is_file():
            text = path.read_text()
            return json.loads(text) if path.suffix == ".json" else _read_yaml(text)
    return {}


def _read_yaml(text: str) -> dict[str, Any]:
    """The content of a YAML file, objects of Python in it as their texts."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def plain(loader: Any, suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node) or suffix

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", plain)
    return yaml.load(text, Loader) or {}  # of SafeLoader's kind: it makes no objects
