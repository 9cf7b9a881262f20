r"""Transfer acquisition function (TAF-R): improvement on the target and, as predicted, on sources.

\[ a(x) = \frac{w_0\, EI_0(x) + \sum_i w_i I_i(x)}{\sum_i w_i}, \qquad
   I_i(x) = \max\big(\mu_i(x) - \max_{x' \in X} \mu_i(x'), 0\big), \]

\(EI_0\) being the expected improvement of the target's own surrogate, X the configurations that
have been trained, and w the weights of `amt.tuners.past_tasks.two_stage_surrogate`. Before there is
a score, the largest mean of the sources is next.

Source: Wistuba, Schilling, Schmidt-Thieme (2018), Scalable Gaussian Process-based Transfer
Surrogates for Hyperparameter Optimization, section 4.
"""

import numpy as np
from jaxtyping import Float

from amt.tuners.final_score_gp import expected_improvement
from amt.tuners.past_tasks.two_stage_surrogate import TwoStageSurrogate
from amt.tuners.record import Host, Record


class TransferAcquisition(TwoStageSurrogate):
    def choose(self) -> Float[np.ndarray, "config"]:
        if not self.scored.size:
            return self.means.mean(0)
        own, weights = self.posterior(), self.weights()
        on_target = expected_improvement(own.mean, own.deviation, self.scores.max())
        incumbents = self.means[:, self.scored].max(1, keepdims=True)
        on_sources = np.maximum(self.means - incumbents, 0)
        return weights @ np.vstack([on_sources, on_target]) / weights.sum()


RECORD = Record(
    name="transfer_acquisition",
    label="transfer acquisition",
    source="Wistuba et al. (2018), Scalable Gaussian Process-based Transfer Surrogates",
    make=lambda: Host(TransferAcquisition),
)
