r"""Ranking-weighted Gaussian process ensemble (RGPE).

The target's standardised final score has the mean \(\sum_i w_i \mu_i\) and the variance
\(\sum_i w_i^2 \sigma_i^2\), of the surrogates of the sources and of the target's own. \(w_i\) is
the probability that surrogate i ranks the target's scores best: the share of 256 draws from the
surrogates, the target's own with each score left out, in which the fewest pairs are ranked wrongly.
Next is the largest expected improvement; before there is a score, the largest mean.

Source: Feurer, Letham, Hutter, Bakshy (2018), Practical Transfer Learning for Bayesian
Optimization, sections 3 and 4.
"""

import numpy as np
from jaxtyping import Float

from amt.tuners.final_score_gp import expected_improvement
from amt.tuners.past_tasks.source_surrogates import SourceSurrogates, discordant
from amt.tuners.record import Host, Record

DRAWS = 256


class RankingWeightedEnsemble(SourceSurrogates):
    def choose(self) -> Float[np.ndarray, "config"]:
        if not self.scored.size:
            return self.means.mean(0)
        own, weights = self.posterior(), self.weights()
        mean = weights @ np.vstack([self.means, own.mean])
        variance = np.square(weights) @ np.square(np.vstack([self.deviations, own.deviation]))
        return expected_improvement(mean, np.sqrt(variance), mean[self.scored].max())

    def weights(self) -> Float[np.ndarray, "task+1"]:
        """Weights of the sources' surrogates, and of the target's own, which is last."""
        scored, own = self.scored, self.posterior()
        means = np.vstack([self.means[:, scored], own.left_out])
        deviations = np.vstack([self.deviations[:, scored], own.deviation[scored]])
        draws = self.rng.normal(means, deviations, (DRAWS, *means.shape))
        losses = discordant(draws, self.scores)
        best = losses == losses.min(1, keepdims=True)
        return (best / best.sum(1, keepdims=True)).mean(0)


RECORD = Record(
    name="rgpe",
    label="RGPE",
    source="Feurer et al. (2018), Practical Transfer Learning for Bayesian Optimization",
    make=lambda: Host(RankingWeightedEnsemble),
)
