"""Refusal of settings that cannot be, with a message that lists those that can."""

from collections.abc import Iterable
from typing import Any


def check_choice(what: str, value: Any, known: Iterable[Any]) -> None:
    """Refuse a value that is not one of those known.

    Raises:
        ValueError: it is not; the message lists them.
    """
    known = list(known)
    if value not in known:
        raise ValueError(f"no {what} {value!r}; there are {', '.join(map(str, known)) or 'none'}")


def check_positive(what: str, value: Any) -> None:
    """Refuse what is not a whole number from 1.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{what} must be a whole number from 1, not {value!r}")
