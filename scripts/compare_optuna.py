"""Compares AMTSampler and AMTPruner with the configuration that is best on the past tasks.

```sh
python scripts/compare_optuna.py
```

Tasks are three data sets of scikit-learn, on which networks are trained while it runs (as by
experiments/live.py), with four other data sets of the bundled database as past tasks, and the task
of README.md. A study spends the epochs of 15 full trainings. Its best completed trial must be as
good as the configuration with the best mean z-score of final scores on the past tasks.

A seed is that of the data's split, of the training and of the sampler. The same configuration is
trained the same way in both, so that they do not differ by the noise of training, which on small
data sets is larger than what configurations make.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in experiments/at2.py

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optuna
import pandas as pd
from sklearn.datasets import load_wine

from amt.compilation import use_compilation_cache
from amt.curves import LearningCurves
from amt.databases.bundled import bundled
from amt.databases.raw_data import DATASETS
from amt.integrations.optuna import AMTPruner, AMTSampler, sources_from_studies
from amt.space import config_key

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments"))
from live import SOURCES, Trainer  # pyright: ignore[reportMissingImports]

wine: Any = partial(load_wine, return_X_y=True)  # the bundled database does not have it
DATASETS["wine"] = wine
TARGETS = ("digits", "breast_cancer", "wine")
EPOCHS = 12  # of a full training of a network
TRAININGS = 15
CANDIDATES = 32  # random ones of the sampler


def best_on_sources(sources: LearningCurves) -> int:
    """The configuration with the best mean z-score of final scores; each task may have its own."""
    final = sources.scores[:, :, -1]
    mean, deviation = np.nanmean(final, 1, keepdims=True), np.nanstd(final, 1, keepdims=True)
    return int(np.nanargmax(np.nanmean((final - mean) / deviation, 0)))


def spend(
    sampler: AMTSampler, objective: Callable[[optuna.Trial], float], epochs: int
) -> optuna.Study:
    """A study of a maximised metric that ends with the trial in which the epochs are spent."""
    study = optuna.create_study(
        direction="maximize", sampler=sampler, pruner=AMTPruner(sampler), study_name="new"
    )

    def stop(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if sum(len(t.intermediate_values) for t in study.get_trials(deepcopy=False)) >= epochs:
            study.stop()

    study.optimize(objective, callbacks=[stop])
    return study


def suggest(trial: optuna.Trial) -> dict:
    """A configuration of the bundled database's networks."""
    config = {
        "activation": trial.suggest_categorical("activation", ["relu", "tanh", "silu"]),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64, 128]),
        "depth": trial.suggest_int("depth", 1, 3),
        "dropout": trial.suggest_float("dropout", 0.0, 0.6),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.3),
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 0.3, log=True),
        "optimizer": trial.suggest_categorical("optimizer", ["sgd", "adam"]),
        "schedule": trial.suggest_categorical("schedule", ["constant", "cosine", "step"]),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1.0, log=True),
        "width": trial.suggest_int("width", 4, 64, log=True),
    }
    if config["optimizer"] == "sgd":
        config["momentum"] = trial.suggest_float("momentum", 0.0, 0.98)
    else:
        config["beta1"] = trial.suggest_float("beta1", 0.5, 0.98)
        config["beta2"] = trial.suggest_float("beta2", 0.9, 0.9999)
    if config["schedule"] == "cosine":
        config["final_fraction"] = trial.suggest_float("final_fraction", 0.0, 0.5)
    elif config["schedule"] == "step":
        config["gamma"] = trial.suggest_float("gamma", 0.05, 0.8)
        config["step_size"] = trial.suggest_int("step_size", 5, 25)
    return config


def on_networks(target: str, seed: int, folder: Path) -> tuple[optuna.Study, float]:
    """A study of a data set, and the accuracy there of the best on the past tasks."""
    curves = bundled().repeat(0).select(epochs=range(1, EPOCHS + 1))
    sources = curves.select(tasks=SOURCES)
    train = Trainer(target, seed, folder)
    best = best_on_sources(sources)
    reference, _ = train(best, dict(sources.configs[best]), EPOCHS)
    number = {config_key(sources.space, config): n for n, config in enumerate(sources.configs)}

    def objective(trial: optuna.Trial) -> float:
        config, score = suggest(trial), 0.0
        # Numbers of networks say from where they start; those up to 99 are the database's.
        own = number.get(config_key(sources.space, config), 100 + trial.number)
        for epoch in range(1, EPOCHS + 1):
            score, _ = train(own, config, epoch)
            trial.report(score, epoch - 1)
            if trial.should_prune():
                raise optuna.TrialPruned
        return score

    sampler = AMTSampler(sources, seed=seed, candidates=CANDIDATES)
    return spend(sampler, objective, TRAININGS * EPOCHS), reference


def on_readme(seed: int) -> tuple[optuna.Study, float]:
    """The task of README.md, and the value there of the best on its two past studies."""

    def value(x: float, best: float, epoch: int) -> float:
        return 0.9 - (x - best) ** 2 / 20 - 0.5 ** (epoch + 1)

    def objective(trial: optuna.Trial, best: float) -> float:
        x = trial.suggest_float("log_learning_rate", -5, 0)
        for epoch in range(10):
            trial.report(value(x, best, epoch), epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value(x, best, 9)

    storage = optuna.storages.InMemoryStorage()
    for name, best in {"first": -3.0, "second": -2.5}.items():
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed),
            pruner=optuna.pruners.NopPruner(),
        )
        study.optimize(partial(objective, best=best), n_trials=15)
    sources = sources_from_studies(storage)
    x = sources.configs[best_on_sources(sources)]["log_learning_rate"]
    sampler = AMTSampler(sources, seed=seed, candidates=CANDIDATES)
    study = spend(sampler, partial(objective, best=-2.8), TRAININGS * 10)
    return study, value(x, -2.8, 9)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares studies with the best on past tasks.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=[*TARGETS, "readme"])
    chosen = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = []
    for task in chosen.tasks:
        for seed in chosen.seeds:
            if task == "readme":
                study, reference = on_readme(seed)
            else:
                with tempfile.TemporaryDirectory() as folder:
                    study, reference = on_networks(task, seed, Path(folder))
            states = [trial.state.name for trial in study.trials]
            rows.append(
                {
                    "task": task,
                    "seed": seed,
                    "best completed": study.best_value,
                    "first trial": study.trials[0].value,
                    "best on past tasks": reference,
                    "completed": states.count("COMPLETE"),
                    "trials": len(states),
                }
            )
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    means: Any = table.groupby("task", sort=False).mean()
    print(means.drop(columns="seed").to_string())


if __name__ == "__main__":
    use_compilation_cache()
    main()
