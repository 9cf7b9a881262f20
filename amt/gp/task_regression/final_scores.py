"""Joint final scores of a target in task regression, given its scores."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from amt.gp.final_scores import FinalScores, best_epochs
from amt.gp.observations import Observations, TargetPosterior
from amt.gp.task_regression.target import TargetPrior, TargetState
from amt.linalg import cholesky, solve_lower


def final_scores_of_state(
    prior: TargetPrior, state: TargetState, posterior: TargetPosterior
) -> FinalScores:
    """Joint final scores of a target on the grid, given the scores of its state."""
    config, best = jnp.arange(state.mean.shape[1]), best_epochs(posterior)
    epoch = state.epochs[best]
    covariance = jnp.tensordot(prior.components.parts, prior.among(config, epoch), 1)
    half = state.rows[:, :, config, best]
    covariance -= jnp.einsum("kni,knj->kij", half, half)
    return _at(prior, posterior, best, epoch, covariance)


def final_scores_given(
    prior: TargetPrior,
    posterior: TargetPosterior,
    observations: Observations,
    pending: Observations | None = None,
    epochs: Int[Array, "kept"] | None = None,
) -> FinalScores:
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
    return _at(prior, posterior, best, epoch, covariance)


def _at(
    prior: TargetPrior,
    posterior: TargetPosterior,
    position: Int[Array, "config"],
    epoch: Int[Array, "config"],
    covariance: Float[Array, "component config config"],
) -> FinalScores:
    """Joint scores at one epoch of each configuration, by position in posterior and prior."""
    assert posterior.log_weights is not None
    mean = posterior.mean[:, jnp.arange(len(position)), position]
    return FinalScores(mean, covariance, prior.noises()[:, epoch], posterior.log_weights)
