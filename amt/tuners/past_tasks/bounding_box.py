"""Search within the smallest box that has the best configuration of every source.

The box is one of encoded configurations (`amt.space.Encoder`), so that of a categorical
hyperparameter it keeps the values that are best on some source. `bounding_box` searches it at
random, `bounding_box_gp` by a Gaussian process with expected improvement
(`amt.tuners.one_task.gp`). Each configuration is trained to its end, and those outside come last.

Source: Perrone, Shen, Seeger, Archambeau, Jenatton (2019), Learning Search Spaces for Bayesian
Optimization: Another View of Hyperparameter Transfer Learning, section 4.1.
"""

from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from amt.tuners.final_score_gp import final_scores
from amt.tuners.one_task.gp import GaussianProcess
from amt.tuners.record import Host, HostProblem, Record


class BoundingBox(GaussianProcess):
    """The tuner.

    Attributes:
        inside: whether a configuration is in the box.
    """

    def __init__(self, seed: int, problem: HostProblem, *, rule: str):
        super().__init__(seed, problem, rule=rule)
        features = self.sources.features
        best = features[np.argmax(final_scores(self.sources), axis=1)]
        within = (features >= best.min(0)) & (features <= best.max(0))
        self.inside: Bool[np.ndarray, "config"] = within.all(1)

    def choose(self) -> Float[np.ndarray, "config"]:
        at_random = self._rule == "random"
        values = self.rng.uniform(size=self.num_configs) if at_random else super().choose()
        return np.where(self.inside, values, values - 1e6)


RECORDS = (
    Record(
        name="bounding_box",
        label="bounding box, random",
        source="Perrone et al. (2019), Learning Search Spaces for Bayesian Optimization",
        make=lambda: Host(partial(BoundingBox, rule="random")),
    ),
    Record(
        name="bounding_box_gp",
        label="bounding box, GP",
        source="Perrone et al. (2019), Learning Search Spaces for Bayesian Optimization",
        make=lambda: Host(partial(BoundingBox, rule="ei")),
    ),
)
