r"""Copula of quantiles: the sources' scores as normal quantiles, and what is left of the target's.

The scores of each source become \(z = \Phi^{-1}(F(y))\), F their empirical distribution, cut off
where it is certain. Over the sources, z of a configuration is normal, \(N(\mu(x), \sigma^2(x))\);
as all share the same configurations, the most likely mean and variance are those of each
configuration's own z. `copula_thompson` trains the configuration of the largest draw of z.
`copula_gp` models the target's own quantiles as

\[ z(x) = \mu(x) + \sigma(x)\, g(x), \]

with g a Gaussian process (`amt.tuners.final_score_gp`), and goes by expected improvement.

Source: Salinas, Shen, Perrone (2020), A Quantile-based Approach for Hyperparameter Transfer
Learning, sections 3 and 4.
"""

from functools import partial

import numpy as np
from jaxtyping import Float
from scipy.stats import norm, rankdata

from amt.tuners.final_score_gp import OnFinalScores, expected_improvement, final_scores
from amt.tuners.record import Host, HostProblem, Record


class QuantileCopula(OnFinalScores):
    """The tuner.

    Attributes:
        mean, deviation: of the sources' quantiles z.
    """

    def __init__(self, seed: int, problem: HostProblem, *, with_gp: bool):
        super().__init__(seed, problem)
        z = normal_quantiles(final_scores(self.sources))
        self.mean, self.deviation = z.mean(0), np.maximum(z.std(0), 0.05)
        self._with_gp = with_gp

    def choose(self) -> Float[np.ndarray, "config"]:
        if not self._with_gp:
            return self.rng.normal(self.mean, self.deviation)
        if not self.scored.size:
            return self.mean
        scored, z = self.scored, normal_quantiles(self.values[self.scored])
        residual = (z - self.mean[scored]) / self.deviation[scored]
        of_residual = self.gp.posterior(scored, residual)
        scale = self.deviation * max(residual.std(), 1e-12)
        mean = self.mean + self.deviation * residual.mean() + scale * of_residual.mean
        return expected_improvement(mean, self.deviation * of_residual.deviation, z.max())


def normal_quantiles(
    scores: Float[np.ndarray, "*task config"],
) -> Float[np.ndarray, "*task config"]:
    """Normal quantiles of scores among those of their task.

    Shares are cut off near 0 and 1 as by Liu, Lafferty, Wasserman (2009), The Nonparanormal.
    """
    count = scores.shape[-1]
    cut = 1 / (4 * count**0.25 * np.sqrt(np.pi * np.log(max(count, 2))))
    shares = (rankdata(scores, axis=-1) - 0.5) / count
    return norm.ppf(np.clip(shares, cut, 1 - cut))


RECORDS = (
    Record(
        name="copula_thompson",
        label="quantile copula, Thompson",
        source="Salinas, Shen, Perrone (2020), A Quantile-based Approach for HP Transfer",
        make=lambda: Host(partial(QuantileCopula, with_gp=False)),
    ),
    Record(
        name="copula_gp",
        label="quantile copula, GP",
        source="Salinas, Shen, Perrone (2020), A Quantile-based Approach for HP Transfer",
        make=lambda: Host(partial(QuantileCopula, with_gp=True)),
    ),
)
