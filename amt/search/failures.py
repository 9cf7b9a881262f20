"""The score of a run that failed: worse than any seen, so that the search leaves its region."""

from collections.abc import Iterable

import numpy as np

from amt.curves import LearningCurves

UNKNOWN_SCALE = 0.25  # of scores, which are of the order of 1


def failed_score(sources: LearningCurves, told: Iterable[float]) -> float:
    """Last score that stands for a run that diverged, crashed or ran out of memory.

    One standard deviation of the sources' last scores below the worst of these and of the scores
    told, in the same units; without sources, `UNKNOWN_SCALE` below the worst that was told.
    """
    if not sources.num_tasks:
        return min(told, default=0.0) - UNKNOWN_SCALE
    last = sources.scores[:, :, -1]
    last = last[np.isfinite(last)]
    if not last.size:
        last = sources.scores[np.isfinite(sources.scores)]
    return float(min(last.min(), *told, np.inf) - last.std())
