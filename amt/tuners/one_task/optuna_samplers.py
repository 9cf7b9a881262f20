"""Samplers of Optuna, each without pruning and with its Hyperband pruner.

A sampler is asked for hyperparameters in the search space as it is, conditions included; the
untried configuration that is nearest in encoded form (`amt.space.Encoder`) is trained. What was
asked is told as failed, which samplers do not learn from, and the configuration that is trained is
a trial of its own, so that a sampler learns from what was really trained. Hyperband has rungs from
1 epoch on, eta 3, and ends a trial for good.

Sources: Akiba, Sano, Yanase, Ohta, Koyama (2019), Optuna; Bergstra, Bardenet, Bengio, Kegl (2011)
for TPE; Hansen, Ostermeier (2001) for CMA-ES.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from warnings import catch_warnings, simplefilter

from ConfigSpace import (
    CategoricalHyperparameter,
    ConfigurationSpace,
    Constant,
    OrdinalHyperparameter,
)

from amt.space import Encoder, choices_of
from amt.tuners.record import Host, HostProblem, Record
from amt.tuners.schedule import Schedule
from amt.tuners.unconditional import is_active

ETA = 3


class OptunaSampler(Schedule):
    """A tuner by the name of a class in `optuna.samplers`."""

    def __init__(
        self,
        seed: int,
        problem: HostProblem,
        *,
        sampler: str,
        pruned: bool,
        options: Mapping[str, Any],
    ):
        super().__init__(seed, problem)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = int(self.rng.integers(2**31))
        hyperband = optuna.pruners.HyperbandPruner(1, self.num_epochs, ETA)
        with catch_warnings():  # that an option is experimental
            simplefilter("ignore")
            made = getattr(optuna.samplers, sampler)(seed=seed, **options)
        self.study = optuna.create_study(
            study_name="study",  # its brackets are a hash of the name
            direction="maximize",
            sampler=made,
            pruner=hyperband if pruned else optuna.pruners.NopPruner(),
        )

    def schedule(self) -> Iterator[int]:
        from optuna.trial import TrialState

        space, configs = self.sources.space, self.sources.configs
        encoder = Encoder(space)
        while self.untried.size:
            asked = self.study.ask()
            config = self.nearest_untried(encoder([suggested(asked, space)])[0])
            self.study.tell(asked, state=TrialState.FAIL)
            self.study.enqueue_trial(dict(configs[config]))
            trial = self.study.ask()
            suggested(trial, space)
            state = TrialState.COMPLETE
            for _ in self.train(config):
                yield config
                epochs = int(self.trained[config])
                trial.report(self.score_at(config, epochs), epochs)
                if trial.should_prune():
                    state = TrialState.PRUNED
                    break
            complete = state is TrialState.COMPLETE
            self.study.tell(trial, float(self.values[config]) if complete else None, state)


def suggested(trial: Any, space: ConfigurationSpace) -> dict[str, Any]:
    """The active hyperparameters that a trial suggests."""
    config: dict[str, Any] = {}
    h: Any
    for name, h in space.items():  # parents come first
        if not is_active(space, name, config):
            continue
        match h:
            case Constant():
                config[name] = h.value
            case CategoricalHyperparameter() | OrdinalHyperparameter():
                config[name] = trial.suggest_categorical(name, choices_of(h))
            case _:
                whole = isinstance(h.lower, int)
                suggest = trial.suggest_int if whole else trial.suggest_float
                config[name] = suggest(name, h.lower, h.upper, log=h.log)
    return config


def tuner(sampler: str, *, pruned: bool, **options: Any) -> Host:
    """The tuner of a sampler, with options for it."""
    return Host(partial(OptunaSampler, sampler=sampler, pruned=pruned, options=options))


def _records(
    name: str, label: str, source: str, sampler: str, package: str, **options: Any
) -> list[Record]:
    """Without pruning, and with it."""
    shared: dict[str, Any] = {"source": f"{source}; Optuna's {sampler}", "extra": "zoo"}
    shared["packages"] = ("optuna", package)
    # As Optuna's manual advises with Hyperband: else it does not learn from pruned trials.
    of_pruned = {"consider_pruned_trials": True} if sampler == "CmaEsSampler" else {}
    return [
        Record(
            name=name,
            label=label,
            make=lambda: tuner(sampler, pruned=False, **options),
            **shared,
        ),
        Record(
            name=f"{name}_hyperband",
            label=f"{label}, Hyperband",
            make=lambda: tuner(sampler, pruned=True, **options, **of_pruned),
            **shared,
        ),
    ]


RECORDS = (
    *_records("tpe", "TPE", "Bergstra et al. (2011)", "TPESampler", "optuna"),
    *_records(
        "cma_es",
        "CMA-ES",
        "Hansen, Ostermeier (2001)",
        "CmaEsSampler",
        "cmaes",
        warn_independent_sampling=False,
    ),
    *_records(
        "optuna_gp",
        "GP of Optuna",
        "Akiba et al. (2019)",
        "GPSampler",
        "torch",
        warn_independent_sampling=False,
    ),
)
