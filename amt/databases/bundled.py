"""The database inside the package: real learning curves of small networks, nothing to download.

100 multilayer perceptrons, trained for 50 epochs from 2 seeds on each of 29 real tabular and image
classification data sets: the same 100 configurations on all tasks. `scripts/build_bundled.py`
trained them and makes the stored file anew from its key; `bundled.md` names the origin and the
licence of each data set. No data set is stored, only how many rows each network got right.

The file holds exact counts of correct predictions, so that a score is count / rows. Its arrays:

    validation, test    uint16 (seed, task, config, epoch)   rows predicted correctly
    rows                int64 (task, 3)                      training, validation, test rows
    features, classes   int64 (task,)
    cost                float64 (task, config)               GFLOP of one epoch of training
    tasks               text (task,)
    configs             JSON: active hyperparameters of each configuration
    metadata            JSON: key, epochs, seeds, versions of the packages that made it
"""

import json
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ConfigSpace import (
    Categorical,
    ConfigurationSpace,
    EqualsCondition,
    Float,
    Integer,
    OrdinalHyperparameter,
)

from amt.curves import LearningCurves

PATH = Path(__file__).with_name("bundled.npz")

_COUNTS = ("validation", "test")
_ARRAYS = (*_COUNTS, "rows", "features", "classes", "cost", "tasks", "configs", "metadata")


def bundled_pairs() -> list[tuple[tuple[str, ...], str]]:
    """Five (source tasks, target task) pairs, drawn once at random, that share no task.

    They are for experiments of the shape of the AT2 paper's: four sources and one target.
    """
    tasks = np.random.default_rng(0).permutation(bundled().tasks)[:25].tolist()
    return [(tuple(tasks[i : i + 4]), tasks[i + 4]) for i in range(0, 25, 5)]


def bundled_space() -> ConfigurationSpace:
    """The search space: 16 hyperparameters, 6 of them active only under their parent's value.

    learning_rate decays by `schedule`: not (constant), along a half cosine to final_fraction of
    itself (cosine), or by the factor gamma after every step_size epochs (step). weight_decay is
    decoupled and multiplied by the learning rate.
    """
    space = ConfigurationSpace(name="bundled")
    optimizer = Categorical("optimizer", ["sgd", "adam"])
    schedule = Categorical("schedule", ["constant", "cosine", "step"])
    space.add(
        Float("learning_rate", (3e-4, 0.3), log=True),
        Float("weight_decay", (1e-5, 1.0), log=True),
        OrdinalHyperparameter("batch_size", [16, 32, 64, 128]),
        Integer("width", (4, 64), log=True),
        Integer("depth", (1, 3)),
        Float("dropout", (0.0, 0.6)),
        Float("label_smoothing", (0.0, 0.3)),
        Categorical("activation", ["relu", "tanh", "silu"]),
        optimizer,
        schedule,
    )
    conditional = [
        (Float("momentum", (0.0, 0.98)), optimizer, "sgd"),
        (Float("beta1", (0.5, 0.98)), optimizer, "adam"),
        (Float("beta2", (0.9, 0.9999)), optimizer, "adam"),
        (Float("final_fraction", (0.0, 0.5)), schedule, "cosine"),
        (Integer("step_size", (5, 25)), schedule, "step"),
        (Float("gamma", (0.05, 0.8)), schedule, "step"),
    ]
    space.add(*[child for child, _, _ in conditional])
    space.add(*[EqualsCondition(*condition) for condition in conditional])
    return space


def bundled(metric: Literal["validation", "test"] = "validation") -> LearningCurves:
    """The bundled learning curves: accuracies, the 2 seeds as repeats, cost in GFLOP an epoch.

    The cost is that of the forward and backward passes over the training rows, 6 FLOP for each
    weight and row; it is counted, not timed, and so the same on every machine.
    """
    return read_bundled(PATH, metric)


def read_bundled(
    path: str | PathLike[str], metric: Literal["validation", "test"] = "validation"
) -> LearningCurves:
    """Learning curves from a file of `scripts/build_bundled.py`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the metric is unknown, or the file is not one of the script's; the message
            says what is wrong with it.
    """
    if metric not in _COUNTS:
        raise ValueError(f"metric {metric!r} is not one of {', '.join(_COUNTS)}")
    stored = _load(Path(path))
    _check(stored, Path(path))
    rows = stored["rows"][:, 1 + _COUNTS.index(metric)]
    accuracy = stored[metric] / rows[None, :, None, None].astype(np.float64)
    return LearningCurves(
        configs=json.loads(str(stored["configs"])),
        space=bundled_space(),
        tasks=[str(task) for task in stored["tasks"]],
        cost=np.broadcast_to(stored["cost"][..., None], accuracy.shape[1:]).copy(),
        repeats=accuracy,
    )


def bundled_metadata(path: str | PathLike[str] = PATH) -> dict[str, Any]:
    """The key, epochs and versions that a file was made with, and the sizes of each task."""
    stored = _load(Path(path))
    _check(stored, Path(path))
    tasks = {
        str(task): {
            "rows": dict(zip(("training", *_COUNTS), rows.tolist(), strict=True)),
            "features": int(features),
            "classes": int(classes),
        }
        for task, rows, features, classes in zip(
            *(stored[name] for name in ("tasks", "rows", "features", "classes")), strict=True
        )
    }
    return {**json.loads(str(stored["metadata"])), "tasks": tasks}


def _load(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(
            f"no bundled database at {path}; scripts/build_bundled.py makes it anew"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a readable npz file: {error}") from error


def _check(stored: dict[str, np.ndarray], path: Path) -> None:
    missing = [name for name in _ARRAYS if name not in stored]
    if missing:
        raise ValueError(f"{path} has no array {missing[0]!r}; it is not a bundled database")
    try:
        configs = json.loads(str(stored["configs"]))
        metadata = json.loads(str(stored["metadata"]))
        shape = (metadata["seeds"], len(stored["tasks"]), len(configs), metadata["epochs"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} has broken configurations or metadata: {error!r}") from error
    wanted = dict.fromkeys(_COUNTS, shape) | {"rows": (shape[1], 3), "cost": shape[1:3]}
    wanted |= {"features": shape[1:2], "classes": shape[1:2]}
    for name, expected in wanted.items():
        if stored[name].shape != expected:
            raise ValueError(
                f"{path}: {name!r} has the shape {stored[name].shape}, not {expected} as its "
                "tasks, configurations, epochs and seeds say"
            )
    for split, name in enumerate(_COUNTS, start=1):
        if (stored[name] > stored["rows"][:, split, None, None]).any():
            raise ValueError(f"{path}: {name!r} counts more correct rows than there are")
