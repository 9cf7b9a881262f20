"""Reads HyperRec and LCBench from the files that the authors of the AT2 paper published.

HyperRec has the validation accuracy of 100 configurations on 27 image-classification tasks after
each of 75 epochs, trained twice. LCBench, here the subset that the paper used, has that of 100
configurations on 35 tabular tasks after each of 52 epochs. Every file's SHA-256 is checked before
the file is read, and the pickles are read without running what they carry (`_unpickle`).

Sources: Xiao, Xing, Neiswanger (2021), Amortized auto-tuning; Zimmer, Lindauer, Hutter (2021),
Auto-PyTorch Tabular, for LCBench.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mode
from typing import Any

import numpy as np
from ConfigSpace import Categorical, ConfigurationSpace, EqualsCondition, Integer
from ConfigSpace import Float as Real
from ConfigSpace.hyperparameters import Hyperparameter
from jaxtyping import Float

from amt.curves import LearningCurves
from amt.databases._unpickle import load_arrays
from amt.databases.download import CHECKSUMS, data_folder


def hyperrec(folder: Path | str | None = None) -> LearningCurves:
    """HyperRec: 27 tasks, 100 configurations, 75 epochs, 2 repeats.

    Args:
        folder: the folder `at2` of `amt.databases.download`; by default the one in
            `$AMT_DATA_DIR`, or in the download cache if that variable is not set.

    Raises:
        FileNotFoundError: the files are not there; the message says how to get them.
        ValueError: a file is not the published one.
    """
    return _database("HyperRec", folder)


def lcbench(folder: Path | str | None = None) -> LearningCurves:
    """LCBench, the subset of the AT2 paper: 35 tasks, 100 configurations, 52 epochs.

    Arguments and errors are those of `hyperrec`.
    """
    return _database("LCBench", folder)


def paper_pairs(
    database: str, folder: Path | str | None = None
) -> list[tuple[tuple[str, ...], str]]:
    """The paper's five (source tasks, target task) pairs of "HyperRec" or "LCBench".

    Raises:
        KeyError: there is no such database.
        FileNotFoundError, ValueError: as `hyperrec`.
    """
    pairs = _read("train_test_pairs.json", folder, CHECKSUMS)
    if database not in pairs:
        raise KeyError(f"no pairs for {database!r}; there are some for {', '.join(pairs)}")
    return [(tuple(sources.split(",")), target) for sources, target in pairs[database]]


def hyperrec_space() -> ConfigurationSpace:
    """HyperRec's nested search space.

    The range of gamma depends on the scheduler, so that it is three hyperparameters here, which
    share a column of features.
    """
    model = Categorical("model", ["resnet34", "resnet50"])
    optimizer = Categorical("optimizer", ["Adam", "SGD"])
    schedulers = ["StepLR", "ExponentialLR", "CyclicLR", "CosineAnnealingWarmRestarts"]
    scheduler = Categorical("scheduler", schedulers)
    always, adam, sgd = None, (optimizer, "Adam"), (optimizer, "SGD")
    step, exponential, cyclic, cosine = ((scheduler, choice) for choice in schedulers)
    gamma = {"column": "gamma"}
    return _space(
        (Integer("batchsize", (32, 128)), always),
        (model, always),
        (optimizer, always),
        (Real("lr", (1e-4, 1e-1), log=True), always),
        (Real("weight_decay", (1e-5, 1e-3), log=True), always),
        (Real("betas0", (0.5, 0.999), log=True), adam),
        (Real("betas1", (0.8, 0.999), log=True), adam),
        (Real("momentum", (1e-3, 1), log=True), sgd),
        (scheduler, always),
        (Integer("step_size", (2, 20)), step),
        (Real("gamma_StepLR", (0.1, 0.5), log=True, meta=gamma), step),
        (Real("gamma_ExponentialLR", (0.85, 0.999), log=True, meta=gamma), exponential),
        (Real("gamma_CyclicLR", (0.1, 0.5), log=True, meta=gamma), cyclic),
        (Real("max_lr", (1.1e-4, 1.5e-1)), cyclic),
        (Integer("step_size_up", (1, 10)), cyclic),
        (Integer("T_0", (2, 20)), cosine),
        (Integer("T_mult", (1, 4)), cosine),
        (Real("eta_min", (0.5e-4, 0.9e-1)), cosine),
    )


def lcbench_space() -> ConfigurationSpace:
    """LCBench's search space: seven numbers."""
    return _space(
        (Integer("batch_size", (16, 512), log=True), None),
        (Real("learning_rate", (1e-4, 1e-1), log=True), None),
        (Real("momentum", (0.1, 0.99)), None),
        (Real("weight_decay", (1e-5, 1e-1)), None),
        (Integer("num_layers", (1, 5)), None),
        (Integer("max_units", (64, 1024), log=True), None),
        (Real("max_dropout", (0.0, 1.0)), None),
    )


def _space(
    *hyperparameters: tuple[Hyperparameter, tuple[Hyperparameter, str] | None],
) -> ConfigurationSpace:
    """The space of hyperparameters, each with the parent and the parent's value that activate it.

    A ConfigurationSpace sorts its hyperparameters by depth and name, and their `meta` therefore
    tells their "position" here.
    """
    space = ConfigurationSpace()
    for position, (hyperparameter, _) in enumerate(hyperparameters):
        hyperparameter.meta = {**(hyperparameter.meta or {}), "position": position}
    space.add(*(hyperparameter for hyperparameter, _ in hyperparameters))
    space.add(
        *(
            EqualsCondition(child, *parent)
            for child, parent in hyperparameters
            if parent is not None
        )
    )
    return space


def _hyperrec_config(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as HyperRec stores it, with its nested parameters under the space's names."""
    optimizer, scheduler = dict(stored["optimizer_param"]), dict(stored["scheduler_param"])
    if "betas" in optimizer:
        optimizer["betas0"], optimizer["betas1"] = optimizer["betas"]
    if "gamma" in scheduler:
        scheduler[f"gamma_{stored['scheduler']}"] = scheduler["gamma"]
    return {**stored, **optimizer, **scheduler}


def _lcbench_config(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as LCBench stores it, whose num_layers is True where it means 1."""
    return {**stored, "num_layers": int(stored["num_layers"])}


_FORMATS = {
    "HyperRec": (hyperrec_space, _hyperrec_config),
    "LCBench": (lcbench_space, _lcbench_config),
}


def _database(
    name: str, folder: Path | str | None, checksums: Mapping[str, str] = CHECKSUMS
) -> LearningCurves:
    make_space, flat = _FORMATS[name]
    space = make_space()
    stored = _read(f"{name}/configs.pkl", folder, checksums)
    profiles = _read(f"{name}/profiles.pkl", folder, checksums)
    ids = sorted(stored)
    # what is left out is constant, or a copy: CyclicLR's base_lr is lr
    configs = [
        {key: value for key, value in flat(stored[index]).items() if key in space} for index in ids
    ]
    # the authors' order: parts of a larger data set (PLACE365SUB1) come last
    tasks = sorted({t for p in profiles.values() for t in p}, key=lambda t: ("SUB" in t, t))
    repeats = _grid(name, profiles, tasks, ids)
    return LearningCurves(configs=configs, space=space, tasks=tasks, repeats=repeats)


def _read(name: str, folder: Path | str | None, checksums: Mapping[str, str]) -> Any:
    """The content of a published file, once its checksum is found right (where one is given)."""
    path = Path(data_folder() / "at2" if folder is None else folder) / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there. Run scripts/download_databases.py, or set AMT_DATA_DIR to the "
            "folder that holds at2/."
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != checksums.get(name, found):
        raise ValueError(
            f"{path} is not the published file: its SHA-256 is {found}, not {checksums[name]}. "
            "Delete it and run scripts/download_databases.py."
        )
    return json.loads(content) if path.suffix == ".json" else load_arrays(path)


def _grid(
    name: str, profiles: Mapping[int, Mapping[str, Any]], tasks: list[str], configs: list[int]
) -> Float[np.ndarray, "repeat task config epoch"]:
    """The curves as one array; an error names a curve that is missing or unlike the others."""
    curves = {
        (repeat, task, config): by_task.get(task, {}).get(config)
        for repeat, by_task in profiles.items()
        for task in tasks
        for config in configs
    }
    epochs = mode(np.shape(curve)[0] for curve in curves.values() if np.ndim(curve) == 1)
    for (repeat, task, config), curve in curves.items():
        where = f"{name}: repeat {repeat}, task {task!r}, configuration {config}"
        if curve is None:
            raise ValueError(f"{where} has no curve")
        if np.shape(curve) != (epochs,):
            raise ValueError(f"{where} has a curve of shape {np.shape(curve)}, not ({epochs},)")
        for epoch in np.flatnonzero(~np.isfinite(curve)):
            raise ValueError(f"{where}, epoch {epoch + 1} is {curve[epoch]}")
    shape = len(profiles), len(tasks), len(configs), epochs
    return np.array(list(curves.values())).reshape(shape)
