"""Search spaces as libraries see them that know of no conditions: every hyperparameter is active.

A configuration is completed by the default values of what is inactive in it, and what such a
library suggests loses the values of what is inactive.
"""

from collections.abc import Mapping
from typing import Any

from ConfigSpace import ConfigurationSpace
from ConfigSpace.types import NotSet

from amt.space import Config, own_value, plain


def is_active(space: ConfigurationSpace, name: str, config: Config) -> bool:
    """Whether a hyperparameter is active, given the active ones before it in the space."""
    values = {**dict.fromkeys(space, NotSet), **config}
    return all(c.satisfied_by_value(values) for c in space.parent_conditions_of[name])


def active(space: ConfigurationSpace, values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of values for all hyperparameters: those of the active ones."""
    config: dict[str, Any] = {}
    for name in space:  # parents come first
        if is_active(space, name, config):
            config[name] = own_value(space[name], values[name])
    return config


def completed(space: ConfigurationSpace, config: Config) -> dict[str, Any]:
    """Values for all hyperparameters: a configuration, and defaults for what is inactive in it."""
    return {name: config.get(name, plain(space[name].default_value)) for name in space}
