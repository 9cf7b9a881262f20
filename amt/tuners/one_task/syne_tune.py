"""Schedulers of Syne Tune: BORE and CQR, and BOHB, BORE and CQR with successive halving.

A scheduler suggests hyperparameters, in a search space without conditions
(`amt.tuners.unconditional`); the untried configuration that is nearest in encoded form is trained,
and a trial of what is really trained is told. With successive halving, which is asynchronous, each
epoch is told, and the scheduler stops the trial or lets it go on: rungs from 1 epoch on, eta 3.

Source: Salinas et al. (2022), Syne Tune: A Library for Large Scale Hyperparameter Tuning; Tiao et
al. (2021) for BORE; Salinas et al. (2023) for conformal quantile regression; Falkner, Klein, Hutter
(2018) for BOHB.
"""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
from ConfigSpace import (
    CategoricalHyperparameter,
    ConfigurationSpace,
    Constant,
    OrdinalHyperparameter,
)

from amt.space import Encoder, choices_of
from amt.tuners.record import Host, HostProblem, Record
from amt.tuners.schedule import Schedule
from amt.tuners.unconditional import active, completed

ETA = 3


class SyneTuneScheduler(Schedule):
    """A tuner by the name of a class in `syne_tune.optimizer.baselines`.

    Attributes:
        scheduler: of Syne Tune.
    """

    def __init__(self, seed: int, problem: HostProblem, *, scheduler: str, halving: bool):
        super().__init__(seed, problem)
        from syne_tune.optimizer import baselines  # pyright: ignore

        of_numpy, of_scheduler = (int(s) for s in self.rng.integers(2**31, size=2))
        np.random.seed(of_numpy)  # noqa: NPY002  # some of it draws from NumPy's generator
        resources: dict[str, Any] = {}
        if halving:
            resources = {"max_t": self.num_epochs, "time_attr": "epoch", "reduction_factor": ETA}
        self.scheduler = getattr(baselines, scheduler)(
            config_space=syne_tune_space(self.sources.space),
            metric="score",
            do_minimize=False,
            random_seed=of_scheduler,
            **resources,
        )
        self._halving = halving

    def schedule(self) -> Iterator[int]:
        from syne_tune.backend.trial_status import Trial  # pyright: ignore
        from syne_tune.optimizer.scheduler import SchedulerDecision  # pyright: ignore

        space, configs = self.sources.space, self.sources.configs
        encoder = Encoder(space)
        for number in range(self.num_configs):
            if not self.untried.size:
                return
            suggested = self.scheduler.suggest().config
            config = self.nearest_untried(encoder([active(space, suggested)])[0])
            trial = Trial(number, completed(space, configs[config]), datetime.min)
            self.scheduler.on_trial_add(trial)
            for _ in self.train(config):
                yield config
                epochs = int(self.trained[config])
                result = {"score": self.curves[config, epochs - 1], "epoch": epochs}
                decision = self.scheduler.on_trial_result(trial, result)
                if self._halving and decision == SchedulerDecision.STOP:
                    break
            if not self._halving:
                self.scheduler.on_trial_complete(trial, {"score": self.values[config]})


def syne_tune_space(space: ConfigurationSpace) -> dict[str, Any]:
    """The search space as Syne Tune takes it."""
    from syne_tune import config_space  # pyright: ignore

    domains: dict[str, Any] = {}
    h: Any
    for name, h in space.items():
        match h:
            case Constant():
                domains[name] = h.value
            case CategoricalHyperparameter():
                domains[name] = config_space.choice(list(choices_of(h)))
            case OrdinalHyperparameter():
                domains[name] = config_space.ordinal(list(choices_of(h)))
            case _:
                whole = isinstance(h.lower, int)
                kinds = ("lograndint", "randint") if whole else ("loguniform", "uniform")
                domains[name] = getattr(config_space, kinds[not h.log])(h.lower, h.upper)
    return domains


def _record(name: str, label: str, source: str, scheduler: str, halving: bool) -> Record:
    return Record(
        name=name,
        label=label,
        source=f"{source}; Syne Tune's {scheduler}",
        make=lambda: Host(partial(SyneTuneScheduler, scheduler=scheduler, halving=halving)),
        packages=("syne_tune", "xgboost", "huggingface_hub"),
        extra="zoo",
    )


RECORDS = (
    _record("bore", "BORE", "Tiao et al. (2021)", "BORE", False),
    _record("cqr", "CQR", "Salinas et al. (2023)", "CQR", False),
    _record("bohb", "BOHB", "Falkner, Klein, Hutter (2018)", "BOHB", True),
    _record("asha_bore", "BORE, ASHA", "Tiao et al. (2021)", "ASHABORE", True),
    _record("asha_cqr", "CQR, ASHA", "Salinas et al. (2023)", "ASHACQR", True),
)
