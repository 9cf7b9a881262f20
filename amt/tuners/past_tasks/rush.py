"""RUSH: successive halving that past tasks' best configurations open, and raise the bar of.

ASHA starts with the best configuration of each source, the one that is best on most of them first,
and goes on with random ones; a random one is promoted only if its score is also at least the best
of those from the sources at its rung.

Source: Zappella, Salinas, Archambeau (2021), A Resource-Efficient Method for Repeated HPO and NAS
Problems, algorithm 1.
"""

from collections import Counter

import numpy as np

from amt.tuners.final_score_gp import final_scores
from amt.tuners.no_model.asha import Asha
from amt.tuners.record import Host, HostProblem, Record


class Rush(Asha):
    """The tuner.

    Attributes:
        opening: the best configurations of the sources.
    """

    def __init__(self, seed: int, problem: HostProblem):
        super().__init__(seed, problem)
        best = np.argmax(final_scores(self.sources), axis=1)
        self.opening = [config for config, _ in Counter(best.tolist()).most_common()]

    def start(self) -> int:
        untried = set(self.untried.tolist())
        opening = [config for config in self.opening if config in untried]
        return opening[0] if opening else super().start()

    def may_rise(self, config: int, rung: int) -> bool:
        results = self.results[rung]
        bar = max((results[c] for c in self.opening if c in results), default=-np.inf)
        return config in self.opening or results[config] >= bar


RECORD = Record(
    name="rush",
    label="RUSH",
    source="Zappella, Salinas, Archambeau (2021), A Resource-Efficient Method for Repeated HPO",
    make=lambda: Host(Rush),
)
