"""The best configurations of the source whose curves are nearest to the target's so far.

The nearest has the smallest mean squared difference of scores at the epochs that the target has.
Its best untried configuration is trained to its end next, and its best is recommended, the target's
own scores in place of the source's for what has been trained to its end. Before there is a score,
the source is the mean of all.

Source: Leite, Brazdil (2005), Predicting Relative Performance of Classifiers from Samples.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from amt.tuners.final_score_gp import final_scores, standardized
from amt.tuners.record import Host, HostProblem, Record
from amt.tuners.schedule import Schedule


class NearestTask(Schedule):
    def __init__(self, seed: int, problem: HostProblem):
        super().__init__(seed, problem)
        self._finals = final_scores(self.sources)

    def schedule(self) -> Iterator[int]:
        while self.untried.size:
            best = self.untried[np.argmax(self.expected()[self.untried])]
            yield from self.train(int(best))

    def expected(self) -> Float[np.ndarray, "config"]:
        """Final scores that the nearest source says."""
        observed = np.isfinite(self.curves)
        if not observed.any():
            return standardized(self._finals).mean(0)
        apart = np.square(self.sources.scores[:, observed] - self.curves[observed])
        distances = np.nan_to_num(apart, nan=np.inf).mean(1)
        return self._finals[np.argmin(distances)]

    def recommend(self) -> int:
        ended = (self.trained == self.num_epochs) | ((self.trained > 0) & ~self.remaining.any(1))
        return int(np.argmax(np.where(ended, self.values, self.expected())))


RECORD = Record(
    name="nearest_task",
    label="nearest task",
    source="Leite, Brazdil (2005), Predicting Relative Performance of Classifiers from Samples",
    make=lambda: Host(NearestTask),
)
