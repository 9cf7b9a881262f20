"""A sampler and a pruner for Optuna, which learn from past studies.

```python
sources = sources_from_studies("sqlite:///past.db")
sampler = AMTSampler(sources, seed=0)
study = optuna.create_study(
    study_name="new", storage="sqlite:///new.db", direction="maximize",
    sampler=sampler, pruner=AMTPruner(sampler), load_if_exists=True,
)
study.optimize(objective, n_trials=100)
```

All state is in the trials of the study. The model is fitted once in each process, from the sources
and the seed alone, so that any number of workers share a study through its storage, and one that
is killed loses nothing that it has reported.

Each trial is one configuration, and each step that it reports one epoch. The sampler starts the
configuration of largest acquisition value among those not tried; after each report the pruner
stops the trial if that value is larger than the trial's own. The two are AT2's decision rule
(Xiao, Xing, Neiswanger 2021, algorithm 1), with one difference: Optuna does not go on with a trial
that was pruned. With `resume=True` its configuration stays a candidate for a new trial, which
can start from the checkpoint of the old one (`paused_trial`): then this is the rule as published.
"""

import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optuna
from ConfigSpace import ConfigurationSpace
from ConfigSpace.hyperparameters import (
    CategoricalHyperparameter,
    Constant,
    IntegerHyperparameter,
    OrdinalHyperparameter,
    UniformFloatHyperparameter,
    UniformIntegerHyperparameter,
)
from ConfigSpace.util import deactivate_inactive_hyperparameters
from jax.typing import DTypeLike
from jaxtyping import Float
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from amt.curves import LearningCurves
from amt.gp.grid import CurveGrid
from amt.gp.observations import Observations
from amt.inference import Fit
from amt.outcome import Outcome
from amt.precision import precision
from amt.search.acquisition import Acquisition, upper_confidence_bound
from amt.search.fitting import fit_sources, source_posterior
from amt.search.tuner import candidate_values, padded_size, require_finite
from amt.space import Encoder


def space_of_distributions(distributions: Mapping[str, BaseDistribution]) -> ConfigurationSpace:
    """Optuna's distributions as a search space; those of a single value are left out.

    ConfigSpace has no step: it is kept in the hyperparameter's `meta`.
    """
    space = ConfigurationSpace()
    for name, distribution in distributions.items():
        if distribution.single():
            continue
        if isinstance(distribution, CategoricalDistribution):
            space.add(CategoricalHyperparameter(name, distribution.choices))
            continue
        integer = isinstance(distribution, IntDistribution)
        make = UniformIntegerHyperparameter if integer else UniformFloatHyperparameter
        low, high, meta = distribution.low, distribution.high, {"step": distribution.step}
        space.add(make(name, low, high, log=distribution.log, meta=meta))
    return space


def distributions_of_space(space: ConfigurationSpace) -> dict[str, BaseDistribution]:
    """A search space as Optuna's distributions, constants left out; ordinals are categorical."""
    distributions: dict[str, BaseDistribution] = {}
    for h in space.values():
        if isinstance(h, Constant):
            continue
        if isinstance(h, CategoricalHyperparameter | OrdinalHyperparameter):
            ordinal = isinstance(h, OrdinalHyperparameter)
            distributions[h.name] = CategoricalDistribution(h.sequence if ordinal else h.choices)
            continue
        step = (h.meta or {}).get("step")
        if isinstance(h, IntegerHyperparameter):
            distributions[h.name] = IntDistribution(h.lower, h.upper, h.log, step or 1)
        else:
            distributions[h.name] = FloatDistribution(h.lower, h.upper, h.log, step)
    return distributions


def sources_from_studies(
    storage: str | BaseStorage, names: Iterable[str] | None = None, *, first_step: int = 0
) -> LearningCurves:
    """Past studies of an Optuna storage as source tasks.

    A study is a task. Of its finished trials (complete, pruned or failed) all that reported
    intermediate values count, each as the configuration of those parameters that every such trial
    of every study has; parameters that only some have (conditional ones) are left out. Ranges and
    choices are the union over the studies. Trials of equal parameters are averaged. Values that
    are not finite count as missing, and so do steps that only other trials have and configurations
    that only other studies have. `outcome` of the result says how scores were made of values
    (`amt.outcome`).

    Args:
        names: of the studies; by default all that have one objective and intermediate values. Leave
            out the study to be tuned.
        first_step: the step that trials report for their first epoch.

    Raises:
        ValueError: no study has intermediate values, or a named one has none or several
            objectives; studies differ in direction or in a parameter's kind; or a step is before
            the first. The message names study, trial and step.
        KeyError: there is no such study.
    """
    there = optuna.get_all_study_names(storage)
    chosen = list(there if names is None else names)
    if unknown := [name for name in chosen if name not in there]:
        raise KeyError(f"no study {unknown[0]!r}; there are {', '.join(there)}")
    trials: dict[str, list[FrozenTrial]] = {}
    directions: dict[str, StudyDirection] = {}
    for name in chosen:
        study = optuna.load_study(study_name=name, storage=storage)
        single = len(study.directions) == 1
        curves = [t for t in study.trials if t.state.is_finished() and t.intermediate_values]
        if single and curves:
            trials[name], directions[name] = curves, study.direction
        elif names is not None:
            lack = "no finished trial with intermediate values" if single else "several objectives"
            raise ValueError(f"study {name!r} has {lack}")
    if not trials:
        raise ValueError("no study has one objective and finished trials with intermediate values")
    chosen = list(trials)
    for name in chosen[1:]:
        if directions[name] != directions[chosen[0]]:
            raise ValueError(
                f"study {name!r} is to {directions[name].name.lower()}, study {chosen[0]!r} to "
                f"{directions[chosen[0]].name.lower()}: they cannot be sources together"
            )

    space = space_of_distributions(_merge(trials))
    if not len(space):
        raise ValueError("no parameter is in all trials of all studies with more than one value")
    configs: dict[tuple, tuple[int, dict[str, Any]]] = {}
    cells: dict[tuple[int, int, int], list[float]] = {}
    for task, name in enumerate(chosen):
        for trial in trials[name]:
            config = {p: trial.params[p] for p in space}
            row, _ = configs.setdefault(tuple(config.values()), (len(configs), config))
            for step, value in trial.intermediate_values.items():
                if step < first_step:
                    raise ValueError(
                        f"study {name!r}, trial {trial.number} reported step {step}, before the "
                        f"first step {first_step}"
                    )
                cell = cells.setdefault((task, row, step - first_step + 1), [])
                if np.isfinite(value):
                    cell.append(value)
    epochs = sorted({epoch for _, _, epoch in cells})
    values = np.full((len(chosen), len(configs), len(epochs)), np.nan)
    for (task, row, epoch), found in cells.items():
        if found:
            values[task, row, epochs.index(epoch)] = np.mean(found)
    minimise = directions[chosen[0]] == StudyDirection.MINIMIZE
    outcome = Outcome.fit(values, minimise=minimise)
    return LearningCurves(
        configs=[config for _, config in configs.values()],
        space=space,
        tasks=chosen,
        scores=outcome.forward(values),
        epochs=np.array(epochs),
        outcome=outcome,
    )


def _merge(trials: Mapping[str, Sequence[FrozenTrial]]) -> dict[str, BaseDistribution]:
    """Distributions of the parameters that all trials have, ranges and choices united."""
    merged: dict[str, BaseDistribution] = {}
    origin: dict[str, str] = {}
    everywhere = set.intersection(*(set(t.params) for ts in trials.values() for t in ts))
    for study, finished in trials.items():
        for trial in finished:
            for name in sorted(everywhere):
                new = trial.distributions[name]
                old = merged.setdefault(name, new)
                where = f"study {study!r}, trial {trial.number}"
                origin.setdefault(name, where)
                if old == new:
                    continue
                if type(old) is not type(new) or getattr(old, "log", 0) != getattr(new, "log", 0):
                    raise ValueError(
                        f"parameter {name!r} is {new} in {where}, but {old} in {origin[name]}"
                    )
                if isinstance(old, CategoricalDistribution):
                    more = [choice for choice in new.choices if choice not in old.choices]
                    merged[name] = CategoricalDistribution((*old.choices, *more))
                    continue
                same = old.step == new.step and old._contains(new.low)
                finest = 1 if isinstance(old, IntDistribution) else None
                merged[name] = type(old)(
                    min(old.low, new.low),
                    max(old.high, new.high),
                    log=old.log,
                    step=old.step if same else finest,
                )
    return merged


def paused_trial(trial: Trial) -> FrozenTrial | None:
    """The pruned trial of the same parameters that went furthest, None if there is none.

    Its checkpoint is what an objective can go on from, with `AMTSampler(resume=True)`: call it when
    all parameters have been suggested, and report from the step after its `last_step`.
    """
    pruned = trial.study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    same = [t for t in pruned if t.params == trial.params and t.last_step is not None]
    return max(same, key=lambda t: t.last_step, default=None)


class _State(NamedTuple):
    """What the trials of a study say.

    Attributes:
        configs: the configurations of the sources, and behind them those of other trials.
        position: where each of them is, by its key.
        trials: the trials of a configuration, by its position.
        observed: (position, position of the epoch, score).
        pending: (position, position of the epoch) that running trials are at.
        unplaced: how many trials that started before have no parameters yet.
    """

    configs: list[dict[str, Any]]
    position: dict[tuple, int]
    trials: dict[int, list[FrozenTrial]]
    observed: list[tuple[int, int, float]]
    pending: list[tuple[int, int]]
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
        acquisition: see `amt.search.acquisition`.
        space: search space of the new study where its ranges differ from the sources', with the
            same hyperparameters (`space_of_distributions`).
        candidates: how many random configurations are considered; 0 for those of the sources alone.
        resume: whether configurations of pruned trials are candidates again (module docstring).
        first_step: the step that trials report for their first epoch. Steps that are not among the
            epochs of the sources have no effect.
        fit: a model fitted before to these sources, instead of a new fit.
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
        acquisition: Acquisition = upper_confidence_bound,
        space: ConfigurationSpace | None = None,
        candidates: int = 256,
        resume: bool = False,
        first_step: int = 0,
        fit: Fit | None = None,
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
        with precision(dtype):
            if fit is None:
                kernels = {"config": "matern"} if kernels is None else dict(kernels)
                key = jax.random.key(seed)
                fit, grid = fit_sources(sources, key, dtype=dtype, kernels=kernels, **options)
            else:
                grid = CurveGrid.of(sources, dtype)
            self._source = source_posterior(fit, grid)
        self.fit = fit
        self._grid = grid
        self._dtype = dtype
        self._seed = seed
        self._acquisition = acquisition
        self._candidates = candidates
        self._resume = resume
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
        return dict(self._key(configs[order[min(state.unplaced, len(order) - 1)]]))

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

    def should_prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether another configuration is worth more than one more epoch of this trial.

        Always, if the last value reported is not finite; never at a step that the sources do not
        have, after their last one, or where the parameters are not in the search space.
        """
        self._check(study)
        step = trial.last_step
        if step is None:
            return False
        if not np.isfinite(trial.intermediate_values[step]):
            return True
        config = self._config(trial)
        if config is None or step not in self._steps or step == max(self._steps):
            return False
        state = self._state(study, trial)
        own = state.position[self._key(config)]
        _, values = self._values(state, trial, {}, own)
        others = np.sort(np.delete(values, own))[::-1]
        return bool(others[min(state.unplaced, len(others) - 1)] > values[own])

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

    def _key(self, config: Mapping[str, Any]) -> tuple:
        return tuple((name, config[name]) for name in self._distributions if name in config)

    def _config(self, trial: FrozenTrial) -> dict[str, Any] | None:
        """The active hyperparameters of a trial; None if they are not all known, or not legal."""
        params = {**_fixed(trial), **trial.params}
        return self._legal({n: params[n] for n in self._distributions if n in params})

    def _legal(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
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

    def _state(self, study: Study, trial: FrozenTrial) -> _State:
        """`trial` itself is not pending, nor unplaced."""
        configs = list(self._sources.configs)
        position = {self._key(config): index for index, config in enumerate(configs)}
        trials: dict[int, list[FrozenTrial]] = {}
        observed: list[tuple[int, int, float]] = []
        pending: list[tuple[int, int]] = []
        unplaced = 0
        for each in study.get_trials(deepcopy=False):
            own = each.number == trial.number
            each = trial if own else each
            running = each.state == TrialState.RUNNING and not own
            config = self._config(each)
            if config is None:
                unplaced += running and each.number < trial.number
                continue
            at = position.setdefault(self._key(config), len(configs))
            if at == len(configs):
                configs.append(config)
            trials.setdefault(at, []).append(each)
            observed += [
                (at, self._steps[step], float(self._sources.outcome.forward(value)))
                for step, value in each.intermediate_values.items()
                if step in self._steps and np.isfinite(value)
            ]
            following = self._last(each) + 1
            if running and following < len(self._steps):
                pending.append((at, following))
        observed = list(dict.fromkeys(observed))
        return _State(configs, position, trials, observed, pending, unplaced)

    def _remaining(self, trials: Sequence[FrozenTrial]) -> slice:
        """The epochs that a new trial of a configuration with these trials would train."""
        resumable = self._resume and all(
            t.state == TrialState.PRUNED and np.isfinite(list(t.intermediate_values.values())).all()
            for t in trials
        )
        begin = max(map(self._last, trials), default=-1) + 1
        return slice(begin if resumable or not trials else len(self._steps), None)

    def _values(
        self, state: _State, trial: FrozenTrial, fixed: Mapping[str, Any], own: int | None = None
    ) -> tuple[list[dict[str, Any] | None], Float[np.ndarray, "candidate"]]:
        """Candidates and their acquisition values, -inf for those that are none.

        Args:
            fixed: parameter values that candidates must have.
            own: the configuration that `trial` runs.
        """
        # Shapes grow by powers of 2, so that few need compiling. What fills them is no candidate.
        num_sources, num_epochs = self._sources.scores.shape[1:]
        extra = state.configs[num_sources:]
        room = padded_size(len(extra), 8)
        fresh = [c for c in self._fresh(trial, fixed) if self._key(c) not in state.position]
        configs: list[dict[str, Any] | None] = [*state.configs, *[None] * (room - len(extra))]
        configs += [*fresh, *[None] * (self._candidates - len(fresh))]
        filler = self._sources.configs[0]
        features = self._encode([filler if c is None else c for c in configs[num_sources:]])
        remaining = np.zeros((len(configs), num_epochs), bool)
        for index, config in enumerate(configs):
            if index == own:
                remaining[index, self._last(trial) + 1 :] = True
            elif config is not None and all(config.get(n, v) == v for n, v in fixed.items()):
                remaining[index, self._remaining(state.trials.get(index, ()))] = True
        remaining[:num_sources] &= self._usable[:, None]
        with precision(self._dtype):
            dtype = self._grid.scores.dtype
            observed, pending = state.observed, [(*at, 0.0) for at in state.pending]
            values, finite = candidate_values(
                self._source,
                jnp.asarray(features[:room], dtype),
                jnp.asarray(features[room:], dtype),
                Observations.of(observed, padded_size(len(observed), 64), dtype),
                Observations.of(pending, padded_size(len(pending), 8), dtype),
                remaining,
                self._acquisition,
            )
            require_finite(finite)
            return configs, np.asarray(values)

    def _fresh(self, trial: FrozenTrial, fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Random configurations, always the same for a trial."""
        if not self._candidates:
            return []
        space = deepcopy(self._space)
        space.seed(self._random_seed(trial, ""))
        drawn = space.sample_configuration(max(self._candidates, 2))[: self._candidates]
        configs = {}
        for values in drawn:
            config = {n: v for n, v in values.items() if n in self._distributions}
            for name, value in config.items():
                if getattr(self._distributions[name], "step", None):
                    config[name] = _on_step(self._distributions[name], value)
            if fixed:  # other hyperparameters may be active then
                config = self._legal({**config, **fixed})
            if config is not None:
                configs.setdefault(self._key(config), config)
        return list(configs.values())

    def _random_seed(self, trial: FrozenTrial, name: str) -> int:
        entropy = [self._seed, trial.number, zlib.crc32(name.encode())]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])


class AMTPruner(BasePruner):
    """Stops a trial when the sampler has a configuration whose next epoch is worth more.

    Args:
        sampler: that of the study, whose model and acquisition function decide.
    """

    def __init__(self, sampler: AMTSampler):
        self._sampler = sampler

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        return self._sampler.should_prune(study, trial)


def _fixed(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that a trial was enqueued with."""
    return trial.system_attrs.get("fixed_params", {})


def _on_step(distribution: FloatDistribution | IntDistribution, value: float) -> float:
    steps = round((value - distribution.low) / distribution.step)
    return min(distribution.low + steps * distribution.step, distribution.high)
