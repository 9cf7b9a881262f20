"""A sampler that suggests the configuration of largest acquisition value."""

import warnings
import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import deepcopy
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ConfigSpace import ConfigurationSpace
from ConfigSpace.types import NotSet
from jax.typing import DTypeLike
from jaxtyping import Bool, Float
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.samplers._base import _process_constraints_after_trial
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from amt.curves import LearningCurves
from amt.inference import Fitted
from amt.integrations.optuna.spaces import distributions_of_space, nearest
from amt.integrations.optuna.study_space import StudySpace, modelled
from amt.precision import precision
from amt.search.acquisition import RULES, Acquisition, get_acquisition
from amt.search.cost import expected_cost
from amt.search.failures import failed_score
from amt.search.fit_cache import fit_folder, fit_once
from amt.search.fitting import (
    DEFAULT_MODEL,
    as_modelled,
    model_of,
    require_model,
    source_grid,
    source_posterior,
)
from amt.search.prediction import best_expected_score, probability_above
from amt.search.scoring import Progress, Room, Scorer
from amt.search.stopping import Utility
from amt.space import Encoder, comparable

CHANCE = 0.1  # of becoming the best, with which a trial is never stopped


class Known(NamedTuple):
    """The sources' configurations as a study sees them.

    Attributes:
        space: of the study.
        position: where each of them is, by its key.
        usable: whether the study can suggest it, and no earlier one is the same to the study.
    """

    space: StudySpace
    position: dict[Hashable, int]
    usable: Bool[np.ndarray, "config"]


class Drawn(NamedTuple):
    """Random configurations, no two of which are the same to a study.

    Attributes:
        of: what they follow from.
        keys: of each in the study's space.
        configs: their active parameters.
        features: what the model sees of them.
    """

    of: tuple[int, str]
    keys: list[Hashable]
    configs: list[dict[str, Any]]
    features: Float[np.ndarray, "fresh feature"]


class StudyState(NamedTuple):
    """The state of a study as its trials tell it.

    Attributes:
        known: the sources' configurations.
        configs: these, and behind them those of other trials.
        position: where each of them is, by its key.
        trials: the trials of a configuration, by its position.
        observed: (position, position of the epoch, score).
        pending: (position, position of the epoch) that running trials are at.
        failed: positions of the configurations of which all trials failed or are infeasible.
        unplaced: how many trials that started before have no parameters yet.
    """

    known: Known
    configs: list[dict[str, Any]]
    position: dict[Hashable, int]
    trials: dict[int, list[FrozenTrial]]
    observed: list[tuple[int, int, float]]
    pending: list[tuple[int, int]]
    failed: list[int]
    unplaced: int


class AMTSampler(BaseSampler):
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
        resume: whether configurations of pruned trials are candidates again (module docstring).
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
        self._space = deepcopy(sources.space if space is None else space)
        ours = sorted(distributions_of_space(self._space))
        self._names = [*distributions_of_space(sources.space)]
        if not {*ours} & {*self._names}:
            raise ValueError(
                f"the search space has {', '.join(ours)}, the sources "
                f"{', '.join(sorted(self._names))}: none in common"
            )
        self.fit: Any = fit
        if fit is not None:
            model = model_of(fit)
        model = require_model(DEFAULT_MODEL if model is None else model)
        self._modelled = as_modelled(sources, model)
        self._outcome = self._modelled.outcome
        with precision(dtype):
            grid = source_grid(self._modelled, model, dtype)
            if fit is None:
                options["kernels"] = {"config": "matern"} if kernels is None else dict(kernels)
                key = jax.random.key(seed)
                folder = fit_folder() if cache is True else Path(cache) if cache else None
                self.fit = fit_once(
                    sources, key, folder=folder, model=model, dtype=dtype, **options
                )
            self._scorer = Scorer(
                source_posterior(self.fit, grid),
                grid,
                get_acquisition(RULES[model] if acquisition is None else acquisition),
                Room(added=32, fresh=candidates, pending=8),
                expected_cost(sources),
                by_cost,
            )
        self._dtype = dtype
        self._seed = seed
        self._candidates = candidates
        self._drawn: Drawn | None = None
        self._resume = resume
        self._warned: set[tuple[str, str]] = set()
        self._sources = sources
        self._encode = Encoder(sources.space)
        self._first_step = first_step
        self._constraints_func = constraints_func
        self._known: Known | None = None
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
        given = {**_fixed(trial), **trial.params}
        fixed = {n: v for n, v in given.items() if n in state.known.space.distributions}
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

    def _openings(
        self, state: StudyState, values: Float[np.ndarray, "config"]
    ) -> Float[np.ndarray, "known"]:
        """Expected metrics, as scores, of the sources' configurations and those of other trials.

        -inf where the acquisition value is; those values if there is no other.
        """
        candidate = np.isfinite(values[: len(state.configs)])
        if not candidate.any():
            return values
        with precision(self._dtype):
            posterior = self._scorer.posterior(self._progress(state))
        return np.where(candidate, best_expected_score(posterior, self._outcome), -np.inf)

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
        remaining = np.zeros((len(state.configs), len(self._sources.epochs)), bool)
        for index in range(len(state.configs)):
            remaining[index, self._remaining(state.trials.get(index, ()))] = True
        remaining[: len(self._sources.configs)] &= state.known.usable[:, None]
        sign, failed = self._outcome.sign, set(state.failed)
        scores = [score for at, _, score in state.observed if at not in failed]
        best = max((sign * float(self._outcome.inverse(score)) for score in scores), default=None)
        if best is None:
            return False
        with precision(self._dtype):
            progress = self._progress(state)
            gain = self._scorer.gain(progress, remaining, best, budget, utility, self._outcome)
        return gain <= 0

    def _may_be_best(self, state: StudyState, own: int) -> bool:
        """Whether a configuration has a `CHANCE` of a better metric than is expected of all tried.

        At its best epoch, and by the best of what is expected of the others.
        """
        rows = [own, *(at for at in state.trials if at not in {own, *state.failed})]
        if len(rows) == 1:
            return True
        with precision(self._dtype):
            posterior = self._scorer.posterior(self._progress(state))
        mine, *others = best_expected_score(posterior.of(rows), self._outcome)
        chance = probability_above(posterior.of([own]), max(others)).max()
        return bool(mine >= max(others) or chance >= CHANCE)

    # Trials as observations

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

    def _config(self, space: StudySpace, trial: FrozenTrial) -> dict[str, Any] | None:
        """The active parameters of a trial; None if they are not all known."""
        ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        return space.placed({**_fixed(trial), **trial.params}, ended=ended)

    def _reached(self, trial: FrozenTrial) -> dict[int, int]:
        """The epochs that a trial has completed, by position, and the step that stands for each."""
        epochs = self._sources.epochs
        steps = sorted(trial.intermediate_values)
        within = [s for s in steps if 1 <= s - self._first_step + 1 <= epochs[-1]]
        at = np.searchsorted(epochs, np.array(within, int) - self._first_step + 1).tolist()
        reached = dict(zip(at, within, strict=True))
        if reached and not trial.state.is_finished():
            last = len(within) - 1
            before = within[last - 1] if last else self._first_step - 1
            following = 2 * within[last] - before - self._first_step + 1
            epoch = within[last] - self._first_step + 1
            if epoch < epochs[at[last]] >= following:
                del reached[at[last]]
        return reached

    def _last(self, trial: FrozenTrial) -> int:
        """Position of the last epoch that a trial has completed, -1 before the first."""
        return max(self._reached(trial), default=-1)

    def _known_to(self, trials: Sequence[FrozenTrial]) -> Known:
        """The sources' configurations in the search space that the trials of a study tell."""
        space = StudySpace.of_trials(self._space, self._names, trials)
        if self._known is not None and self._known.space.distributions == space.distributions:
            return self._known
        position: dict[Hashable, int] = {}
        usable = np.zeros(len(self._sources.configs), bool)
        for index, config in enumerate(self._sources.configs):
            legal = space.legal(config)
            first = position.setdefault(space.key(config if legal is None else legal), index)
            usable[index] = legal is not None and first == index
        self._known = Known(space, position, usable)
        return self._known

    def _state(self, study: Study, trial: FrozenTrial) -> StudyState:
        """`trial` itself is not pending, nor unplaced."""
        of_study = study.get_trials(deepcopy=False)
        known = self._known_to(of_study)
        configs: list[dict[str, Any]] = list(map(dict, self._sources.configs))
        position = dict(known.position)
        trials: dict[int, list[FrozenTrial]] = {}
        observed: list[tuple[int, int, float]] = []
        pending: list[tuple[int, int]] = []
        unplaced, reported = 0, set()
        for recorded in of_study:
            own = recorded.number == trial.number
            other = trial if own else recorded
            running = other.state == TrialState.RUNNING and not own
            config = self._config(known.space, other)
            if config is None:
                unplaced += running and other.number < trial.number
                continue
            at = position.setdefault(known.space.key(config), len(configs))
            if at == len(configs):
                configs.append(config)
            trials.setdefault(at, []).append(other)
            reported.update(other.intermediate_values)
            reached = self._reached(other)
            values = other.intermediate_values
            if not _is_infeasible(other):
                observed += [
                    (at, epoch, float(values[step]))
                    for epoch, step in reached.items()
                    if np.isfinite(values[step])
                ]
            following = max(reached, default=-1) + 1
            if running and following < len(self._sources.epochs):
                pending.append((at, following))
        observed = list(dict.fromkeys(observed))
        self._warn(study, [value for *_, value in observed], reported)
        observed = [
            (at, epoch, float(self._outcome.forward(value))) for at, epoch, value in observed
        ]
        last, cells = len(self._sources.epochs) - 1, {cell[:2] for cell in observed}
        failed = [at for at, of_config in trials.items() if all(map(_has_failed, of_config))]
        if failed:
            bad = failed_score(self._modelled, [score for *_, score in observed])
            observed += [(at, last, bad) for at in failed if (at, last) not in cells]
        return StudyState(known, configs, position, trials, observed, pending, failed, unplaced)

    def _warn(self, study: Study, values: Sequence[float], reported: set[int]) -> None:
        """Warn, once, of values that have no effect or can hardly be of the sources' metric."""
        messages = [
            f"a value of study {study.study_name!r} {why}"
            for value in values
            if (why := self._sources.unexpected(value)) is not None
        ][:1]
        epochs = {step - self._first_step + 1 for step in reported}
        if reported and not any(1 <= epoch <= self._sources.epochs[-1] for epoch in epochs):
            own = [epoch - 1 + self._first_step for epoch in self._sources.epochs.tolist()]
            steps, theirs = (", ".join(map(str, sorted(s)[:5])) for s in (reported, own))
            messages.append(
                f"study {study.study_name!r} reports steps ({steps} ...) of which the sources have "
                f"none ({theirs} ...), so that its values have no effect: see `first_step`"
            )
        for message in messages:
            kind = study.study_name, message.split(" is ")[0]
            if kind not in self._warned:
                self._warned.add(kind)
                warnings.warn(message, stacklevel=2)

    def _remaining(self, trials: Sequence[FrozenTrial]) -> slice:
        """The epochs that a new trial of a configuration with these trials would train."""
        resumable = self._resume and all(
            t.state == TrialState.PRUNED and not _has_failed(t) for t in trials
        )
        begin = max(map(self._last, trials), default=-1) + 1
        return slice(begin if resumable or not trials else len(self._sources.epochs), None)

    def _values(
        self,
        state: StudyState,
        trial: FrozenTrial,
        fixed: Mapping[str, Any],
        own: int | None = None,
    ) -> tuple[list[dict[str, Any]], Float[np.ndarray, "config"]]:
        """Configurations and their acquisition values, -inf for those that are no candidates.

        Args:
            fixed: parameter values that candidates must have.
            own: the configuration that `trial` runs.
        """
        num_sources, num_epochs = self._sources.scores.shape[1:]
        space = state.known.space
        drawn = self._fresh(space, trial, fixed)
        new = [row for row, key in enumerate(drawn.keys) if key not in state.position]
        configs = [*state.configs, *(drawn.configs[row] for row in new)]
        remaining = np.zeros((len(configs), num_epochs), bool)
        for index, config in enumerate(configs):
            if index == own:
                remaining[index, self._last(trial) + 1 :] = True
            elif all(
                comparable(config.get(name, value)) == comparable(value)
                for name, value in fixed.items()
            ):
                remaining[index, self._remaining(state.trials.get(index, ()))] = True
        remaining[:num_sources] &= state.known.usable[:, None]
        with precision(self._dtype):
            progress = self._progress(state)
            key = jax.random.key(self._random_seed(trial, "rule"))
            return configs, self._scorer.values(progress, drawn.features[new], remaining, key)

    def _progress(self, state: StudyState) -> Progress:
        added = self._features(state.configs[len(self._sources.configs) :])
        return Progress(added, state.observed, state.pending)

    def _features(self, configs: Sequence[Mapping[str, Any]]) -> Float[np.ndarray, "row feature"]:
        return self._encode([modelled(self._sources.space, config) for config in configs])

    def _fresh(self, space: StudySpace, trial: FrozenTrial, fixed: Mapping[str, Any]) -> Drawn:
        """Random configurations, always the same for a trial."""
        seed = self._random_seed(trial, "")
        of = seed, repr((fixed, space.distributions))
        if self._drawn is None or self._drawn.of != of:  # asked for at every step of the trial
            drawn = space.draw(self._candidates, seed, fixed) if self._candidates else []
            by_key = {space.key(config): config for config in drawn}
            configs = [*by_key.values()]
            self._drawn = Drawn(of, [*by_key], configs, self._features(configs))
        return self._drawn

    def _random_seed(self, trial: FrozenTrial, name: str) -> int:
        entropy = [self._seed, trial.number, zlib.crc32(name.encode())]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _has_failed(trial: FrozenTrial) -> bool:
    """Whether a trial failed, reported a value that is not finite, or is infeasible."""
    finite = np.isfinite(list(trial.intermediate_values.values())).all()
    return trial.state == TrialState.FAIL or not finite or _is_infeasible(trial)


def _is_infeasible(trial: FrozenTrial) -> bool:
    return any(value > 0 for value in trial.constraints.values())


def _fixed(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that a trial was enqueued with."""
    return trial.system_attrs.get("fixed_params", {})
