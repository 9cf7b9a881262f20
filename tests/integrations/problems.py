"""Past studies, and samplers and trials of a new one, that several tests look at."""

from functools import cache

import jax
import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from amt.integrations.optuna import (
    AMTPruner,
    AMTSampler,
    sources_from_studies,
)
from amt.search.fitting import unfitted
from tests.integrations.optuna_worker import (
    CANDIDATES,
    EPOCHS,
    accuracy,
    suggest,
)

optuna.logging.set_verbosity(optuna.logging.ERROR)


RATE = FloatDistribution(1e-4, 1.0, log=True)


DEPTH = IntDistribution(1, 9, step=2)


OPTIMIZER = CategoricalDistribution(["adam", "sgd"])


DROPOUT = FloatDistribution(0.1, 0.7, step=0.3)


SPACE = {"rate": RATE, "depth": DEPTH, "optimizer": OPTIMIZER, "dropout": DROPOUT}


TASKS = {"a": 0.4, "b": 0.5, "c": 0.6, "d": 0.65}


NEW = 0.55


@cache
def past_configs():
    rng = np.random.default_rng(0)
    return [
        {
            "rate": float(10 ** rng.uniform(-4, 0)),
            "depth": int(rng.choice([1, 3, 5, 7, 9])),
            "optimizer": ("adam", "sgd")[i % 2],
            "dropout": (0.1, 0.4, 0.7)[i % 3],
        }
        for i in range(20)
    ]


ONE, OTHER = past_configs()[:2]


def add(study, params, values, distributions=SPACE, state=TrialState.COMPLETE):
    """A finished trial that reported `values`, a dict or a list from step 0."""
    values = values if isinstance(values, dict) else dict(enumerate(values))
    final = values.get(max(values, default=0), 0.0)
    study.add_trial(
        optuna.create_trial(
            params=params,
            distributions=distributions,
            intermediate_values=values,
            value=final if state == TrialState.COMPLETE else None,
            state=state,
        )
    )


def curve(config, best, loss=False):
    values = [accuracy(config, epoch, best) for epoch in range(1, EPOCHS + 1)]
    return [10 * (1 - v) for v in values] if loss else values


def record_past(storage, loss=False):
    direction = "minimize" if loss else "maximize"
    for name, best in TASKS.items():
        study = optuna.create_study(storage=storage, study_name=name, direction=direction)
        for config in past_configs():
            add(study, config, curve(config, best, loss))


@cache
def sources(loss=False):
    storage = optuna.storages.InMemoryStorage()
    record_past(storage, loss)
    return sources_from_studies(storage)


def as_it_starts(curves, model="multi_task", **kernels):
    """A model whose parameters are not learned, but where it starts."""
    kernels = {"config": "matern"} | kernels
    return unfitted(curves, jax.random.key(0), model=model, kernels=kernels)


def new_sampler(loss=False, candidates=CANDIDATES, **options):
    """One of a few candidates or of none, with the room, and so the programs, of the others.

    Only what is done with the model is looked at, so that it is not fitted.
    """
    fit = as_it_starts(sources(loss), "task_regression")
    sampler = AMTSampler(sources(loss), fit=fit, candidates=CANDIDATES, **options)
    sampler._candidates = candidates
    return sampler


def new_study(sampler, direction="maximize", pruner=None, **options):
    return optuna.create_study(
        direction=direction, sampler=sampler, pruner=pruner or AMTPruner(sampler), **options
    )


def finish(study, trial, best=NEW):
    """Train a trial that was asked for, as `run` does; whether it was pruned."""
    config = suggest(trial)
    for step, score in enumerate(curve(config, best)):
        trial.report(score, step)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return True
    study.tell(trial, score)
    return False


def study_in(storage, name, direction="maximize"):
    return optuna.create_study(storage=storage, study_name=name, direction=direction)


def record_different_configs(storage, trials=12):
    """Two studies of random configurations of their own, half of their trials pruned."""
    for seed, (name, best) in enumerate({"a": 0.45, "b": 0.6}.items()):
        study = study_in(storage, name)
        rng = np.random.default_rng(seed)
        for number in range(trials):
            config = {
                "rate": float(10 ** rng.uniform(-4, 0)),
                "depth": int(rng.choice([1, 3, 5, 7, 9])),
                "optimizer": ("adam", "sgd")[rng.integers(2)],
                "dropout": (0.1, 0.4, 0.7)[rng.integers(3)],
            }
            pruned = number % 2
            values = curve(config, best)[: rng.integers(1, EPOCHS) if pruned else EPOCHS]
            add(study, config, values, state=TrialState.PRUNED if pruned else TrialState.COMPLETE)
