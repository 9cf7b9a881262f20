"""The decision rule: which configuration to train for one more epoch, and which to recommend.

Pure functions of a posterior and the observations; the closed loop (`amt.search.simulate`) scans
over them, and the live tuner (`amt.search.tuner`) calls them one query at a time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from amt.gp.observations import Observations, TargetPosterior
from amt.search.acquisition import OF_MIXTURES, Acquisition


class Query(NamedTuple):
    """A configuration and the epoch to train it for, both as positions on the grid."""

    config: Int[Array, ""]
    epoch: Int[Array, ""]


def incumbent(observations: Observations, posterior: TargetPosterior) -> Float[Array, ""]:
    """The best score observed, or before there is one the largest posterior mean at the end."""
    observed = jnp.max(jnp.where(observations.mask, observations.score, -jnp.inf))
    expected = jnp.max(posterior.average(posterior.mean)[:, -1])
    return jnp.where(observations.count > 0, observed, expected)


def acquisition_values(
    posterior: TargetPosterior,
    observations: Observations,
    remaining: Bool[Array, "config epoch"],
    acquisition: Acquisition,
) -> Float[Array, "config"]:
    """The acquisition value of every configuration.

    It is averaged over a mixture by its weights, but for functions `OF_MIXTURES`.

    Source: Snoek, Larochelle, Adams (2012), section 3.2, for the average.
    """
    best = incumbent(observations, posterior)
    if posterior.log_weights is None or acquisition in OF_MIXTURES:
        return acquisition(posterior, remaining, best)

    def of_component(mean: Array, variance: Array) -> Float[Array, "config"]:
        return acquisition(TargetPosterior(mean, variance), remaining, best)

    return posterior.average(jax.vmap(of_component)(posterior.mean, posterior.variance))


def suggest(
    posterior: TargetPosterior,
    observations: Observations,
    remaining: Bool[Array, "config epoch"],
    acquisition: Acquisition,
) -> Query:
    """The configuration of largest acquisition value, and its first remaining epoch.

    Source: Xiao, Xing, Neiswanger (2021), algorithm 1.
    """
    values = acquisition_values(posterior, observations, remaining, acquisition)
    config = jnp.argmax(values)
    return Query(config, jnp.argmax(remaining[config]))


def recommend(
    posterior: TargetPosterior, among: Bool[Array, "config"] | None = None
) -> Int[Array, ""]:
    """The configuration with the largest posterior mean at any epoch.

    Args:
        among: those that can be recommended, where there is one; None for all.
    """
    value = jnp.max(posterior.average(posterior.mean), axis=1)
    if among is not None:
        value = jnp.where(among | ~among.any(), value, -jnp.inf)
    return jnp.argmax(value)
