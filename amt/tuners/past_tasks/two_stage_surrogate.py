r"""Two-stage transfer surrogate, with rankings as descriptors of tasks (TST-R).

The mean is the average of the surrogates of the sources and of the target,

\[ \mu(x) = \frac{\sum_i w_i\, \mu_i(x)}{\sum_i w_i}, \qquad
   w_i = \tfrac34 \max(1 - (d_i / \rho)^2, 0), \]

\(d_i\) being the share of pairs of the target's scores that surrogate i ranks wrongly, 0 for the
target's own, and \(\rho = 0.4\). The variance is that of the target's. Next is the largest expected
improvement; before there is a score, the largest mean.

Source: Wistuba, Schilling, Schmidt-Thieme (2016), Two-Stage Transfer Surrogate Model for Automatic
Hyperparameter Optimization, section 4.
"""

import numpy as np
from jaxtyping import Float

from amt.tuners.final_score_gp import expected_improvement
from amt.tuners.past_tasks.source_surrogates import SourceSurrogates, discordant
from amt.tuners.record import Host, Record

BANDWIDTH = 0.4


class TwoStageSurrogate(SourceSurrogates):
    def choose(self) -> Float[np.ndarray, "config"]:
        if not self.scored.size:
            return self.means.mean(0)
        own = self.posterior()
        weights = self.weights()
        mean = weights @ np.vstack([self.means, own.mean]) / weights.sum()
        return expected_improvement(mean, own.deviation, mean[self.scored].max())

    def weights(self) -> Float[np.ndarray, "task+1"]:
        """Weights of the sources' surrogates, and of the target's own, which is last."""
        distances = np.append(discordant(self.means[:, self.scored], self.scores), 0)
        return 0.75 * np.maximum(1 - np.square(distances / BANDWIDTH), 0)


RECORD = Record(
    name="two_stage_surrogate",
    label="two-stage surrogate",
    source="Wistuba et al. (2016), Two-Stage Transfer Surrogate Model",
    make=lambda: Host(TwoStageSurrogate),
)
