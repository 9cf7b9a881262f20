"""Reads search spaces of data files, infers them from texts, and parses texts as their values."""

import ast
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ConfigSpace import (
    Categorical,
    ConfigurationSpace,
    Constant,
    EqualsCondition,
    Float,
    InCondition,
    Integer,
)
from ConfigSpace.hyperparameters import (
    CategoricalHyperparameter,
    FloatHyperparameter,
    Hyperparameter,
    IntegerHyperparameter,
)
from ConfigSpace.hyperparameters.hp_components import ROUND_PLACES

from amt.space import choices_of, comparable

PARENT_VALUES = 20

_EMPTY = ("", "<NA>", "NA", "N/A", "n/a", "NULL", "null", "None", "NaN", "nan", "-NaN", "-nan")
_ODD = ("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN")
MISSING = frozenset((*_EMPTY, *_ODD))
"""Texts that stand for no value: those of pandas.read_csv."""


def read_space(path: str | PathLike[str]) -> ConfigurationSpace:
    """A search space as ConfigSpace writes it, to a `.json`, `.yaml` or `.yml` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a search space.
    """
    path = Path(path)
    readers = {
        ".json": ConfigurationSpace.from_json,
        ".yaml": ConfigurationSpace.from_yaml,
        ".yml": ConfigurationSpace.from_yaml,
    }
    if not path.is_file():
        raise FileNotFoundError(f"there is no search space {path}")
    if path.suffix not in readers:
        raise ValueError(f"{path} must end in {', '.join(readers)} to be a search space")
    try:
        space = readers[path.suffix](path)
    except Exception as error:  # of many classes: what the reader trips over
        raise ValueError(f"{path} is not a search space of ConfigSpace: {error!r}") from error
    if not len(space):
        raise ValueError(f"{path} is not a search space of ConfigSpace: no hyperparameters in it")
    return space


def infer_space(settings: Sequence[Mapping[str, str]]) -> ConfigurationSpace:
    r"""A guess at the search space that configurations are from, given as the texts of a file.

    - A hyperparameter of one value is constant (categorical, if it is conditional). One of several
      is an integer if all are whole numbers, else real if all are numbers, else categorical, with
      the choices False and True if all are these in any case.
    - An integer ranges from the smallest to the largest value, a real one from and to these,
      rounded outwards to two digits.
    - Of a positive one, the values between the extremes say whether it is on a log scale: it is if
      log-uniform is likelier than uniform on that range, which is if their geometric mean is below
      \((u - l) / \log(u / l)\).
    - A hyperparameter that is empty in some configurations (or one of the other texts `MISSING`) is
      active under the values of a parent that tell where it is: a categorical one if there is one,
      else an integer one of at most 20 values; one that is always active, if there is one. Where
      nothing tells, a text such as None is one more choice of a categorical one.

    Raises:
        ValueError: nothing tells when a hyperparameter is active, it never is, or there is none.
    """
    written = {name: [setting[name] for setting in settings] for name in settings[0]}
    texts = {n: ["" if x in MISSING else x for x in values] for n, values in written.items()}
    try:
        return _infer_space(texts)
    except _UnexplainedError as error:
        choices = {
            name
            for name in error.names
            if isinstance(_infer(name, texts[name]), CategoricalHyperparameter)
            and "" not in written[name]
        }
        if not choices:
            raise
    return _infer_space({n: written[n] if n in choices else texts[n] for n in texts})


class _UnexplainedError(ValueError):
    """Nothing tells when some hyperparameters are active."""

    def __init__(self, names: Sequence[str]):
        super().__init__(
            f"columns {names} are empty in some configurations, and no other hyperparameter "
            "tells in which: give a search space"
        )
        self.names = names


def _infer_space(texts: Mapping[str, Sequence[str]]) -> ConfigurationSpace:
    """The space of columns of texts, empty ones being inactive."""
    if not texts:
        raise ValueError("there is no column of a hyperparameter")
    never = [name for name, values in texts.items() if not any(values)]
    if never:
        raise ValueError(f"columns {never} are empty: ignore them, or give a search space")
    space = ConfigurationSpace()
    hyperparameters = {name: _infer(name, values) for name, values in texts.items()}
    space.add(*hyperparameters.values())
    parents = sorted(
        (
            name
            for name, h in hyperparameters.items()
            if isinstance(h, CategoricalHyperparameter | IntegerHyperparameter)
            and len({*texts[name]}) <= PARENT_VALUES
        ),
        key=lambda name: (
            "" in texts[name],
            isinstance(hyperparameters[name], IntegerHyperparameter),
        ),
    )
    conditions, unexplained = explain_inactive(texts, parents)
    for child, (parent, active) in conditions.items():
        h = hyperparameters[parent]
        space.add(condition_on(hyperparameters[child], h, [parse(h, text) for text in active]))
    if unexplained:
        raise _UnexplainedError(unexplained)
    return space


def explain_inactive(
    texts: Mapping[str, Sequence[str]], parents: Sequence[str]
) -> tuple[dict[str, tuple[str, list[str]]], list[str]]:
    """The parent of each hyperparameter that is inactive somewhere, and its texts under that.

    Args:
        texts: of each hyperparameter in all configurations, empty where it is inactive.
        parents: those that can be one, in the order in which they are tried.

    Returns:
        The parent and its texts by hyperparameter, and the hyperparameters that no parent explains.
    """
    conditions, unexplained = {}, []
    for child, values in texts.items():
        if "" not in values:
            continue
        for parent in parents:
            active = {p for p, c in zip(texts[parent], values, strict=True) if c}
            inactive = {p for p, c in zip(texts[parent], values, strict=True) if not c}
            # a conditional parent comes after one that it depends on: no circles
            earlier = values.count("") > texts[parent].count("") or "" not in texts[parent]
            if parent != child and earlier and not active & inactive and "" not in active:
                conditions[child] = parent, sorted(active)
                break
        else:
            unexplained.append(child)
    return conditions, unexplained


def condition_on(
    child: Hyperparameter, parent: Hyperparameter, values: Sequence[Any]
) -> EqualsCondition | InCondition:
    """The condition that a hyperparameter is active under some values of another."""
    if len(values) == 1:
        return EqualsCondition(child, parent, values[0])
    return InCondition(child, parent, list(values))


def _infer(name: str, texts: Sequence[str]) -> Hyperparameter:
    present = sorted({text for text in texts if text}, key=text_order)
    numbers = [parse_number(text) for text in texts if text]
    known = np.array([x for x in numbers if x is not None])
    always = "" not in texts  # a constant is
    if len(known) < len(numbers):
        values: list[Any] = present
        if all(parse_boolean(text) is not None for text in present):
            values = sorted({parse_boolean(text) for text in present})
        one = always and len(values) == 1
        return Constant(name, values[0]) if one else Categorical(name, values)
    lower, upper = known.min(), known.max()
    whole = bool((known == np.round(known)).all() and np.abs(known).max() < 2**53)
    if lower == upper:
        value = int(lower) if whole else float(lower)
        return Constant(name, value) if always else Categorical(name, [value])
    between = known[(known > lower) & (known < upper)]
    log = bool(
        lower > 0
        and between.size
        and np.log(between).mean() < np.log((upper - lower) / np.log(upper / lower))
    )
    if whole:
        return Integer(name, (int(lower), int(upper)), log=log)
    steps = [
        10 ** (np.floor(np.log10(x)) - 1) for x in ([lower, upper] if log else [upper - lower])
    ]
    below = min(np.floor(np.round(lower / steps[0], 9)) * steps[0], lower)
    above = max(np.ceil(np.round(upper / steps[-1], 9)) * steps[-1], upper)
    bounds = _outwards(lower, f"{below:.12g}", -1), _outwards(upper, f"{above:.12g}", 1)
    return Float(name, bounds, log=log)


def _outwards(value: float, rounded: str, direction: int) -> float:
    """A bound that has a value on its inner side, rounded as ConfigSpace rounds it, too."""
    bound, step = float(rounded), max(np.spacing(abs(value)), 10.0**-ROUND_PLACES)
    while direction * (float(np.round(bound, ROUND_PLACES)) - value) < 0:
        bound, step = float(value + direction * step), 2 * step
    return bound


def parse(hyperparameter: Hyperparameter, text: str) -> Any:
    """The value of a hyperparameter that a text stands for.

    Raises:
        ValueError: there is none; ranges are not looked at.
    """
    number = parse_number(text)
    if isinstance(hyperparameter, IntegerHyperparameter):
        if number is None or not number.is_integer():
            raise ValueError(f"{hyperparameter.name} is {text!r}, not a whole number")
        return int(number)
    if isinstance(hyperparameter, FloatHyperparameter):
        if number is None:
            raise ValueError(f"{hyperparameter.name} is {text!r}, not a number")
        return number
    choices = choices_of(hyperparameter)
    for choice in choices:
        if str(choice) == text:
            return choice
    boolean, sequence = parse_boolean(text), _parse_sequence(text)
    for choice in choices:
        if isinstance(choice, bool):
            if choice == boolean:
                return choice
        elif isinstance(choice, int | float):
            if choice == number:
                return choice
        elif sequence is not None and comparable(choice) == comparable(sequence):
            return choice
    among = ", ".join(map(str, choices))
    raise ValueError(f"{hyperparameter.name} is {text!r}, not one of {among}")


def is_inactive(hyperparameter: Hyperparameter, text: str) -> bool:
    """Whether a text says that a hyperparameter has no value: it is missing, and no choice."""
    if text not in MISSING:
        return False
    numerical = isinstance(hyperparameter, FloatHyperparameter | IntegerHyperparameter)
    return numerical or text not in map(str, choices_of(hyperparameter))


def parse_boolean(text: str) -> bool | None:
    """True or False as data files have it, in any case; None if a text is neither."""
    return {"true": True, "false": False}.get(text.lower())


def _parse_sequence(text: str) -> Any:
    """The list, tuple or dict that a text is, as Python or JSON writes it; None if it is none."""
    if not text.startswith(("[", "(", "{")):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return None


def parse_number(text: str) -> float | None:
    """A finite number as it is written in data files, if the text is one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) and "_" not in text else None


def text_order(text: str) -> tuple[bool, float, str]:
    """Sorts numbers by value, before texts."""
    number = parse_number(text)
    return number is None, number or 0.0, text


def describe_space(space: ConfigurationSpace) -> list[str]:
    """Lines to print, one for each hyperparameter with its range and conditions."""
    lines = []
    for h in space.values():
        conditions = space.parent_conditions_of[h.name]
        under = " and ".join(str(c).removeprefix(f"{h.name} | ") for c in conditions)
        lines.append(f"{h.name}: {describe(h)}" + (f", if {under}" if under else ""))
    return lines


def describe(h: Hyperparameter) -> str:
    """Kind and range of a hyperparameter, to print."""
    if isinstance(h, FloatHyperparameter | IntegerHyperparameter):
        kind = "integer" if isinstance(h, IntegerHyperparameter) else "real"
        scale = ", log scale" if getattr(h, "log", False) else ""
        return f"{kind} from {h.lower:g} to {h.upper:g}{scale}"
    kind = type(h).__name__.removesuffix("Hyperparameter").lower()
    return f"{kind} {', '.join(map(str, choices_of(h)))}"
