"""Optuna's distributions as search spaces, and back."""

import math
from collections.abc import Hashable, Iterable, Mapping
from numbers import Real
from typing import Any

from ConfigSpace import ConfigurationSpace
from ConfigSpace.hyperparameters import (
    CategoricalHyperparameter,
    Constant,
    IntegerHyperparameter,
    OrdinalHyperparameter,
    UniformFloatHyperparameter,
    UniformIntegerHyperparameter,
)
from ConfigSpace.types import NotSet
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from amt.space import choices_of, comparable, on_step, plain, step_of


def space_of_distributions(distributions: Mapping[str, BaseDistribution]) -> ConfigurationSpace:
    """Optuna's distributions as a search space; those of a single value are left out.

    ConfigSpace has no step: it is kept in the hyperparameter's `meta`.

    Raises:
        ValueError: choices of a parameter are equal, as False and 0, or not equal to themselves.
    """
    space = ConfigurationSpace()
    for name, distribution in distributions.items():
        if distribution.single():
            continue
        if isinstance(distribution, CategoricalDistribution):
            choices = [plain(choice) for choice in distribution.choices]
            odd = [c for c in choices if comparable(c) is float]  # NaN
            same = [c for c in choices if [*map(comparable, choices)].count(comparable(c)) > 1]
            if odd or same:
                why = "NaN is no choice" if odd else f"{same[0]!r} and {same[1]!r} are equal"
                raise ValueError(f"choices of parameter {name!r}: {why}; use texts for them")
            space.add(CategoricalHyperparameter(name, choices))
            continue
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        integer = isinstance(distribution, IntDistribution)
        make = UniformIntegerHyperparameter if integer else UniformFloatHyperparameter
        meta: Mapping[Hashable, Any] = {"step": distribution.step}
        low, high, log = distribution.low, distribution.high, distribution.log
        space.add(make(name, low, high, log=log, meta=meta))
    return space


def distributions_of_space(space: ConfigurationSpace) -> dict[str, BaseDistribution]:
    """A search space as Optuna's distributions, constants left out; ordinals are categorical."""
    distributions: dict[str, BaseDistribution] = {}
    h: Any
    for h in space.values():
        step = step_of(h)
        match h:
            case Constant():
                continue
            case OrdinalHyperparameter():
                distribution = CategoricalDistribution(choices_of(h))
            case CategoricalHyperparameter():
                distribution = CategoricalDistribution(choices_of(h))
            case IntegerHyperparameter():
                distribution = IntDistribution(h.lower, h.upper, h.log, int(step or 1))
            case _:
                distribution = FloatDistribution(h.lower, h.upper, h.log, step)
        distributions[h.name] = distribution
    return distributions


def nearest(distribution: BaseDistribution, value: Any) -> Any:
    """The value of a distribution that is nearest to another; NotSet if it is not of its kind."""
    if isinstance(distribution, CategoricalDistribution):
        return nearest_choice(distribution.choices, value)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if not _is_number(value):
        return NotSet
    low, high, step = distribution.low, distribution.high, distribution.step
    value = min(max(value, low), high)
    if step is not None:
        value = on_step(low, high, step, value)
    return round(value) if isinstance(distribution, IntDistribution) else float(value)


def nearest_choice(choices: Iterable[Any], value: Any) -> Any:
    """The choice that equals a value (`comparable`), or of numbers alone the nearest, or NotSet."""
    choices = [plain(choice) for choice in choices]
    equal = [choice for choice in choices if comparable(choice) == comparable(value)]
    if not equal and _is_number(value) and all(map(_is_number, choices)):
        return min(choices, key=lambda choice: abs(choice - value))
    return equal[0] if equal else NotSet


def in_distribution(distribution: BaseDistribution, value: Any) -> Any:
    """The value of a distribution that differs from another by rounding only, or NotSet."""
    near = nearest(distribution, value)
    if near is NotSet or comparable(near) == comparable(value):
        return near
    equal = _is_number(near) and math.isclose(near, value, rel_tol=1e-9, abs_tol=1e-300)
    return near if equal else NotSet


def unite(old: BaseDistribution, new: BaseDistribution) -> BaseDistribution | None:
    """A distribution of the values of both; None if one has numbers and the other choices.

    It is of integers if both are, and on a logarithmic scale if one is and no value is below it;
    choices come in their order, those of `old` first. Choices that are all numbers go with numbers.
    """
    if old == new:
        return old
    if isinstance(old, CategoricalDistribution) and isinstance(new, CategoricalDistribution):
        known = {comparable(choice) for choice in old.choices}
        more = [choice for choice in new.choices if comparable(choice) not in known]
        return CategoricalDistribution((*old.choices, *more))
    one, other = _numeric(old), _numeric(new)
    return None if one is None or other is None else _unite_numeric(one, other)


def _unite_numeric(
    old: IntDistribution | FloatDistribution, new: IntDistribution | FloatDistribution
) -> BaseDistribution:
    integer = isinstance(old, IntDistribution) and isinstance(new, IntDistribution)
    low, high = min(old.low, new.low), max(old.high, new.high)
    log = (old.log or new.log) and low > 0
    same = type(old) is type(new) and old.step == new.step and old._contains(new.low)
    step = old.step if same and not log else None
    if integer:
        return IntDistribution(int(low), int(high), log, int(step or 1))
    return FloatDistribution(low, high, log, step)


def _numeric(distribution: BaseDistribution) -> IntDistribution | FloatDistribution | None:
    """A distribution of numbers, that of choices which are numbers their range; else None."""
    if isinstance(distribution, IntDistribution | FloatDistribution):
        return distribution
    assert isinstance(distribution, CategoricalDistribution)
    numbers: Any = distribution.choices
    if not all(map(_is_number, numbers)):
        return None
    whole = all(isinstance(number, int) for number in numbers)
    return (IntDistribution if whole else FloatDistribution)(min(numbers), max(numbers))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
