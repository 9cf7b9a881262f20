"""Gaussian process on the target's final scores that starts with configurations of past tasks.

The first two are the head of the portfolio (`amt.tuners.past_tasks.portfolio`), where the original
has the best configurations of the datasets with the most similar meta-features; then it goes by
expected improvement.

Source: Feurer, Springenberg, Hutter (2015), Initializing Bayesian Hyperparameter Optimization via
Meta-Learning.
"""

from functools import partial

import numpy as np
from jaxtyping import Float

from amt.tuners.final_score_gp import final_scores
from amt.tuners.one_task.gp import GaussianProcess
from amt.tuners.past_tasks.portfolio import portfolio
from amt.tuners.record import Host, Record

START = 2


class WarmStartedGP(GaussianProcess):
    def choose(self) -> Float[np.ndarray, "config"]:
        if self.scored.size >= START:
            return super().choose()
        return -np.argsort(portfolio(final_scores(self.sources))).astype(float)


RECORD = Record(
    name="warm_started_gp",
    label="warm-started GP",
    source="Feurer, Springenberg, Hutter (2015), Initializing Bayesian HPO via Meta-Learning",
    make=lambda: Host(partial(WarmStartedGP, rule="ei")),
)
