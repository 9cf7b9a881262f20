"""The closed tuning loop on recorded learning curves, as one compiled scan.

A simulation answers each query from a target's recorded curves. It is pure, so that many (splits
of a database, seeds, models) run at once under `jax.vmap`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from amt.acquisition import Acquisition, upper_confidence_bound
from amt.gp.conditional import Ensemble, Observations, SourcePosterior
from amt.tuner import recommend, suggest


class Trajectory(NamedTuple):
    """What a tuner did, one entry a query.

    Attributes:
        config: configuration trained.
        epoch: position of the epoch trained (from 0).
        score: score observed.
        recommended: configuration recommended after that observation.
    """

    config: Int[Array, "query"]
    epoch: Int[Array, "query"]
    score: Float[Array, "query"]
    recommended: Int[Array, "query"]


def simulate(
    source: SourcePosterior | Ensemble,
    target: Float[Array, "config epoch"],
    *,
    budget: int,
    acquisition: Acquisition = upper_confidence_bound,
) -> Trajectory:
    """Tune on a target whose learning curves are known, for `budget` epochs in all.

    Every query trains one configuration for one more epoch (`amt.tuner.suggest`) and conditions
    the exact posterior on the score, task similarities included. Where `target` is NaN, the
    configuration ends there. `score` is NaN from a query on that found nothing left to train, or
    whose posterior was not finite.
    """
    # A missing epoch ends a curve: what comes after it is never reached.
    reachable = jnp.cumprod(jnp.isfinite(target), axis=1).astype(bool)

    def query(carry, _):
        observations, remaining = carry
        posterior = source.condition(observations)
        config, epoch = suggest(posterior, observations, remaining, acquisition)
        usable = remaining[config, epoch] & jnp.isfinite(posterior.variance).all()
        score = jnp.where(usable, target[config, epoch], jnp.nan)
        told = observations.append(config, epoch, score)
        observations = jax.tree.map(lambda a, b: jnp.where(usable, a, b), told, observations)
        remaining = remaining.at[config, epoch].set(False)
        return (observations, remaining), Trajectory(config, epoch, score, recommend(posterior))

    # What is recommended after a query is known at the next one: one more, which is not reported.
    start = Observations.empty(budget, target.dtype), reachable
    _, (config, epoch, score, recommended) = jax.lax.scan(query, start, length=budget + 1)
    return Trajectory(config[:-1], epoch[:-1], score[:-1], recommended[1:])
