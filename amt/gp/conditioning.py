r"""Conditioning a target task on its observations, and its prior given source tasks.

The target has a mean of its own. It is integrated out under the normal prior that the source
means suggest, \(m_* \sim N(\bar m, \mathrm{var}(m))\): a constant added to the covariance.

n observations of the target cost one n x n Cholesky factorisation, whatever the number of source
observations. They are padded to a fixed capacity, so that shapes never change.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from amt.gp.observations import Observations, TargetPosterior
from amt.kernels.task.base import TargetObservations
from amt.linalg import cholesky, solve_cholesky, solve_lower


def mean_prior(
    means: Float[Array, "task"], scores: Float[Array, "task config epoch"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean and variance of the target's mean; of one source, the variance of its scores."""
    return jnp.mean(means), jnp.var(means, ddof=1) if means.size > 1 else jnp.nanvar(scores)


def target_noise(task_noise: Float[Array, "task"]) -> Float[Array, ""]:
    """The target's noise variance at the last epoch: the sources' geometric mean."""
    return jnp.exp(jnp.mean(jnp.log(task_noise)))


def beside_sources(
    observations: Observations,
    scores: Float[Array, "task config epoch"],
    response: Float[Array, "task config epoch"],
    mean: tuple[Float[Array, ""], Float[Array, ""]],
    prior: Float[Array, "obs obs"],
    noise: Float[Array, "obs"],
    nugget: Float[Array, "obs obs"] | float = 0.0,
) -> TargetObservations:
    """Put the target's observations beside the sources, for a task kernel to compare.

    The sources have no scores of configurations off the grid.

    Args:
        scores: of the sources.
        response: see `TargetObservations.response`.
        mean: from `mean_prior`.
        prior, noise, nugget: as in `TargetObservations`.
    """
    at = observations.config, observations.epoch
    return TargetObservations(
        score=observations.score,
        mask=observations.mask,
        source=scores.at[:, *at].get(mode="fill", fill_value=jnp.nan).T,
        residual=observations.score - mean[0],
        response=response[:, *at].T,
        prior=prior,
        noise=noise,
        mean_variance=mean[1],
        share=1 / scores[0].size,
        nugget=nugget,
    )


class Regression(NamedTuple):
    r"""How a target depends on sources whose covariances are kept.

    A task kernel that projects to the nearest PSD matrix changes covariances among the sources,
    once it has seen the target. What is taken of its Gram matrix \(\tilde K\) is how the target
    regresses on them, \(w = \tilde K^{-1} \tilde k\), and the variance left over; so
    \(k_* = K w\).

    Attributes:
        similarity: covariances \(k_*\) with the sources.
        variance: the target's; NaN where less than rounding errors is left over of it.
        weights: w.
    """

    similarity: Float[Array, "task"]
    variance: Float[Array, ""]
    weights: Float[Array, "task"]

    @classmethod
    def of(
        cls, sources: Float[Array, "task task"], gram: Float[Array, "task+1 task+1"]
    ) -> "Regression":
        """Regress the target on the sources.

        Args:
            sources: Gram matrix of the sources alone.
            gram: Gram matrix of the sources and the target, which is last.
        """
        row = gram[:-1, -1]
        ridge = jnp.finfo(row.dtype).eps ** 0.5 * jnp.mean(jnp.diagonal(gram)[:-1])
        factor = cholesky(gram[:-1, :-1] + ridge * jnp.eye(len(row), dtype=row.dtype))
        weights: Array = solve_cholesky(factor, row[:, None])[:, 0]
        changed = (sources - gram[:-1, :-1]) @ weights
        indefinite = gram[-1, -1] - row @ weights < -10 * ridge
        variance = jnp.where(indefinite, jnp.nan, gram[-1, -1] + weights @ changed)
        return cls(row + changed, variance, weights)


def condition_on(
    observations: Observations,
    noise: Float[Array, "obs"],
    prior: TargetPosterior,
    cross: Float[Array, "obs config function"],
    epochs: Float[Array, "epoch function"],
    pending: Bool[Array, "obs"] | None = None,
) -> TargetPosterior:
    r"""The target given its observations, of a prior whose functions of the epoch are few.

    Args:
        noise: noise variance of each observation.
        prior: before them.
        cross: covariances of the observations with f are `cross @ epochs.T`.
        pending: entries behind all observations that are under way, whose scores are taken to be
            the posterior mean there, given the observations. In \(z = L^{-1} (y - \mu)\), L
            the Cholesky factor, these are the entries of 0.
    """
    config, epoch, mask = observations.config, observations.epoch, observations.mask
    told = mask
    if pending is not None:
        mask = mask | pending
    cross = jnp.where(mask[:, None, None], cross, 0)
    both = mask[:, None] & mask[None, :]
    gram = jnp.einsum("ijk,jk->ij", cross[:, config], epochs[epoch])
    gram = jnp.where(both, gram, 0) + jnp.diag(jnp.where(mask, noise, 1))
    factor = cholesky(gram)
    residual = jnp.where(told, observations.score - prior.mean[config, epoch], 0)
    whitened = jnp.where(told[:, None], solve_lower(factor, residual[:, None]), 0)
    weights = solve_lower(factor, whitened, True)[:, 0]
    half = solve_lower(factor, cross.reshape(len(cross), -1)).reshape(cross.shape)
    explained = jnp.einsum("ick,icl->ckl", half, half)
    reduction = jnp.einsum("ckl,ek,el->ce", explained, epochs, epochs)
    return TargetPosterior(
        mean=prior.mean + jnp.tensordot(weights, cross, 1) @ epochs.T,
        variance=jnp.maximum(prior.variance - reduction, 0),
    )
