"""A sampler that suggests the configuration of largest acquisition value."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ConfigSpace import ConfigurationSpace
from ConfigSpace.types import NotSet
from jax.typing import DTypeLike
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.samplers._base import _process_constraints_after_trial
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from amt.curves import LearningCurves
from amt.inference import Fitted
from amt.integrations.optuna.spaces import distributions_of_space, nearest
from amt.integrations.optuna.study_model import StudyModel
from amt.integrations.optuna.study_state import params_of
from amt.precision import precision
from amt.search.acquisition import RULES, Acquisition, get_acquisition
from amt.search.cost import expected_cost
from amt.search.fit_cache import fit_folder, fit_once
from amt.search.fitting import (
    DEFAULT_MODEL,
    as_modelled,
    model_of,
    require_model,
    source_grid,
    source_posterior,
)
from amt.search.scoring import Room, Scorer
from amt.search.stopping import Utility


class AMTSampler(StudyModel, BaseSampler):
    """Suggests the untried configuration of largest acquisition value, all parameters jointly.

    Candidates are the configurations of the sources and random ones of the search space. A
    configuration that has a running or waiting (enqueued) trial is not suggested again; running
    trials count as observed at their posterior mean. Workers that start trials at the same time
    take the best configurations in the order of their trial numbers.

    Until a value is reported, and unless trials can be resumed, a trial has the configuration of
    the sources with the best expected metric: there is nothing to compare the first trial with, so
    that it is trained to the end.

    Choices, ranges, scales and kinds of parameters can differ from the sources', and change while
    the study runs: a suggestion is the nearest value of the distribution that the objective gives
    (a choice by its value, wherever it stands in the list), and candidates are drawn from those of
    its trials. Numbers keep their value for the model; choices that the sources do not have are
    unlike all of theirs. A parameter of the sources that the study never suggests has its default.
    Parameters that the sources do not have are sampled at random, and do not enter the model.

    A trial with a constraint above 0 (`Trial.set_constraint`) is infeasible: its values say nothing
    about what can be reached, so to the model it is a trial that failed, from whose region the
    search keeps away; it is never the best.

    A value counts for the first epoch of the sources at or after its step: the last one up to it,
    as soon as the next, as far ahead as the last, would be beyond it, or the trial has ended.

    Each suggestion, and each decision of the pruner, conditions the model on all n values reported
    in the study, at a cost of O(n^3). Equal values of one configuration and step count once: a
    retried trial can inherit those of the failed one.

    Args:
        sources: past tasks, such as `sources_from_studies` or a database of `amt.databases`, their
            curves complete or not.
        seed: of the fit and of what is random; the same in all workers of a study.
        model: a name in `amt.search.fitting.MODELS`; by default task regression.
        acquisition: a function of `amt.search.acquisition`, or its name in `ACQUISITIONS`; by
            default that of the model in `RULES`.
        by_cost: as of `amt.Tuner`.
        space: search space of the new study before its first trial tells it, where that differs
            from the sources' (`space_of_distributions`).
        constraints_func: of trials that ended, as Optuna's samplers have it, which prefer
            `Trial.set_constraint`.
        candidates: how many random configurations are considered; 0 for those of the sources alone.
        resume: whether configurations of pruned trials are candidates again (package docstring).
        first_step: the step that trials report for their first epoch. Steps before it and after
            the sources' last epoch have no effect; of a study that has no other, a warning says so.
        fit: a fit to these sources (`amt.fit_sources`) by any inference, instead of a new one.
        cache: folder of fits that processes share (`amt.search.fit_cache`), by default that of the
            user, False for none.
        kernels: as in `amt.fit_sources`.
        options: of `amt.fit_sources`.

    Raises:
        ValueError: `space` has no hyperparameter of the sources.
    """

    def __init__(
        self,
        sources: LearningCurves,
        *,
        seed: int = 0,
        model: str | None = None,
        acquisition: Acquisition | str | None = None,
        by_cost: bool = False,
        space: ConfigurationSpace | None = None,
        candidates: int = 256,
        resume: bool = False,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        first_step: int = 0,
        fit: Fitted | None = None,
        cache: str | PathLike[str] | bool = True,
        dtype: DTypeLike = jnp.float64,
        kernels: Mapping[str, Any] | None = None,
        **options: Any,
    ):
        space = deepcopy(sources.space if space is None else space)
        ours, theirs = (sorted(distributions_of_space(s)) for s in (space, sources.space))
        if not {*ours} & {*theirs}:
            raise ValueError(
                f"the search space has {', '.join(ours)}, the sources {', '.join(theirs)}: "
                "none in common"
            )
        self.fit: Any = fit
        if fit is not None:
            model = model_of(fit)
        model = require_model(DEFAULT_MODEL if model is None else model)
        modelled = as_modelled(sources, model)
        with precision(dtype):
            grid = source_grid(modelled, model, dtype)
            if fit is None:
                options["kernels"] = {"config": "matern"} if kernels is None else dict(kernels)
                key = jax.random.key(seed)
                folder = fit_folder() if cache is True else Path(cache) if cache else None
                self.fit = fit_once(
                    sources, key, folder=folder, model=model, dtype=dtype, **options
                )
            scorer = Scorer(
                source_posterior(self.fit, grid),
                grid,
                get_acquisition(RULES[model] if acquisition is None else acquisition),
                Room(added=32, fresh=candidates, pending=8),
                expected_cost(sources),
                by_cost,
            )
        super().__init__(
            sources,
            modelled,
            space,
            first_step,
            scorer=scorer,
            dtype=dtype,
            seed=seed,
            candidates=candidates,
            resume=resume,
        )
        self._constraints_func = constraints_func
        self._chosen: dict[tuple[str, int], dict[str, Any]] = {}

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """None: the distributions of a trial are known when the objective asks for its values."""
        self._check(study)
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Chooses the configuration, whose values `sample_independent` gives one by one."""
        self._choose(study, trial)
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        chosen = self._chosen.get((study.study_name, trial.number))
        if chosen is None:
            chosen = self._choose(study, trial)
        if param_name in chosen:
            value = nearest(param_distribution, chosen[param_name])
            if value is not NotSet:
                return value
        random = RandomSampler(self._random_seed(trial, param_name))
        return random.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._chosen.pop((study.study_name, trial.number), None)
        if self._constraints_func is not None:
            _process_constraints_after_trial(self._constraints_func, study, trial, state)

    def _choose(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        """The configuration that a trial is to have, empty if none is left."""
        state = self._state(study, trial)
        suggested = state.known.space.distributions
        fixed = {n: v for n, v in params_of(trial).items() if n in suggested}
        configs, values = self._values(state, trial, fixed)
        if not (self._resume or state.observed):
            values = self._openings(state, values)
        order = np.argsort(-values, kind="stable")
        order = order[np.isfinite(values[order])]
        chosen: dict[str, Any] = {}
        if len(order):
            # The best of what all trials consider are for those that started before and have none
            # yet; random candidates are a trial's own.
            for_others = order[order < len(state.configs)][: state.unplaced]
            left = order[~np.isin(order, for_others)]
            chosen = configs[left[0] if len(left) else order[-1]]
        else:
            warnings.warn(
                f"no configuration is left for trial {trial.number}: it is sampled at random",
                stacklevel=2,
            )
        self._chosen[study.study_name, trial.number] = chosen
        return chosen

    def should_prune(
        self, study: Study, trial: FrozenTrial, *, keep_best: bool = True, min_steps: int = 1
    ) -> bool:
        """Whether another configuration is worth more than one more epoch of this trial.

        Always, if the last value reported is not finite; never between the epochs of the sources,
        after their last one, or where a parameter of the study is not known yet.

        Args:
            keep_best: never if this trial has a `CHANCE` of becoming the best of all that were
                tried.
            min_steps: never before so many steps of the trial.
        """
        self._check(study)
        step = trial.last_step
        if step is None:
            return False
        if not np.isfinite(trial.intermediate_values[step]):
            return True
        self._warn(study, [], {*trial.intermediate_values})
        reached = self._reached(trial)
        at = next((position for position, last in reached.items() if last == step), None)
        if at is None or at == len(self._sources.epochs) - 1:
            return False
        if sum(s >= self._first_step for s in trial.intermediate_values) < min_steps:
            return False
        state = self._state(study, trial)
        config = self._config(state.known.space, trial)
        if config is None:
            return False
        own = state.position[state.known.space.key(config)]
        _, values = self._values(state, trial, {}, own)
        others = np.sort(np.delete(values, own))[::-1]
        if keep_best and self._may_be_best(state, own):
            return False
        # The best of the others are for the trials that started before and have none yet.
        return state.unplaced < len(others) and bool(others[state.unplaced] > values[own])

    def should_stop(self, study: Study, utility: Utility, budget: float) -> bool:
        """Whether going on is expected to cost more than it brings, for a callback of the study.

        ```python
        def callback(study, trial):
            if sampler.should_stop(study, Utility(2**-5), budget=100):
                study.stop()
        ```

        Args:
            utility, budget: as of `amt.Tuner.expected_gain`; budget in steps.
        """
        self._check(study)
        trials = study.get_trials(deepcopy=False)
        state = self._state(study, trials[-1]) if trials else None
        if state is None or not state.observed or utility.weight <= 0:
            return False
        sign, failed = self._outcome.sign, set(state.failed)
        scores = [score for at, _, score in state.observed if at not in failed]
        best = max((sign * float(self._outcome.inverse(score)) for score in scores), default=None)
        if best is None:
            return False
        left = self._left(state, state.configs, {}, {})
        with precision(self._dtype):
            progress = self._progress(state)
            gain = self._scorer.gain(progress, left, best, budget, utility, self._outcome)
        return gain <= 0

    def _check(self, study: Study) -> None:
        self._raise_error_if_multi_objective(study)
        maximise = self._sources.outcome.sign > 0
        if (study.direction == StudyDirection.MAXIMIZE) != maximise:
            raise ValueError(
                f"study {study.study_name!r} is to {study.direction.name.lower()}, but the metric "
                f"of the sources is {'maximised' if maximise else 'minimised'} (their outcome.sign)"
            )
        if study.study_name in self._sources.tasks:
            raise ValueError(
                f"study {study.study_name!r} is one of its own sources: name the sources without it"
            )
