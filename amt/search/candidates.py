"""Configurations to consider: random ones of a search space, and the neighbours of good ones.

All of it is pure: what is random follows from the seeds given.
"""

import itertools
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
from ConfigSpace import Configuration, ConfigurationSpace
from ConfigSpace.hyperparameters import FloatHyperparameter, NumericalHyperparameter
from ConfigSpace.util import get_one_exchange_neighbourhood
from jaxtyping import Float

from amt.space import (
    Encoder,
    check_configs,
    choices_of,
    make_configuration,
    on_step,
    own_value,
    step_of,
)

Origin = tuple[Configuration, Mapping[str, Any]]
"""A configuration, and its values."""


class Candidates(NamedTuple):
    """Configurations, their values and their features."""

    configs: list[Configuration]
    values: list[dict[str, Any]]
    features: Float[np.ndarray, "candidate feature"]

    @classmethod
    def of(
        cls,
        space: ConfigurationSpace,
        configs: list[Configuration],
        encode: Encoder,
        origins: Sequence[Origin] | None = None,
    ) -> "Candidates":
        """Encode configurations of a space; `origins` as for `plain_values`."""
        values = plain_values(space, configs, origins) if configs else []
        return cls(configs, values, encode(values))


def draw(space: ConfigurationSpace, count: int, seed: int) -> list[Configuration]:
    """Random configurations of a space, at least 2."""
    space = deepcopy(space)
    space.seed(seed)
    return list(space.sample_configuration(count))


def neighbours(
    centers: Sequence[Configuration], seeds: Sequence[int], count: int
) -> list[Configuration]:
    """Up to `count` random neighbours of each center, in ConfigSpace's one-exchange neighbourhood.

    Source: Hutter, Hoos, Leyton-Brown (2011), section 4.3.
    """
    found: list[Configuration] = []
    for center, seed in zip(centers, seeds, strict=True):
        around = get_one_exchange_neighbourhood(center, seed=seed)
        found.extend(itertools.islice(around, count))
    return found


def configuration_in(space: ConfigurationSpace, config: Mapping[str, Any]) -> Configuration | None:
    """The configuration of a space with these values, None if it is not legal there."""
    try:
        return make_configuration(space, config)
    except (ValueError, KeyError, TypeError):
        return None


def plain_values(
    space: ConfigurationSpace,
    configs: Sequence[Configuration],
    origins: Sequence[Origin] | None = None,
) -> list[dict[str, Any]]:
    """Dicts of plain Python values; much faster for all configurations than one by one.

    Real ones are rounded to 13 decimals as ConfigSpace does, unless that would change a small one
    by more than its 1e-9th part, and stay in their range. Those with a step (`step_of`) are on it.

    Args:
        origins: a configuration that each is a neighbour of, whose values it keeps to the last bit
            where it has not another.
    """
    vectors = np.stack([config.get_array() for config in configs])
    plain: list[dict[str, Any]] = [{} for _ in configs]
    for index, hyperparameter in enumerate(space.values()):
        active = np.flatnonzero(~np.isnan(vectors[:, index]))
        if isinstance(hyperparameter, NumericalHyperparameter):
            values = hyperparameter.to_value(vectors[active, index])
            if isinstance(hyperparameter, FloatHyperparameter):
                rounded = np.clip(np.round(values, 13), hyperparameter.lower, hyperparameter.upper)
                near = np.abs(rounded - values) <= 1e-9 * np.abs(values)
                values = np.where(near, rounded, values)
            values = values.tolist()
            step = step_of(hyperparameter)
            real = isinstance(hyperparameter, FloatHyperparameter)
            if step is not None and (real or step != 1):
                lower, upper = hyperparameter.lower, hyperparameter.upper
                kind = type(values[0]) if values else float
                values = [kind(on_step(lower, upper, step, value)) for value in values]
        else:  # a position, but for a constant
            choices = choices_of(hyperparameter)
            positions = vectors[active, index].astype(int) % len(choices)
            values = [choices[position] for position in positions.tolist()]
        for row, value in zip(active.tolist(), values, strict=True):
            if origins is not None:
                center, known = origins[row]
                if center.get_array()[index] == vectors[row, index]:
                    value = known.get(hyperparameter.name, value)
            plain[row][hyperparameter.name] = value
    return plain


def check_within(
    space: ConfigurationSpace, sources: ConfigurationSpace, *, trials: int = 64
) -> None:
    """Raise an error unless all configurations of a space are legal in the sources' space.

    Args:
        trials: how many random configurations are tried, as conditions and forbidden clauses can
            differ too.

    Raises:
        ValueError: it names the hyperparameter that the sources do not cover.
    """
    if set(space) != set(sources):
        differing = ", ".join(sorted(set(space) ^ set(sources)))
        raise ValueError(f"the space and the sources' do not both have {differing}")
    for name, ours in space.items():
        if isinstance(ours, NumericalHyperparameter):
            values = [ours.lower, ours.upper]
        else:
            values = choices_of(ours)
        for value in values:
            if not sources[name].legal_value(own_value(sources[name], value)):
                raise ValueError(f"hyperparameter {name!r}: {value!r} is not in the sources' space")
    check_configs(sources, map(dict, space.sample_configuration(trials)))
