"""The decision rule: which configuration to train for one more epoch, and which to recommend.

Pure functions of a posterior and the observations; the closed loop (`amt.search.replay`) scans
over them, and the live tuner (`amt.search.tuner`) calls them one query at a time.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from amt.gp.final_scores import FinalScores
from amt.gp.observations import Observations, TargetPosterior
from amt.search.acquisition import LOGARITHMS, OF_MIXTURES, Acquisition, function_of, needs
from amt.search.cost import per_cost


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
    **given: Any,
) -> Float[Array, "config"]:
    """The acquisition value of every configuration, against the incumbent of some observations.

    Args:
        given: `final`, `key` and `cost` of `values_against`.
    """
    best = incumbent(observations, posterior)
    return values_against(best, posterior, remaining, acquisition, **given)


def values_against(
    best: Float[Array, ""],
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    acquisition: Acquisition,
    *,
    final: FinalScores | None = None,
    key: PRNGKeyArray | None = None,
    cost: Float[Array, "config epoch"] | None = None,
) -> Float[Array, "config"]:
    """The acquisition value of every configuration, per unit of cost where that is given.

    It is averaged over a mixture by its weights, but for functions `OF_MIXTURES`, and of logarithms
    it is the gains that are averaged.

    Args:
        best: the incumbent's score.
        final: joint distribution of final scores, for functions that take it.
        key: for functions that are random.
        cost: of each epoch by itself.

    Raises:
        ValueError: the function takes what is not given.

    Source: Snoek, Larochelle, Adams (2012), section 3.2, for the average.
    """
    given = {"final": final, "key": key}
    given = {name: what for name, what in given.items() if needs(acquisition, name)}
    function = function_of(acquisition)
    if None in given.values():
        raise ValueError(f"{function.__name__} needs task regression, the model of final scores")

    def of_component(mean: Array, variance: Array) -> Float[Array, "config"]:
        return acquisition(TargetPosterior(mean, variance), remaining, best, **given)

    if posterior.log_weights is None or function in OF_MIXTURES:
        values = acquisition(posterior, remaining, best, **given)
    else:
        values = jax.vmap(of_component)(posterior.mean, posterior.variance)
        if function in LOGARITHMS:
            values = logsumexp(values + posterior.log_weights[:, None], axis=0)
        else:
            values = posterior.average(values)
    if cost is None:
        return values
    best_mean = jnp.max(posterior.average(posterior.mean))
    return per_cost(acquisition, values, best_mean, cost, remaining)


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
