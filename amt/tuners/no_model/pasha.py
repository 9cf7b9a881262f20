r"""Progressive ASHA: rungs are added only while the ranking of configurations is not stable.

It starts with two rungs. When a configuration comes to the highest, the configurations there are
ranked by its scores and by those of the rung below; unless each stands, in the upper ranking, among
those that are within \(\epsilon\) of its place in the lower one, one more rung is in use. The noise
\(\epsilon\) is the 90th percentile of the differences, at their last common epoch, of pairs whose
curves have crossed and crossed back.

Source: Bohdal, Balles, Wistuba, Ermis, Archambeau, Zappella (2023), PASHA: Efficient HPO and NAS
with Progressive Resource Allocation, sections 3 and 4.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from amt.tuners.no_model.asha import Asha
from amt.tuners.record import Host, Record


class Pasha(Asha):
    _height = 2

    @property
    def height(self) -> int:
        top = self.results[self._height - 1]
        if self._height < len(self.rungs) and len(top) > 1:
            below = self.results[self._height - 2]
            upper, lower = (np.array([of[c] for c in top]) for of in (top, below))
            if not is_stable(upper, lower, noise(self.curves[list(top)])):
                self._height += 1
        return min(self._height, len(self.rungs))


def is_stable(
    upper: Float[np.ndarray, "config"], lower: Float[np.ndarray, "config"], epsilon: float
) -> bool:
    """Whether two rankings are the same, but for scores of the lower rung within epsilon."""
    by_upper, by_lower = np.argsort(-upper), np.argsort(-lower)
    places = zip(by_upper, by_lower, strict=True)
    return all(abs(lower[above] - lower[below]) <= epsilon for above, below in places)


def noise(curves: Sequence[np.ndarray] | np.ndarray) -> float:
    """The 90th percentile of the differences of pairs of curves that crossed and crossed back."""
    differences = []
    for first in range(len(curves)):
        for second in range(first):
            apart = curves[first] - curves[second]
            apart = apart[np.isfinite(apart)]
            signs = np.sign(apart[apart != 0])
            if np.count_nonzero(np.diff(signs)) > 1:
                differences.append(abs(apart[-1]))
    return float(np.percentile(differences, 90)) if differences else 0.0


RECORD = Record(
    name="pasha",
    label="PASHA",
    source="Bohdal et al. (2023), PASHA: Efficient HPO and NAS with Progressive Resources",
    make=lambda: Host(Pasha),
)
