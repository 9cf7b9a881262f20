"""A sampler that suggests the configuration of largest acquisition value."""

import warnings
import zlib
from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ConfigSpace import ConfigurationSpace
from ConfigSpace.hyperparameters import Constant
from ConfigSpace.util import deactivate_inactive_hyperparameters
from jax.typing import DTypeLike
from jaxtyping import Float
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from amt.curves import LearningCurves
from amt.inference import Fitted
from amt.integrations.optuna.spaces import distributions_of_space
from amt.precision import precision
from amt.search.acquisition import RULES, Acquisition, get_acquisition
from amt.search.candidates import draw, plain_values
from amt.search.cost import expected_cost
from amt.search.failures import failed_score
from amt.search.fitting import (
    DEFAULT_MODEL,
    as_modelled,
    fit_sources,
    model_of,
    require_model,
    source_grid,
    source_posterior,
)
from amt.search.scoring import Progress, Room, Scorer
from amt.search.stopping import Utility
from amt.space import Encoder, comparable, own_value


class StudyState(NamedTuple):
    """The state of a study as its trials tell it.

    Attributes:
        configs: the configurations of the sources, and behind them those of other trials.
        position: where each of them is, by its key.
        trials: the trials of a configuration, by its position.
        observed: (position, position of the epoch, score).
        pending: (position, position of the epoch) that running trials are at.
        failed: positions of the configurations of which all trials failed.
        unplaced: how many trials that started before have no parameters yet.
    """

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
    take the best configurations in the order of their trial numbers. Parameters that the sources do
    not have are sampled at random, and do not enter the model.

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
        space: search space of the new study where its ranges differ from the sources', with the
            same hyperparameters (`space_of_distributions`).
        candidates: how many random configurations are considered; 0 for those of the sources alone.
        resume: whether configurations of pruned trials are candidates again (module docstring).
        first_step: the step that trials report for their first epoch. Steps that are not among the
            epochs of the sources have no effect; of a study that shares none, a warning says so.
        fit: a fit to these sources (`amt.fit_sources`) by any inference, instead of a new one.
        kernels: as in `amt.fit_sources`.
        options: of `amt.fit_sources`.

    Raises:
        ValueError: `space` has other hyperparameters than the sources.
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
        first_step: int = 0,
        fit: Fitted | None = None,
        dtype: DTypeLike = jnp.float64,
        kernels: Mapping[str, Any] | None = None,
        **options: Any,
    ):
        self._space = deepcopy(sources.space if space is None else space)
        self._distributions = distributions_of_space(self._space)
        wanted = set(distributions_of_space(sources.space))
        if wanted != set(self._distributions):
            raise ValueError(
                f"the search space has {', '.join(sorted(self._distributions))}, the sources "
                f"{', '.join(sorted(wanted))}"
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
                self.fit, _ = fit_sources(sources, key, model=model, dtype=dtype, **options)
            self._scorer = Scorer(
                source_posterior(self.fit, grid),
                grid,
                get_acquisition(RULES[model] if acquisition is None else acquisition),
                Room(added=8, fresh=candidates, pending=8),
                expected_cost(sources),
                by_cost,
            )
        self._dtype = dtype
        self._seed = seed
        self._candidates = candidates
        self._drawn: tuple[tuple[int, str], list[dict[str, Any]]] | None = None
        self._resume = resume
        self._warned: set[tuple[str, str]] = set()
        self._sources = sources
        self._encode = Encoder(sources.space)
        self._constants = {h.name: h.value for h in self._space.values() if isinstance(h, Constant)}
        self._usable = np.array([self._legal(config) is not None for config in sources.configs])
        self._steps = {epoch - 1 + first_step: i for i, epoch in enumerate(sources.epochs.tolist())}

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        self._check(study)
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        state = self._state(study, trial)
        fixed = {n: v for n, v in _fixed(trial).items() if n in self._distributions}
        configs, values = self._values(state, trial, fixed)
        order = np.argsort(-values, kind="stable")
        order = order[np.isfinite(values[order])]
        if not len(order):
            warnings.warn(
                f"no configuration is left for trial {trial.number}: it is sampled at random",
                stacklevel=2,
            )
            return {}
        chosen = configs[order[min(state.unplaced, len(order) - 1)]]
        return {name: chosen[name] for name in self._distributions if name in chosen}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        conditional = self._space.conditional_hyperparameters
        if param_name in self._distributions and param_name not in conditional:
            warnings.warn(
                f"{param_name!r} of trial {trial.number} is sampled at random: no suggested value "
                f"is in {param_distribution}; give AMTSampler the space of this study",
                stacklevel=2,
            )
        random = RandomSampler(self._random_seed(trial, param_name))
        return random.sample_independent(study, trial, param_name, param_distribution)

    def should_prune(
        self, study: Study, trial: FrozenTrial, *, keep_best: bool = True, min_steps: int = 1
    ) -> bool:
        """Whether another configuration is worth more than one more epoch of this trial.

        Always, if the last value reported is not finite; never at a step that the sources do not
        have, after their last one, or where the parameters are not in the search space.

        Args:
            keep_best: never if this trial is predicted to become the best of all that were tried.
            min_steps: never before so many steps of the trial.
        """
        self._check(study)
        step = trial.last_step
        if step is None:
            return False
        if not np.isfinite(trial.intermediate_values[step]):
            return True
        self._warn(study, [], {*trial.intermediate_values})
        config = self._config(trial)
        if config is None or step not in self._steps or step == max(self._steps):
            return False
        if sum(reported in self._steps for reported in trial.intermediate_values) < min_steps:
            return False
        state = self._state(study, trial)
        own = state.position[self._key(config)]
        _, values = self._values(state, trial, {}, own)
        others = np.sort(np.delete(values, own))[::-1]
        if keep_best and self._is_best(state, own):
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
        remaining = np.zeros((len(state.configs), len(self._steps)), bool)
        for index in range(len(state.configs)):
            remaining[index, self._remaining(state.trials.get(index, ()))] = True
        remaining[: len(self._sources.configs)] &= self._usable[:, None]
        sign, failed = self._outcome.sign, set(state.failed)
        scores = [score for at, _, score in state.observed if at not in failed]
        best = max((sign * float(self._outcome.inverse(score)) for score in scores), default=None)
        if best is None:
            return False
        with precision(self._dtype):
            progress = self._progress(state)
            gain = self._scorer.gain(progress, remaining, best, budget, utility, self._outcome)
        return gain <= 0

    def _is_best(self, state: StudyState, own: int) -> bool:
        """Whether a configuration has the largest posterior mean of those that have trials."""
        with precision(self._dtype):
            posterior = self._scorer.posterior(self._progress(state))
            best = np.asarray(posterior.average(posterior.mean)).max(1)
        return all(best[own] >= best[at] for at in state.trials if at not in state.failed)

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

    def _key(self, config: Mapping[str, Any]) -> Hashable:
        return comparable({n: v for n, v in config.items() if n in self._distributions})

    def _config(self, trial: FrozenTrial) -> dict[str, Any] | None:
        """The active hyperparameters of a trial; None if they are not all known, or not legal."""
        params = {**_fixed(trial), **trial.params}
        return self._legal({n: params[n] for n in self._distributions if n in params})

    def _legal(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        config = {name: own_value(self._space[name], value) for name, value in config.items()}
        values = {**self._constants, **config}
        try:
            legal = deactivate_inactive_hyperparameters(values, self._space)
            legal.check_valid_configuration()
        except (ValueError, KeyError, TypeError):
            return None
        return {name: config[name] for name in self._distributions if name in legal}

    def _last(self, trial: FrozenTrial) -> int:
        """Position of the last epoch that a trial reported, -1 before the first."""
        return max((self._steps.get(step, -1) for step in trial.intermediate_values), default=-1)

    def _state(self, study: Study, trial: FrozenTrial) -> StudyState:
        """`trial` itself is not pending, nor unplaced."""
        configs: list[dict[str, Any]] = list(map(dict, self._sources.configs))
        position = {self._key(config): index for index, config in enumerate(configs)}
        trials: dict[int, list[FrozenTrial]] = {}
        observed: list[tuple[int, int, float]] = []
        pending: list[tuple[int, int]] = []
        unplaced, reported = 0, set()
        for recorded in study.get_trials(deepcopy=False):
            own = recorded.number == trial.number
            other = trial if own else recorded
            running = other.state == TrialState.RUNNING and not own
            config = self._config(other)
            if config is None:
                unplaced += running and other.number < trial.number
                continue
            at = position.setdefault(self._key(config), len(configs))
            if at == len(configs):
                configs.append(config)
            trials.setdefault(at, []).append(other)
            reported.update(other.intermediate_values)
            observed += [
                (at, self._steps[step], float(value))
                for step, value in other.intermediate_values.items()
                if step in self._steps and np.isfinite(value)
            ]
            following = self._last(other) + 1
            if running and following < len(self._steps):
                pending.append((at, following))
        observed = list(dict.fromkeys(observed))
        self._warn(study, [value for *_, value in observed], reported)
        observed = [
            (at, epoch, float(self._outcome.forward(value))) for at, epoch, value in observed
        ]
        last, cells = len(self._steps) - 1, {cell[:2] for cell in observed}
        failed = [at for at, of_config in trials.items() if all(map(_has_failed, of_config))]
        if failed:
            bad = failed_score(self._modelled, [score for *_, score in observed])
            observed += [(at, last, bad) for at in failed if (at, last) not in cells]
        return StudyState(configs, position, trials, observed, pending, failed, unplaced)

    def _warn(self, study: Study, values: Sequence[float], reported: set[int]) -> None:
        """Warn, once, of values that have no effect or can hardly be of the sources' metric."""
        messages = [
            f"a value of study {study.study_name!r} {why}"
            for value in values
            if (why := self._sources.unexpected(value)) is not None
        ][:1]
        if reported and not reported & {*self._steps}:
            steps, theirs = (", ".join(map(str, sorted(s)[:5])) for s in (reported, self._steps))
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
            t.state == TrialState.PRUNED and np.isfinite(list(t.intermediate_values.values())).all()
            for t in trials
        )
        begin = max(map(self._last, trials), default=-1) + 1
        return slice(begin if resumable or not trials else len(self._steps), None)

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
        fresh = [c for c in self._fresh(trial, fixed) if self._key(c) not in state.position]
        configs = [*state.configs, *fresh]
        remaining = np.zeros((len(configs), num_epochs), bool)
        for index, config in enumerate(configs):
            if index == own:
                remaining[index, self._last(trial) + 1 :] = True
            elif all(
                comparable(config.get(name, value)) == comparable(value)
                for name, value in fixed.items()
            ):
                remaining[index, self._remaining(state.trials.get(index, ()))] = True
        remaining[:num_sources] &= self._usable[:, None]
        with precision(self._dtype):
            progress = self._progress(state)
            key = jax.random.key(self._random_seed(trial, "rule"))
            return configs, self._scorer.values(progress, self._encode(fresh), remaining, key)

    def _progress(self, state: StudyState) -> Progress:
        added = self._encode(state.configs[len(self._sources.configs) :])
        return Progress(added, state.observed, state.pending)

    def _fresh(self, trial: FrozenTrial, fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Random configurations, always the same for a trial."""
        if not self._candidates:
            return []
        seed = self._random_seed(trial, "")
        of_trial = seed, repr(fixed)
        if self._drawn is not None and self._drawn[0] == of_trial:
            return self._drawn[1]
        configs = {}
        drawn = draw(self._space, max(self._candidates, 2), seed)[: self._candidates]
        for values in plain_values(self._space, drawn):
            config = {n: v for n, v in values.items() if n in self._distributions}
            if fixed:  # other hyperparameters may be active then
                config = self._legal({**config, **fixed})
            if config is not None:
                configs.setdefault(self._key(config), config)
        # Asked for at every step of the trial: drawing takes longer than the rest.
        self._drawn = of_trial, list(configs.values())
        return self._drawn[1]

    def _random_seed(self, trial: FrozenTrial, name: str) -> int:
        entropy = [self._seed, trial.number, zlib.crc32(name.encode())]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _has_failed(trial: FrozenTrial) -> bool:
    """Whether a trial failed, or reported a value that is not finite."""
    finite = np.isfinite(list(trial.intermediate_values.values())).all()
    return trial.state == TrialState.FAIL or not finite


def _fixed(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that a trial was enqueued with."""
    return trial.system_attrs.get("fixed_params", {})
