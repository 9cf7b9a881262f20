"""Lists, numbers and tuners in sentences of the paper."""

from collections.abc import Sequence
from typing import Any

from amt.evaluation.statistics import label_of
from amt.evaluation.tables import latex_text


def listed(items: Sequence[Any]) -> str:
    texts = [str(item) for item in items]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def listed_numbers(values: Sequence[float]) -> str:
    return listed([f"{value:.1f}" for value in values])


def listed_tuners(values: Any, form: str) -> str:
    """Tuners, and a number of each."""
    return listed([f"{latex_text(label_of(m))} ({form.format(v)})" for m, v in values.items()])
