"""The model of the sources given a study, and what it says of the study's configurations."""

import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ConfigSpace import ConfigurationSpace
from jax.typing import DTypeLike
from jaxtyping import Bool, Float
from optuna.trial import FrozenTrial, TrialState

from amt.curves import LearningCurves
from amt.gp.observations import TargetPosterior
from amt.integrations.optuna.study_space import StudySpace, modelled
from amt.integrations.optuna.study_state import StudyReader, StudyState, has_failed
from amt.precision import precision
from amt.search.prediction import best_expected_score, probability_above
from amt.search.scoring import Progress, Scorer
from amt.space import Encoder, comparable

CHANCE = 0.1  # of becoming the best, with which a trial is never stopped


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


class StudyModel(StudyReader):
    """The part of a sampler that conditions its model on a study, for the values of candidates.

    Args:
        sources, as_modelled, space, first_step: as of `StudyReader`.
        scorer: of the sources' posterior and the acquisition function.
        dtype: of the model.
        seed: of all that is random.
        candidates: how many random configurations are considered.
        resume: whether configurations of pruned trials are candidates again.
    """

    def __init__(
        self,
        sources: LearningCurves,
        as_modelled: LearningCurves,
        space: ConfigurationSpace,
        first_step: int,
        *,
        scorer: Scorer,
        dtype: DTypeLike,
        seed: int,
        candidates: int,
        resume: bool,
    ):
        super().__init__(sources, as_modelled, space, first_step)
        self._scorer, self._dtype = scorer, dtype
        self._seed, self._candidates, self._resume = seed, candidates, resume
        self._encode = Encoder(sources.space)
        self._drawn: Drawn | None = None

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
        drawn = self._fresh(state.known.space, trial, fixed)
        new = [row for row, key in enumerate(drawn.keys) if key not in state.position]
        configs = [*state.configs, *(drawn.configs[row] for row in new)]
        begun = {} if own is None else {own: self._last(trial) + 1}
        left = self._left(state, configs, fixed, begun)
        with precision(self._dtype):
            progress = self._progress(state)
            key = jax.random.key(self._random_seed(trial, "rule"))
            return configs, self._scorer.values(progress, drawn.features[new], left, key)

    def _openings(
        self, state: StudyState, values: Float[np.ndarray, "config"]
    ) -> Float[np.ndarray, "known"]:
        """Expected metrics, as scores, of the sources' configurations and those of other trials.

        -inf where the acquisition value is; those values if there is no other.
        """
        candidate = np.isfinite(values[: len(state.configs)])
        if not candidate.any():
            return values
        expected = best_expected_score(self._posterior(state), self._outcome)
        return np.where(candidate, expected, -np.inf)

    def _may_be_best(self, state: StudyState, own: int) -> bool:
        """Whether a configuration has a `CHANCE` of a better metric than is expected of all tried.

        At its best epoch, and by the best of what is expected of the others.
        """
        rows = [own, *(at for at in state.trials if at not in {own, *state.failed})]
        if len(rows) == 1:
            return True
        posterior = self._posterior(state)
        mine, *others = best_expected_score(posterior.of(rows), self._outcome)
        chance = probability_above(posterior.of([own]), max(others)).max()
        return bool(mine >= max(others) or chance >= CHANCE)

    def _left(
        self,
        state: StudyState,
        configs: Sequence[Mapping[str, Any]],
        fixed: Mapping[str, Any],
        begun: Mapping[int, int],
    ) -> Bool[np.ndarray, "config epoch"]:
        """The epochs of each configuration that can be trained.

        Args:
            fixed: parameter values without which a configuration has none.
            begun: the first epoch left to those that go on, by position; others start a new trial.
        """
        left = np.zeros((len(configs), len(self._sources.epochs)), bool)
        for index, config in enumerate(configs):
            if index in begun:
                left[index, begun[index] :] = True
            elif all(
                comparable(config.get(name, value)) == comparable(value)
                for name, value in fixed.items()
            ):
                left[index, self._remaining(state.trials.get(index, ()))] = True
        left[: len(self._sources.configs)] &= state.known.usable[:, None]
        return left

    def _remaining(self, trials: Sequence[FrozenTrial]) -> slice:
        """The epochs that a new trial of a configuration with these trials would train."""
        resumable = self._resume and all(
            t.state == TrialState.PRUNED and not has_failed(t) for t in trials
        )
        begin = max(map(self._last, trials), default=-1) + 1
        return slice(begin if resumable or not trials else len(self._sources.epochs), None)

    def _posterior(self, state: StudyState) -> TargetPosterior:
        """The posterior at all epochs of the configurations of the sources and of trials."""
        with precision(self._dtype):
            return self._scorer.posterior(self._progress(state))

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
