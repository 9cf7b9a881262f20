"""Optuna's distributions as search spaces, and back."""

from collections.abc import Hashable, Mapping
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
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from amt.space import choices_of, comparable, plain, step_of


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
