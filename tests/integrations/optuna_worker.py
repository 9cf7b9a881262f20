"""One worker of a study: `python -m tests.integrations.optuna_worker PAST NEW STUDY TRIALS`.

With one more argument, the worker kills itself when it has reported once in its trial of that rank.
"""

import math
import os
import signal
import sys

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from amt.compilation import use_compilation_cache
from amt.integrations.optuna import AMTPruner, AMTSampler, sources_from_studies

EPOCHS = 6
FIT = {"steps": 60}
CANDIDATES = 32


def open_storage(address: str) -> optuna.storages.BaseStorage:
    if address.startswith("sqlite"):
        return optuna.storages.RDBStorage(address)
    return JournalStorage(JournalFileBackend(address))


def suggest(trial: optuna.Trial) -> dict:
    return {
        "rate": trial.suggest_float("rate", 1e-4, 1.0, log=True),
        "depth": trial.suggest_int("depth", 1, 9, step=2),
        "optimizer": trial.suggest_categorical("optimizer", ["adam", "sgd"]),
        "dropout": trial.suggest_float("dropout", 0.1, 0.7, step=0.3),
    }


def accuracy(config: dict, epoch: int, best: float = 0.5) -> float:
    """After epochs 1 to EPOCHS; the best rate is 10^(4 best - 4), the best depth 5."""
    rate = math.log10(config["rate"]) / 4 + 1
    level = 0.9 - (rate - best) ** 2 - 0.3 * (config["depth"] / 9 - 0.55) ** 2
    level -= 0.05 * (config["optimizer"] == "sgd") + 0.02 * config["dropout"]
    return level * (1 - 0.5 * math.exp(-3 * epoch / EPOCHS))


def run(study: optuna.Study, best: float, trials: int, fatal: int | None = None) -> None:
    """Some trials of a task, given by its best rate."""
    begun = 0

    def objective(trial):
        nonlocal begun
        config = suggest(trial)
        begun += 1
        score = 0.0
        for step in range(EPOCHS):
            score = accuracy(config, step + 1, best)
            trial.report(score, step)
            if begun == fatal:  # nothing is cleaned up
                os.kill(os.getpid(), signal.SIGKILL)
            if trial.should_prune():
                raise optuna.TrialPruned
        return score

    study.optimize(objective, n_trials=trials)


if __name__ == "__main__":
    use_compilation_cache()
    past, new, name, trials, *fatal = sys.argv[1:]
    sources = sources_from_studies(open_storage(past))
    sampler = AMTSampler(sources, seed=0, dtype="float32", candidates=CANDIDATES, **FIT)
    study = optuna.load_study(
        study_name=name, storage=open_storage(new), sampler=sampler, pruner=AMTPruner(sampler)
    )
    run(study, 0.55, int(trials), *map(int, fatal))
