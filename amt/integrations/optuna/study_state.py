"""The state of a study in the terms of its sources, as its trials tell it."""

import warnings
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from ConfigSpace import ConfigurationSpace
from jaxtyping import Bool
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from amt.curves import LearningCurves
from amt.integrations.optuna.spaces import distributions_of_space
from amt.integrations.optuna.study_space import StudySpace
from amt.search.failures import failed_score


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


class StudyReader:
    """The part of a sampler that places trials among the configurations and epochs of its sources.

    Args:
        sources: past tasks.
        as_modelled: these, with the scores that the model works with.
        space: search space of the study before its first trial tells it.
        first_step: the step that trials report for their first epoch.
    """

    def __init__(
        self,
        sources: LearningCurves,
        as_modelled: LearningCurves,
        space: ConfigurationSpace,
        first_step: int,
    ):
        self._sources, self._modelled = sources, as_modelled
        self._outcome = as_modelled.outcome
        self._space, self._names = space, [*distributions_of_space(sources.space)]
        self._first_step = first_step
        self._known: Known | None = None
        self._warned: set[tuple[str, str]] = set()

    def _state(self, study: Study, trial: FrozenTrial) -> StudyState:
        """The state of a study, in which `trial` itself is neither pending nor unplaced."""
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
        failed = [at for at, of_config in trials.items() if all(map(has_failed, of_config))]
        if failed:
            bad = failed_score(self._modelled, [score for *_, score in observed])
            observed += [(at, last, bad) for at in failed if (at, last) not in cells]
        return StudyState(known, configs, position, trials, observed, pending, failed, unplaced)

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

    def _config(self, space: StudySpace, trial: FrozenTrial) -> dict[str, Any] | None:
        """The active parameters of a trial; None if they are not all known."""
        ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        return space.placed(params_of(trial), ended=ended)

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


def params_of(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters of a trial, also those that it was enqueued with and has not suggested yet."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def has_failed(trial: FrozenTrial) -> bool:
    """Whether a trial failed, reported a value that is not finite, or is infeasible."""
    finite = np.isfinite(list(trial.intermediate_values.values())).all()
    return trial.state == TrialState.FAIL or not finite or _is_infeasible(trial)


def _is_infeasible(trial: FrozenTrial) -> bool:
    return any(value > 0 for value in trial.constraints.values())
