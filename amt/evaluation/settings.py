"""Refusal of settings of experiments that cannot be, in one line that names the setting.

Settings are those of `experiments/conf/at2.yaml`, as plain dicts, lists and values.
"""

import os
import sys
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from amt.kernels import KERNELS
from amt.tuners import TUNERS
from amt.tuners.checks import check_choice, check_positive

_NUMBERS = ("budget", "seeds", "chunk", "draws")
_LISTS = ("tuners", "plugins")
_GROUPS = ("kernel", "inference", "acquisition")
_TEXTS = ("database", "split", "precision", "noise")
_SWITCHES = ("nugget", "log_x")
_OTHERS = ("database_options", "bad_sources", "pair", "repeat", "num_sources", "workers")


def check_settings(values: Mapping[str, Any]) -> None:
    """Refuse settings that are not known, are of another kind, or cannot be.

    Names of what is chosen (databases, tuners, kernels ...) are looked up where they are used.

    Raises:
        ValueError: the message names the setting.
    """
    of_tuners = [name for record in TUNERS.values() for name in record.settings]
    known = {*_NUMBERS, *_LISTS, *_GROUPS, *_TEXTS, *_SWITCHES, *_OTHERS, *of_tuners}
    for name in values:
        check_choice("setting", name, sorted(known))

    def require(what: str, names: tuple[str, ...], right: Callable[[Any], bool]) -> None:
        for name in names:
            if name in values and not right(values[name]):
                raise ValueError(f"{name} must be {what}, not {values[name]!r}")

    for name in _NUMBERS:
        if name in values:
            check_positive(name, values[name])
    require(
        "a list of names such as [amt,random_search]",
        _LISTS,
        lambda v: isinstance(v, list) and all(isinstance(x, str) for x in v),
    )
    named = (*_GROUPS, "database_options", "bad_sources")
    require("settings by name", named, lambda v: isinstance(v, Mapping))
    require("a name", _TEXTS, lambda v: isinstance(v, str))
    require("true or false", _SWITCHES, lambda v: isinstance(v, bool))
    require(
        "null or a whole number from 1",
        ("workers", "num_sources"),
        lambda v: v is None or (_is_whole(v) and v > 0),
    )
    require("null, a number from 0 or a list of different ones", ("pair",), _is_selection)
    require(
        "null, all, a number from 0 or a list of different ones",
        ("repeat",),
        lambda v: v == "all" or _is_selection(v),
    )
    if "kernel" in values:
        for axis, name in values["kernel"].items():
            check_choice("setting", f"kernel.{axis}", [f"kernel.{a}" for a in KERNELS])
            if not isinstance(name, str):
                raise ValueError(f"kernel.{axis} must be a name, not {name!r}")
    for group in ("inference", "acquisition"):
        if not isinstance(values.get(group, {}).get("name", ""), str):
            raise ValueError(f"{group}.name must be a name, not {values[group]['name']!r}")
        for option, value in values.get(group, {}).items():
            text = option in ("name", "optimizer", "preset")
            if not text and (isinstance(value, bool | str) or not isinstance(value, Real | None)):
                raise ValueError(f"{group}.{option} must be a number, not {value!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_selection(value: Any) -> bool:
    if not isinstance(value, list):
        return value is None or (_is_whole(value) and value >= 0)
    whole = all(_is_whole(v) and v >= 0 for v in value)
    return whole and 0 < len(set(value)) == len(value)


def run_main(main: Callable[[], Any], name: str) -> None:
    """Run the main function of a script under Hydra, whose errors about settings are one line.

    Args:
        name: of the script.
    """
    from hydra.errors import HydraException, MissingConfigException

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come here
    try:
        main()
    except MissingConfigException as error:
        group, _, chosen = str(error.missing_cfg_file or "").rpartition("/")
        options = [o for o in error.options or () if o]
        if not options:
            sys.exit(f"{name}: {_line(error)}")
        sys.exit(f"{name}: {group}={chosen}: no {group} {chosen!r}; there are {', '.join(options)}")
    except HydraException as error:
        sys.exit(f"{name}: {_line(error)}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
