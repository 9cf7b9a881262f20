"""Configurations to consider: random ones of a search space, and the neighbours of good ones.

All of it is pure: what is random follows from the seeds given.
"""

import itertools
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
from ConfigSpace import Configuration, ConfigurationSpace
from ConfigSpace.hyperparameters import Constant, NumericalHyperparameter
from ConfigSpace.util import get_one_exchange_neighbourhood
from jaxtyping import Float, Int

from amt.space import Encoder, check_configs, make_configuration

SAME = 1e-9  # configurations whose features are all closer than this are one


class Candidates(NamedTuple):
    """Configurations and their features."""

    configs: list[Configuration]
    features: Float[np.ndarray, "candidate feature"]

    @classmethod
    def of(
        cls, space: ConfigurationSpace, configs: list[Configuration], encode: Encoder
    ) -> "Candidates":
        """Encode configurations of a space."""
        return cls(configs, encode(plain_values(space, configs) if configs else []))


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


def find(
    features: Float[np.ndarray, "row feature"], known: Float[np.ndarray, "known feature"]
) -> Int[np.ndarray, "row"]:
    """The positions among known configurations of those with these features, -1 for none."""
    same = np.all(np.abs(features[:, None] - known) < SAME, axis=-1)
    return np.where(np.any(same, axis=1), np.argmax(same, axis=1), -1)


def configuration_in(space: ConfigurationSpace, config: Mapping[str, Any]) -> Configuration | None:
    """The configuration of a space with these values, None if it is not legal there."""
    try:
        return make_configuration(space, config)
    except (ValueError, KeyError, TypeError):
        return None


def plain_values(
    space: ConfigurationSpace, configs: Sequence[Configuration]
) -> list[dict[str, Any]]:
    """Dicts of plain Python values; much faster for all configurations than one by one."""
    vectors = np.stack([config.get_array() for config in configs])
    plain: list[dict[str, Any]] = [{} for _ in configs]
    for index, hyperparameter in enumerate(space.values()):
        active = np.flatnonzero(~np.isnan(vectors[:, index]))
        values = hyperparameter.to_value(vectors[active, index])
        for row, value in zip(active, values.tolist(), strict=True):
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
            values = getattr(ours, "choices", None) or getattr(ours, "sequence", None)
        for value in [ours.value] if isinstance(ours, Constant) else values or []:
            if not sources[name].legal_value(value):
                raise ValueError(f"hyperparameter {name!r}: {value!r} is not in the sources' space")
    check_configs(sources, map(dict, space.sample_configuration(trials)))
