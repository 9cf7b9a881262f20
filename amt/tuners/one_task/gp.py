r"""Gaussian process on the final scores of the target alone, with three decision rules.

The first configuration is random, and each one after it that of

- the largest expected improvement over the best observed (`gp_ei`),
- the largest \(\mu + \beta \sigma\), \(\beta = 2\) (`gp_ucb`),
- the largest value of one draw from the posterior (`gp_thompson`).

Sources: Jones, Schonlau, Welch (1998); Srinivas, Krause, Kakade, Seeger (2010); Russo, Van Roy
(2014). The model is that of `amt.tuners.final_score_gp`.
"""

from functools import partial

import numpy as np
from jaxtyping import Float

from amt.tuners.final_score_gp import OnFinalScores, Posterior, expected_improvement
from amt.tuners.record import Host, HostProblem, Record

BETA = 2.0


class GaussianProcess(OnFinalScores):
    def __init__(self, seed: int, problem: HostProblem, *, rule: str):
        super().__init__(seed, problem)
        self._rule = rule

    def choose(self) -> Float[np.ndarray, "config"]:
        if not self.scored.size:
            return self.rng.uniform(size=self.num_configs)
        return self.value(self.posterior())

    def value(self, posterior: Posterior) -> Float[np.ndarray, "config"]:
        """The value of each configuration by the rule."""
        if self._rule == "ei":
            return expected_improvement(posterior.mean, posterior.deviation, self.scores.max())
        if self._rule == "ucb":
            return posterior.mean + BETA * posterior.deviation
        return self.rng.multivariate_normal(posterior.mean, posterior.covariance, method="eigh")


RECORDS = (
    Record(
        name="gp_ei",
        label="GP, EI",
        source="Jones, Schonlau, Welch (1998), Efficient Global Optimization",
        make=lambda: Host(partial(GaussianProcess, rule="ei")),
    ),
    Record(
        name="gp_ucb",
        label="GP, UCB",
        source="Srinivas et al. (2010), Gaussian Process Optimization in the Bandit Setting",
        make=lambda: Host(partial(GaussianProcess, rule="ucb")),
    ),
    Record(
        name="gp_thompson",
        label="GP, Thompson",
        source="Russo, Van Roy (2014), Learning to Optimize via Posterior Sampling",
        make=lambda: Host(partial(GaussianProcess, rule="thompson")),
    ),
)
