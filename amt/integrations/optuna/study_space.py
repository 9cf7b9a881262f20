"""The search space of a study, which its own trials tell, as the sources' model sees it."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cached_property
from numbers import Real
from typing import Any

from ConfigSpace import ConfigurationSpace
from ConfigSpace.hyperparameters import Constant, NumericalHyperparameter
from ConfigSpace.types import NotSet
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from amt.integrations.optuna.spaces import (
    distributions_of_space,
    in_distribution,
    nearest_choice,
    space_of_distributions,
)
from amt.search.candidates import draw, plain_values
from amt.space import choices_of, comparable, own_value, plain


class StudySpace:
    """The part of a search space that a study searches, in the distributions of its trials.

    Choices, ranges and scales can differ from those of the search space (`nearest`), and parameters
    of it can be missing. When a parameter is active follows from the search space.

    Args:
        space: of which it has the conditions.
        distributions: of the parameters that are suggested.
    """

    def __init__(self, space: ConfigurationSpace, distributions: Mapping[str, BaseDistribution]):
        self._space, self.distributions = space, dict(distributions)

    @classmethod
    def of_trials(
        cls, space: ConfigurationSpace, names: Iterable[str], trials: Iterable[FrozenTrial]
    ) -> "StudySpace":
        """The space of a study's trials; a parameter that none has yet is as `space` has it.

        A parameter is as its last trial has it. One of `names` that is not conditional, and that no
        trial had when it ended, is not suggested by the study.
        """
        found: dict[str, BaseDistribution] = {}
        ended = False
        for trial in trials:
            found |= trial.distributions
            ended |= bool(trial.params) and trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        conditional = {*space.conditional_hyperparameters}
        assumed = {
            name: distribution
            for name, distribution in distributions_of_space(space).items()
            if name in conditional or not ended
        }
        known = assumed | found
        return cls(space, {name: known[name] for name in names if name in known})

    def key(self, config: Mapping[str, Any]) -> Hashable:
        """A form of a configuration that those share which the study cannot tell apart."""
        return comparable({n: v for n, v in config.items() if n in self.distributions})

    def placed(self, params: Mapping[str, Any], *, ended: bool) -> dict[str, Any] | None:
        """The active parameters, in the study's own values; None unless all of them are there.

        Args:
            ended: whether a conditional one that is not there was not suggested.
        """
        own: dict[str, Any] = {}
        for name, of in self.distributions.items():
            if name in params:
                value = in_distribution(of, params[name])
                own[name] = plain(params[name]) if value is NotSet else value
        config: dict[str, Any] = {}
        for name in self._active(own):
            if name in own:
                config[name] = own[name]
            elif not (ended and name in self._space.conditional_hyperparameters):
                return None
        return config or None

    def legal(self, config: Mapping[str, Any]) -> dict[str, Any] | None:
        """The active parameters; None unless all are there, in their distributions, and allowed."""
        placed = self.placed(config, ended=False)
        if placed is None or self._forbidden(placed):
            return None
        of = self.distributions
        inside = all(in_distribution(of[n], value) is not NotSet for n, value in placed.items())
        return placed if inside else None

    def draw(self, count: int, seed: int, fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Random configurations with some values that are fixed, forbidden ones left out."""
        space = self._drawn_from
        single = {n: of for n, of in self.distributions.items() if of.single()}
        constant = {name: _only_value(of) for name, of in single.items()}
        values = [{}] * count
        if len(space):
            values = plain_values(space, draw(space, max(count, 2), seed)[:count])
        drawn = [{**constant, **config, **fixed} for config in values]
        if not drawn or self._space.conditions or self._space.forbidden_clauses:
            return [legal for config in drawn if (legal := self.legal(config)) is not None]
        # What is drawn is legal, and what is fixed is the same in all.
        first = self.legal(drawn[0])
        if first is None:
            return []
        own = {name: first[name] for name in fixed if name in first}
        return [{name: {**config, **own}[name] for name in first} for config in drawn]

    def _active(self, params: Mapping[str, Any]) -> list[str]:
        """The names of the study's parameters that are active under some values."""
        values = {**self._constants, **self._base_values(params)}
        active = []
        for name in self._space:  # parents come first
            conditions = self._space.parent_conditions_of[name]
            if all(_holds(condition.satisfied_by_value, values) for condition in conditions):
                active.append(name)
            else:
                values[name] = NotSet
        more = [name for name in self.distributions if name not in self._space]
        return [name for name in [*active, *more] if name in self.distributions]

    def _forbidden(self, config: Mapping[str, Any]) -> bool:
        values = {**self._constants, **self._base_values(config)}
        clauses = self._space.forbidden_clauses
        return any(_holds(clause.is_forbidden_value, values) for clause in clauses)

    def _base_values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {n: own_value(self._space[n], v) for n, v in params.items() if n in self._space}

    @cached_property
    def _drawn_from(self) -> ConfigurationSpace:
        return space_of_distributions(self.distributions)

    @cached_property
    def _constants(self) -> dict[str, Any]:
        given = {h.name: h.value for h in self._space.values() if isinstance(h, Constant)}
        return {**dict.fromkeys(self._space, NotSet), **given}


def modelled(space: ConfigurationSpace, config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in the terms of another search space, for its `Encoder`.

    Numbers keep their value, be it out of range, choices that are numbers go to the nearest one. A
    choice that the space does not have is left out: it is unlike all that there are. A parameter
    that is missing and not conditional has its default, the middle of its range.
    """
    values = {}
    for name, h in space.items():
        if isinstance(h, Constant):
            continue
        value: Any = config.get(name, NotSet)
        numeric = isinstance(h, NumericalHyperparameter)
        if numeric and (not isinstance(value, Real) or isinstance(value, bool)):
            value = NotSet
        elif numeric and getattr(h, "log", False) and not float(value) > 0:
            value = h.lower
        elif not numeric and value is not NotSet:
            value = nearest_choice(choices_of(h), value)
        unlike = name in config and not numeric
        missing = name not in config and name in space.conditional_hyperparameters
        if value is NotSet and not unlike and not missing:
            value = own_value(h, h.default_value)
        if value is not NotSet:
            values[name] = value
    return values


def _only_value(distribution: BaseDistribution) -> Any:
    """The value of a distribution that has one."""
    if isinstance(distribution, CategoricalDistribution):
        return plain(distribution.choices[0])
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low


def _holds(test: Callable[[dict[str, Any]], bool], values: dict[str, Any]) -> bool:
    """Whether a condition or a clause holds, which it does not of values that it does not know."""
    try:
        return test(values)
    except (ValueError, KeyError, TypeError):
        return False
