"""Reads tables of benchmarks, and of Optuna's trials, as tables in long form."""

import json
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_OF_TASK = ("OpenML_task_id", "classes", "features", "instances")


def lcbench(path: str | PathLike[str], score: str = "Train/val_accuracy") -> "pd.DataFrame":
    """The learning curves of LCBench from its JSON file, such as `data_2k_lw.json`.

    The entries of a log are epochs 1, 2, ..., as in YAHPO Gym. Accuracies are in percent.

    Source: https://github.com/automl/LCBench, `api.py`.

    Raises:
        ValueError: there is no such log.
    """
    import pandas as pd

    content = json.loads(Path(path).expanduser().read_text())
    runs, curves = [], []
    for task, configs in content.items():
        for number, run in configs.items():
            if score not in run["log"]:
                raise ValueError(f"no log {score!r}; there are {', '.join(run['log'])}")
            config = {k: v for k, v in run["config"].items() if k not in _OF_TASK}
            runs.append({"task": task, "config": number, **config})
            curves.append(np.asarray(run["log"][score], np.float64))
    lengths = [len(curve) for curve in curves]
    table = pd.DataFrame(runs).loc[np.repeat(np.arange(len(runs)), lengths)]
    epochs = np.concatenate([np.arange(1, length + 1) for length in lengths])
    return table.assign(epoch=epochs, score=np.concatenate(curves)).reset_index(drop=True)


def hpob(path: str | PathLike[str], search_space: str) -> "pd.DataFrame":
    """The evaluations of a search space of HPO-B from a JSON file: no curves, one epoch each.

    Hyperparameters are `x0`, `x1`, ..., in the file's encoding. Evaluations of equal ones are
    seeds.

    Source: Pineda Arango, Jomaa, Wistuba, Grabocka (2021), HPO-B, section 4 and its repository.

    Raises:
        ValueError: there is no such search space.
    """
    import pandas as pd

    content = json.loads(Path(path).expanduser().read_text())
    if search_space not in content:
        raise ValueError(f"no search space {search_space!r}; there are {', '.join(content)}")
    parts = []
    for task, data in content[search_space].items():
        configs = pd.DataFrame(data["X"]).add_prefix("x")
        scores = np.asarray(data["y"], np.float64).ravel()  # each in a list of its own
        parts.append(_with_seeds(configs).assign(task=task, epoch=1, score=scores))
    return pd.concat(parts, ignore_index=True)


def optuna_trials(studies: "Mapping[str, pd.DataFrame]") -> "pd.DataFrame":
    """The final values of trials in `study.trials_dataframe()`, by the name of the study.

    That table has no intermediate values, so there is one epoch: `sources_from_studies` of
    `amt.integrations.optuna` reads curves from the storage. Trials that failed diverge, and those
    that were pruned are left out, as their value is that of an unknown step.

    Warns:
        UserWarning: always, that there are no curves.
    """
    import pandas as pd

    parts = []
    trials: Any
    for task, trials in studies.items():
        trials = trials[trials["state"].isin(["COMPLETE", "FAIL"])]
        if "value" not in trials:
            raise ValueError(f"study {task!r} has no column 'value', as with several objectives")
        parameters = trials[[c for c in trials.columns if c.startswith("params_")]]
        failed = trials["state"] == "FAIL"
        scores = trials["value"].astype("str").where(~failed, "nan")
        of_task = {"task": task, "epoch": 1, "score": scores}
        names = [c.removeprefix("params_") for c in parameters.columns]
        parts.append(_with_seeds(parameters.set_axis(names, axis=1)).assign(**of_task))
    warnings.warn(
        "trials_dataframe has no intermediate values, so that there is one epoch only; "
        "amt.integrations.optuna.sources_from_studies reads learning curves from the storage",
        stacklevel=2,
    )
    return pd.concat(parts, ignore_index=True)


def _with_seeds(configs: "pd.DataFrame") -> "pd.DataFrame":
    """Configurations with a column `seed` that counts equal ones."""
    return configs.assign(seed=configs.groupby([*configs.columns], dropna=False).cumcount())
