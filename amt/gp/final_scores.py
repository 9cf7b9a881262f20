"""Joint distribution of the final scores of all configurations of a target.

The final score of a configuration is that at its best epoch, of the largest posterior mean, as a
network is kept as it was when it was best.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from amt.gp.observations import TargetPosterior
from amt.linalg import cholesky


class FinalScores(NamedTuple):
    """Noise-free final scores, jointly normal under each component of a mixture.

    Attributes:
        mean, covariance: of each component.
        noise: variance of an observation at the best epoch.
        log_weights: logarithms of the components' weights, which sum to 1.
    """

    mean: Float[Array, "component config"]
    covariance: Float[Array, "component config config"]
    noise: Float[Array, "component config"]
    log_weights: Float[Array, "component"]

    def matched(
        self,
    ) -> tuple[Float[Array, "config"], Float[Array, "config config"], Float[Array, "config"]]:
        """Mean, covariance and noise variance of the mixture."""
        weights = jnp.exp(self.log_weights)
        mean = weights @ self.mean
        apart = self.mean - mean
        covariance = jnp.tensordot(weights, self.covariance, 1)
        covariance += jnp.einsum("k,ki,kj->ij", weights, apart, apart)
        return mean, covariance, weights @ self.noise

    def draws(self, key: PRNGKeyArray, count: int) -> Float[Array, "draw config"]:
        """Independent draws, each from a component that is drawn first."""
        of_component, of_scores = jax.random.split(key)
        component = jax.random.categorical(of_component, self.log_weights, shape=(count,))
        size, dtype = self.mean.shape[1], self.mean.dtype
        normal = jax.random.normal(of_scores, (count, size), dtype)

        def factor(covariance: Float[Array, "config config"]) -> Float[Array, "config config"]:
            # Conditioning leaves rounding errors, below 0 where a score is known.
            scale = jnp.finfo(dtype).eps ** 0.5 * jnp.max(jnp.diagonal(covariance))
            return cholesky(covariance + scale * jnp.eye(size, dtype=dtype))

        if count == 1:
            return self.mean[component] + normal @ factor(self.covariance[component[0]]).T
        factors = jax.lax.map(factor, self.covariance)
        return self.mean[component] + jnp.einsum("dij,dj->di", factors[component], normal)


def best_epochs(posterior: TargetPosterior) -> Int[Array, "config"]:
    """Position of the epoch with the largest posterior mean, of each configuration."""
    return jnp.argmax(posterior.average(posterior.mean), axis=1)
