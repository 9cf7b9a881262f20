"""Small problems that several tests share."""

from functools import cache
from pathlib import Path

import equinox as eqx
import numpy as np
import pandas as pd
from ConfigSpace import (
    Categorical,
    ConfigurationSpace,
    EqualsCondition,
    Float,
    Integer,
)

from amt.curves import LearningCurves
from amt.evaluation.statistics import METRICS
from amt.parameters import unconstrain

METHODS = ("amt", "task_regression", "best_list", "source_best", "one_epoch_each", "random_search")
"""The tuners that `experiments/conf/at2.yaml` names."""

SMALL_RUN = {
    "database": "made up",
    "database_options": {},
    "split": "leave_one_out",
    "pair": None,
    "repeat": 0,
    "num_sources": None,
    "draws": 1,
    "tuners": ["random_search", "best_list"],
    "plugins": [],
    "workers": 1,
    "precision": "float64",
    "budget": 3,
    "seeds": 1,
    "chunk": 2,
}
"""Settings of `amt.evaluation.runs.run`, without those of amt."""


@cache
def small_space() -> ConfigurationSpace:
    """A learning rate (log), a depth, an optimizer, and a momentum that only SGD has."""
    space = ConfigurationSpace()
    optimizer = Categorical("optimizer", ["adam", "sgd"])
    momentum = Float("momentum", (0.0, 0.99))
    rate = Float("rate", (1e-4, 1.0), log=True)
    space.add([optimizer, momentum, rate, Integer("depth", (1, 9))])
    space.add(EqualsCondition(momentum, optimizer, "sgd"))
    return space


def small_configs(num_configs: int, seed: int = 0) -> list[dict]:
    """Legal configurations of `small_space`, all different."""
    rng = np.random.default_rng(seed)
    configs = []
    for index in range(num_configs):
        config = {"rate": float(10 ** rng.uniform(-4, 0)), "depth": int(rng.integers(1, 10))}
        config["optimizer"] = ("adam", "sgd")[index % 2]
        if config["optimizer"] == "sgd":
            config["momentum"] = float(rng.uniform(0, 0.99))
        configs.append(config)
    return configs


def small_curves(
    num_tasks: int = 4, num_configs: int = 6, num_epochs: int = 5, seed: int = 0
) -> LearningCurves:
    """Curves that rise to a level smooth in the configuration, similar across tasks."""
    rng = np.random.default_rng(seed)
    configs = small_configs(num_configs, seed)
    rate = np.array([np.log10(c["rate"]) / 4 + 1 for c in configs])
    depth = np.array([c["depth"] / 9 for c in configs])
    sgd = np.array([c["optimizer"] == "sgd" for c in configs])
    task = rng.normal(size=(num_tasks, 3, 1))
    best_rate, best_depth, gain = 0.5 + 0.15 * task[:, 0], 0.6 + 0.2 * task[:, 1], task[:, 2]
    level = 0.8 - (rate - best_rate) ** 2 - 0.4 * (depth - best_depth) ** 2 + 0.05 * gain * sgd
    speed = 1 + 3 * rate
    epochs = np.arange(1, num_epochs + 1) / num_epochs
    rise = 1 - 0.6 * np.exp(-speed[:, None] * epochs)
    scores = level[..., None] * rise + 0.01 * rng.normal(size=(num_tasks, num_configs, num_epochs))
    return LearningCurves(
        configs=configs,
        space=small_space(),
        tasks=[f"task {t}" for t in range(num_tasks)],
        scores=scores,
    )


def moved(model, seed, scale):
    """The model with every learned value moved at random, by `scale` where it is unconstrained."""
    rng = np.random.default_rng(seed)
    free = eqx.filter_eval_shape(_free, model)
    return _shifted(model, tuple(scale * rng.normal(size=f.shape).astype(f.dtype) for f in free))


def _free(model):
    return unconstrain(model).free


@eqx.filter_jit
def _shifted(model, by):
    free, constrain = unconstrain(model)
    return constrain(tuple(f + b for f, b in zip(free, by, strict=True)))


def write_losses(path: Path) -> list[str]:
    """Write the `small_curves` as losses, 2 minus their scores, in a .csv file.

    Returns the settings of an experiment on it.
    """
    curves = small_curves()
    rows = [
        {"task": f"t{t}", "config": c, "epoch": e + 1, "loss": 2 - score} | curves.configs[c]
        for (t, c, e), score in np.ndenumerate(curves.scores)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    options = "+database_options={minimise: true, columns: {score: loss}}"
    return [f"database={path}", "split=leave_one_out", options]


RISE = np.linspace(0.5, 1, 6)
"""How much of `peaked` is reached after each of six epochs."""


def peaked(config: dict) -> float:
    """A score that is largest for SGD at a rate and depth between those of `small_configs`."""
    rate = np.log10(config["rate"]) / 4 + 1
    sgd = config["optimizer"] == "sgd"
    return 0.9 - (rate - 0.55) ** 2 - 0.5 * (config["depth"] / 9 - 0.6) ** 2 + 0.05 * sgd


def made_up_results(splits: int = 3, budget: int = 12) -> pd.DataFrame:
    """Rows as of `amt.evaluation.rows`, their metrics uniform random numbers."""
    index = pd.MultiIndex.from_product(
        [range(splits), [0], [0], METHODS, [0], range(1, budget + 1)],
        names=["split", "repeat", "seed", "method", "order", "query"],
    )
    frame = index.to_frame(index=False)
    metrics = np.random.default_rng(splits).uniform(size=(len(METRICS), len(frame)))
    frame = frame.assign(**dict(zip(METRICS, metrics, strict=True)))
    frame = frame.assign(database="made up", target="task " + frame["split"].astype(str))
    frame = frame.assign(sources="a,b,c,d")
    return frame.assign(rank=(99 * frame["rank"]).astype(int))
