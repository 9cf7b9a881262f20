"""Tuners to compare with, by name.

A baseline is a pure function `baseline(key, sources, target, *, budget=...)` of the scores of the
sources and the target. It gives the same `Trajectory` as `amt.search.simulate`, and passes through jit and
vmap.
"""

from collections.abc import Callable

from amt.search.simulate import Trajectory
from amt.tuners.trivial import one_epoch_each, random_search, source_best

BASELINES: dict[str, Callable[..., Trajectory]] = {
    "random_search": random_search,
    "source_best": source_best,
    "one_epoch_each": one_epoch_each,
}

__all__ = ["BASELINES", "one_epoch_each", "random_search", "source_best"]
