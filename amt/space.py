"""Search spaces and the features that kernels see of a configuration.

A search space is a `ConfigSpace.ConfigurationSpace`, a configuration a dict of the values of its
active hyperparameters. `Encoder` turns configurations into rows of numbers.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from ConfigSpace import Configuration, ConfigurationSpace, EqualsCondition, InCondition
from ConfigSpace.hyperparameters import (
    CategoricalHyperparameter,
    Constant,
    FloatHyperparameter,
    Hyperparameter,
    IntegerHyperparameter,
    NumericalHyperparameter,
    OrdinalHyperparameter,
)
from ConfigSpace.hyperparameters.hp_components import ROUND_PLACES
from ConfigSpace.types import NotSet
from jaxtyping import Float

Config = Mapping[str, Any]
_Ordered = NumericalHyperparameter | OrdinalHyperparameter


class LegalConfigs(tuple[dict, ...]):
    """Configurations that are legal in a space, as `check_configs` found."""

    space: ConfigurationSpace

    @classmethod
    def of(cls, space: ConfigurationSpace, configs: Iterable[Config]) -> "LegalConfigs":
        """Configurations of which this is known."""
        legal = cls(map(dict, configs))
        legal.space = space
        return legal


def check_configs(space: ConfigurationSpace, configs: Iterable[Config]) -> LegalConfigs:
    """The configurations as dicts of the space's own values, all of them legal in it.

    The values are Python's own (`own_value`). Constants may be left out. What was checked before is
    not checked again.

    Raises:
        ValueError: a value is outside of its range, an active hyperparameter has none, an inactive
            or unknown one has; the message names the configuration by its position.
    """
    if isinstance(configs, LegalConfigs) and configs.space is space:
        return configs
    checked = []
    for index, config in enumerate(configs):
        try:
            make_configuration(space, config)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"configuration {index} is not legal: {error}") from error
        checked.append({name: own_value(space[name], value) for name, value in config.items()})
    return LegalConfigs.of(space, checked)


def make_configuration(space: ConfigurationSpace, config: Config) -> Configuration:
    """A configuration of `space`: the values of `config`, and active constants that it leaves out.

    Raises:
        ValueError, KeyError, TypeError: it is not legal.
    """
    values = {**dict.fromkeys(space, NotSet), **config}
    for name, value in config.items():
        if name in space and value is not NotSet:
            values[name] = own_value(space[name], value)
            if not isinstance(space[name], NumericalHyperparameter):
                _choice(space[name], value)
    for name, hyperparameter in space.items():  # parents come first
        if isinstance(hyperparameter, Constant) and values[name] is NotSet:
            conditions = space.parent_conditions_of[name]
            if all(condition.satisfied_by_value(values) for condition in conditions):
                values[name] = hyperparameter.value
    return Configuration(space, values={n: v for n, v in values.items() if v is not NotSet})


def choices_of(hyperparameter: Any) -> tuple[Any, ...]:
    """The values of a categorical, ordinal or constant hyperparameter, as Python's own."""
    for name in ("choices", "sequence"):
        if hasattr(hyperparameter, name):
            return tuple(map(plain, getattr(hyperparameter, name)))
    return (plain(hyperparameter.value),)


def own_value(hyperparameter: Hyperparameter, value: Any) -> Any:
    """The value of a hyperparameter that equals `value`, as Python's own; `value` if none does.

    A file or a library in between may have made a list of a tuple, 1.0 of 1 or NumPy's types of
    Python's: what comes back is the choice as the search space has it, an `int` of an integer
    hyperparameter and a `float` of a real one, on its bound or step (`step_of`) if it is off that
    by rounding only.
    """
    value = plain(value)
    if isinstance(hyperparameter, IntegerHyperparameter):
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return int(value) if whole else value
    if isinstance(hyperparameter, FloatHyperparameter):
        return _own_float(hyperparameter, float(value)) if isinstance(value, Real) else value
    wanted = comparable(value)
    return next((c for c in choices_of(hyperparameter) if comparable(c) == wanted), value)


def _own_float(hyperparameter: FloatHyperparameter, value: float) -> float:
    """A value, but its bound where it differs from that, or its step from that, by rounding."""
    lower, upper, step = *_range(hyperparameter), step_of(hyperparameter)
    if not lower <= value <= upper and lower <= float(np.round(value, ROUND_PLACES)) <= upper:
        value = min(max(value, lower), upper)
    if step is not None and np.isfinite(value):
        nearest = on_step(lower, upper, step, value)
        return nearest if abs(value - nearest) <= 1e-8 * step else value
    return value


def _range(hyperparameter: NumericalHyperparameter) -> tuple[float, float]:
    return float(hyperparameter.lower), float(hyperparameter.upper)


def step_of(hyperparameter: Hyperparameter) -> float | None:
    """The step between the values of a hyperparameter, in its `meta={"step": number}`."""
    return (hyperparameter.meta or {}).get("step")


def on_step(lower: float, upper: float, step: float, value: float) -> float:
    """The nearest value that is a whole number of steps above `lower`, as decimals have it.

    In floats 3 * 0.1 is 0.30000000000000004; here it is 0.3, as whoever writes it down has it.
    """
    low, high, width = (Decimal(str(x)) for x in (lower, upper, step))
    steps = min(round((Decimal(str(value)) - low) / width), (high - low) // width)
    return float(low + max(steps, 0) * width)


def plain(value: Any) -> Any:
    """A value as Python's own, where it is of NumPy's types, inside of a list or tuple too."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return value


def comparable(value: Any) -> Hashable:
    """A form of a value that is hashable, the same of a list and a tuple, and of any NaN."""
    value = plain(value)
    if isinstance(value, list | tuple):
        return tuple(map(comparable, value))
    if isinstance(value, Mapping):
        return frozenset((comparable(k), comparable(v)) for k, v in value.items())
    return float if isinstance(value, float) and np.isnan(value) else value


def config_key(space: ConfigurationSpace, config: Config) -> Hashable:
    """A form of a configuration that equal ones share, constants left out or not."""
    varying = {n: v for n, v in config.items() if not isinstance(space[n], Constant)}
    return comparable(varying)


class Group(NamedTuple):
    """Columns of the hyperparameters that are active together (`Encoder.groups`).

    Attributes:
        numeric: the numeric columns.
        categorical: the one-hot columns of each categorical hyperparameter.
        active: columns whose sum is 1 where the group is active, 0 elsewhere; none if it always is.
    """

    numeric: tuple[int, ...]
    categorical: tuple[tuple[int, ...], ...]
    active: tuple[int, ...]


class Encoder:
    r"""Features of configurations: rows of `num_features` numbers in [0, 1].

    - Each numeric or ordinal hyperparameter is a column \(\frac{g(x) - g(l)}{g(u) - g(l)}\), with
      [l, u] its range and g the logarithm where it is on a log scale (for ordinals, the rank),
    - then each categorical one is a group of one-hot columns,
    - then each conditional hyperparameter is a column that says whether it is active.

    Inactive values are 0. Constants have no column. Numeric hyperparameters that are never active
    together can share one column, by the same `meta={"column": name}`: they are branches of one
    hyperparameter whose range depends on its parent. Columns come in the order of the space
    (alphabetical, parents first), or of `meta={"position": number}`.

    Attributes:
        columns: name of each feature.
        numeric: number of numeric columns, which come first.
        categories: number of values of each categorical hyperparameter, in the order of its group.
        conditional: names of the hyperparameters with an activity column, which come last.
    """

    def __init__(self, space: ConfigurationSpace):
        numeric: dict[str, list[_Ordered]] = {}
        categorical: dict[str, CategoricalHyperparameter] = {}
        position = {h.name: (h.meta or {}).get("position", 0) for h in space.values()}
        for hyperparameter in sorted(space.values(), key=lambda h: position[h.name]):
            if isinstance(hyperparameter, CategoricalHyperparameter):
                categorical[hyperparameter.name] = hyperparameter
            elif isinstance(hyperparameter, _Ordered):
                column = (hyperparameter.meta or {}).get("column", hyperparameter.name)
                numeric.setdefault(column, []).append(hyperparameter)
            elif not isinstance(hyperparameter, Constant):
                kind = type(hyperparameter).__name__
                raise TypeError(f"hyperparameter {hyperparameter.name!r} is of unknown kind {kind}")
        self._space = space
        conditional = set(space.conditional_hyperparameters)
        self._numeric, self._categorical = numeric, categorical
        members = {column: [h.name for h in sharing] for column, sharing in numeric.items()}
        members |= {name: [name] for name in categorical}
        self._conditional = {
            column: names for column, names in members.items() if conditional & {*names}
        }
        self.numeric = len(numeric)
        self.categories = tuple(len(h.choices) for h in categorical.values())
        self.conditional = tuple(self._conditional)
        self.columns = (
            *numeric,
            *(f"{h.name}={choice}" for h in categorical.values() for choice in h.choices),
            *(f"{name} is active" for name in self.conditional),
        )

    @property
    def num_features(self) -> int:
        return len(self.columns)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The always active hyperparameters, then those of each condition.

        Raises:
            ValueError: hyperparameters share a column and one of their conditions is not on values
                of a categorical parent, so that no column says which of them is active.
        """
        groups: dict[tuple[int, ...], Group] = {(): Group((), (), ())}
        for index, (column, hyperparameters) in enumerate(self._numeric.items()):
            for hyperparameter in hyperparameters:
                active = self._active(column, hyperparameter, len(hyperparameters) > 1)
                group = groups.setdefault(active, Group((), (), active))
                groups[active] = group._replace(numeric=(*group.numeric, index))
        end = self.numeric
        for hyperparameter in self._categorical.values():
            size = len(hyperparameter.choices)
            active = self._active(hyperparameter.name, hyperparameter, False)
            group = groups.setdefault(active, Group((), (), active))
            one_hot = tuple(range(end, end + size))
            groups[active] = group._replace(categorical=(*group.categorical, one_hot))
            end += size
        return tuple(groups.values())

    def _active(self, column: str, hyperparameter: Hyperparameter, shared: bool) -> tuple[int, ...]:
        """Columns whose sum is 1 where a hyperparameter is active; none if it always is."""
        conditions = self._space.parent_conditions_of[hyperparameter.name]
        if not conditions:
            return ()
        condition = conditions[0]
        if isinstance(condition, EqualsCondition | InCondition):
            equals = isinstance(condition, EqualsCondition)
            if condition.parent.name in self._categorical:
                values = [condition.value] if equals else condition.values
                names = (f"{condition.parent.name}={value}" for value in values)
                return tuple(sorted(self.columns.index(name) for name in names))
        if shared:
            raise ValueError(
                f"hyperparameter {hyperparameter.name!r} shares column {column!r}: its condition "
                f"must be on values of a categorical hyperparameter, unlike {condition}"
            )
        return (self.columns.index(f"{column} is active"),)

    def __call__(self, configs: Sequence[Config]) -> Float[np.ndarray, "config feature"]:
        """Features of configurations that are legal (`check_configs`).

        Raises:
            ValueError: a value is none of its hyperparameter's choices.
        """
        rows = np.array([self._row(config) for config in configs])
        return rows.reshape(len(configs), self.num_features)

    def _row(self, config: Config) -> list[float]:
        numeric = [
            next((_position(m, config[m.name]) for m in members if m.name in config), 0.0)
            for members in self._numeric.values()
        ]
        one_hot = [
            float(index == position)
            for h in self._categorical.values()
            for position in [_choice(h, config[h.name]) if h.name in config else None]
            for index in range(len(h.choices))
        ]
        active = [
            float(any(name in config for name in names)) for names in self._conditional.values()
        ]
        return numeric + one_hot + active


def _choice(hyperparameter: Hyperparameter, value: Any) -> int:
    """The position of a value among the choices of a hyperparameter."""
    wanted = comparable(value)
    for position, choice in enumerate(choices_of(hyperparameter)):
        if comparable(choice) == wanted:
            return position
    raise ValueError(f"{hyperparameter.name} is {value!r}, none of its choices")


def _position(hyperparameter: _Ordered, value: Any) -> float:
    """Where in its range a numeric or ordinal hyperparameter's value is, from 0 to 1."""
    if isinstance(hyperparameter, OrdinalHyperparameter):
        return _choice(hyperparameter, value) / max(len(hyperparameter.sequence) - 1, 1)
    scale = np.log if getattr(hyperparameter, "log", False) else np.asarray
    lower, upper, at = (
        scale(float(x)) for x in (hyperparameter.lower, hyperparameter.upper, value)
    )
    return float((at - lower) / (upper - lower))
