"""Random search with the median stopping rule.

Training of a configuration stops after an epoch if its best score so far is below the median, over
the configurations before it that were trained as long, of the mean of their scores until then.

Source: Golovin, Solnik, Moitra, Kochanski, Karro, Sculley (2017), Google Vizier, section 3.2.
"""

from collections.abc import Iterator

import numpy as np

from amt.tuners.record import Host, Record
from amt.tuners.schedule import Schedule


class MedianStopping(Schedule):
    def schedule(self) -> Iterator[int]:
        while self.untried.size:
            config = int(self.rng.choice(self.untried))
            for _ in self.train(config):
                yield config
                if self.falls_behind(config):
                    break

    def falls_behind(self, config: int) -> bool:
        """Whether the best score of a configuration is below the median of running means."""
        epochs = self.trained[config]
        others = self.trained >= epochs
        others[config] = False
        means = self.curves[others, :epochs].mean(1)
        return len(means) > 0 and self.values[config] < np.median(means)


RECORD = Record(
    name="median_stopping",
    label="median stopping",
    source="Golovin et al. (2017), Google Vizier: A Service for Black-Box Optimization",
    make=lambda: Host(MedianStopping),
)
