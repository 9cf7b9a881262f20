"""Bad sources: past tasks that mislead, made from real ones."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from amt.curves import LearningCurves
from amt.tuners.checks import check_choice

Curves = Float[np.ndarray, "config epoch"]


def flipped(curves: Curves, rng: np.random.Generator) -> Curves:
    """Scores mirrored around the mean of each epoch: what was good is bad."""
    return 2 * constant(curves, rng) - curves


def constant(curves: Curves, rng: np.random.Generator) -> Curves:
    """The mean of each epoch for every configuration: none is better than another."""
    del rng
    known = np.isfinite(curves)
    return np.where(known, np.nansum(curves, 0) / np.maximum(known.sum(0), 1), np.nan)


def shuffled(curves: Curves, rng: np.random.Generator) -> Curves:
    """Whole curves dealt anew among the configurations: what was good says nothing."""
    return rng.permutation(curves, axis=0)


KINDS: Mapping[str, Callable[[Curves, np.random.Generator], Curves]] = {
    "flipped": flipped,
    "shuffled": shuffled,
    "constant": constant,
}


def spoil(sources: LearningCurves, *, kind: str, share: float, seed: int) -> LearningCurves:
    """Make a share of the sources bad.

    Which ones follows from the seed, and those of a share are among those of a larger share.
    Scores of a metric within [0, 1] are clipped to it, so that tuners take them for what they are.
    The single runs of `repeats` are left out.

    Args:
        kind: in `KINDS`.
        share: of the tasks, rounded to the nearest number of them.

    Raises:
        ValueError: no such kind, or a share out of range.
    """
    check_choice("kind of bad sources", kind, KINDS)
    if not 0 <= share <= 1:
        raise ValueError(f"share of bad sources must be from 0 to 1, not {share}")
    scores = sources.scores.copy()
    order = np.random.default_rng(seed).permutation(sources.num_tasks)
    for task in order[: int(share * sources.num_tasks + 0.5)]:
        scores[task] = KINDS[kind](scores[task], np.random.default_rng([seed, task]))
    if sources.within_unit:
        scores = np.clip(scores, 0, 1)
    return replace(sources, scores=scores, repeats=None)
