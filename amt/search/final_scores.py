"""Joint distribution of the final scores of all configurations, in task regression.

The final score of a configuration is that at its best epoch, of the largest posterior mean, as a
network is kept as it was when it was best.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from amt.gp.observations import Observations, TargetPosterior
from amt.gp.task_regression.target import TargetPrior, TargetState
from amt.linalg import cholesky, solve_lower


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

    @classmethod
    def of_state(
        cls, prior: TargetPrior, state: TargetState, posterior: TargetPosterior
    ) -> "FinalScores":
        """Joint final scores of a target on the grid, given the scores of its state."""
        at = jnp.arange(state.mean.shape[1]), best_epochs(posterior)
        covariance = jnp.tensordot(prior.components.parts, prior.among(*at), 1)
        half = state.rows[:, :, *at]
        covariance -= jnp.einsum("kni,knj->kij", half, half)
        return cls.at(prior, posterior, at[1], at[1], covariance)

    @classmethod
    def of_prior(
        cls,
        prior: TargetPrior,
        posterior: TargetPosterior,
        observations: Observations,
        pending: Observations | None = None,
        epochs: Int[Array, "kept"] | None = None,
    ) -> "FinalScores":
        """Joint final scores of a target, given its scores as `TargetPrior.condition` takes them.

        Args:
            prior: all of whose configurations are observable.
            posterior: what `TargetPrior.condition` makes of the same.
        """
        best = best_epochs(posterior)
        epoch = best if epochs is None else epochs[best]
        at, under_way = observations.with_pending(pending)
        used = at.mask if under_way is None else at.mask | under_way
        count = len(at.config)
        config = jnp.append(at.config, jnp.arange(len(best)))
        among = prior.among(config, jnp.append(at.epoch, epoch))
        both = used[:, None] & used

        def of_component(component: tuple[Array, Array]) -> Float[Array, "config config"]:
            factors, noise = component
            every = jnp.tensordot(factors, among, 1)
            gram = jnp.where(both, every[:count, :count], 0)
            factor = cholesky(gram + jnp.diag(jnp.where(used, noise[at.epoch], 1)))
            half = solve_lower(factor, jnp.where(used[:, None], every[:count, count:], 0))
            return every[count:, count:] - half.T @ half

        covariance = jax.lax.map(of_component, (prior.components.parts, prior.noises()))
        return cls.at(prior, posterior, best, epoch, covariance)

    @classmethod
    def at(
        cls,
        prior: TargetPrior,
        posterior: TargetPosterior,
        position: Int[Array, "config"],
        epoch: Int[Array, "config"],
        covariance: Float[Array, "component config config"],
    ) -> "FinalScores":
        """Joint scores at one epoch of each configuration, by position in posterior and prior."""
        assert posterior.log_weights is not None
        mean = posterior.mean[:, jnp.arange(len(position)), position]
        return cls(mean, covariance, prior.noises()[:, epoch], posterior.log_weights)

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
