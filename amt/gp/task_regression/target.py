r"""A target in task regression: its prior from the sources, and conditioning one score at a time.

In the model of `amt.gp.task_regression.model` the prior of a target's curves is normal, with the
mean \(\bar a + \bar b\, T^{-1} \sum_t Z_t\) and the covariance

\[ k\big((c, e), (c', e')\big) = \sum_i \Phi_{ice} \Phi_{ic'e'} + K_C(c, c') K_E(e, e')
   + K_u(e, e') + 1[c = c'] K_d(e, e'), \]

\(\Phi\) being the features times a root of the prior covariance of their weights: the weights are
integrated out. Given n scores, the covariance is \(k - A^\top A\), with a row of A for each score,
and one more score of the cell i adds the row

\[ a = \frac{k(\cdot, i) - A^\top A_{\cdot i}}{\sqrt{k(i, i) - A_{\cdot i}^\top A_{\cdot i}
   + \sigma^2_i}}, \]

so that a query costs O(n C E + r C E), and never a factorisation. The predictive density of each
score comes with it, which is what mixtures are weighted by.

Source: Rasmussen and Williams (2006), section 2.2; a row of A is one of an incremental Cholesky
factorisation.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int


class TargetPrior(NamedTuple):
    """The prior of a target's curves of the module docstring, in units of the scores.

    Attributes:
        mean: of each configuration and epoch.
        weighted: Phi.
        config, fidelity, course, own: K_C, K_E, K_u and K_d.
        noise: variance of each epoch.
    """

    mean: Float[Array, "config epoch"]
    weighted: Float[Array, "row config epoch"]
    config: Float[Array, "config config"]
    fidelity: Float[Array, "epoch epoch"]
    course: Float[Array, "epoch epoch"]
    own: Float[Array, "epoch epoch"]
    noise: Float[Array, "epoch"]

    def variance(self) -> Float[Array, "config epoch"]:
        """Prior variance of each configuration and epoch."""
        of_epoch = jnp.diagonal(self.course) + jnp.diagonal(self.own)
        residual = jnp.diagonal(self.config)[:, None] * jnp.diagonal(self.fidelity)
        return jnp.sum(jnp.square(self.weighted), 0) + residual + of_epoch

    def covariance(self, config: Int[Array, ""], epoch: Int[Array, ""]) -> Float[Array, "c e"]:
        """Prior covariance of one configuration and epoch with all."""
        shared = jnp.tensordot(self.weighted[:, config, epoch], self.weighted, 1)
        shared += self.config[config][:, None] * self.fidelity[epoch] + self.course[epoch]
        return shared.at[config].add(self.own[epoch])

    def scaled(self, noise: float, residual: float) -> "TargetPrior":
        """The prior with standard deviations of noise, and of h and d, times a factor each."""
        return self._replace(
            noise=self.noise * noise**2,
            fidelity=self.fidelity * residual**2,
            own=self.own * residual**2,
        )


class TargetState(NamedTuple):
    """The posterior of a target's curves, given its scores so far.

    Attributes:
        mean, variance: of the noise-free score of each configuration and epoch.
        rows: A of the module docstring; rows of zeros are of no score.
        log_density: log predictive density of all scores, each given those before it.
    """

    mean: Float[Array, "config epoch"]
    variance: Float[Array, "config epoch"]
    rows: Float[Array, "obs config epoch"]
    log_density: Float[Array, ""]

    @classmethod
    def init(cls, prior: TargetPrior, capacity: int) -> "TargetState":
        """Start without scores, with room for `capacity`."""
        dtype = prior.mean.dtype
        rows = jnp.zeros((capacity, *prior.mean.shape), dtype)
        return cls(prior.mean, prior.variance(), rows, jnp.zeros((), dtype))

    def update(
        self,
        prior: TargetPrior,
        row: Int[Array, ""],
        config: Int[Array, ""],
        epoch: Int[Array, ""],
        score: Float[Array, ""],
        observed: Bool[Array, ""] | bool = True,
    ) -> "TargetState":
        """Condition on one more score.

        Args:
            row: of A that is to be filled.
            observed: False for no score, which changes nothing.
        """
        before = jnp.tensordot(self.rows[:, config, epoch], self.rows, 1)
        covariance = prior.covariance(config, epoch) - before
        deviation = jnp.sqrt(covariance[config, epoch] + prior.noise[epoch])
        added = jnp.where(observed, covariance / deviation, 0)
        surprise = jnp.where(observed, (score - self.mean[config, epoch]) / deviation, 0)
        density = norm.logpdf(surprise) - jnp.log(deviation)
        return TargetState(
            mean=self.mean + surprise * added,
            variance=jnp.maximum(self.variance - jnp.square(added), 0),
            rows=self.rows.at[row].set(added),
            log_density=self.log_density + jnp.where(observed, density, 0),
        )
