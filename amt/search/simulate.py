"""Tuning with a source posterior on recorded learning curves: a replay of its own decisions.

Pure, as `amt.search.replay` is.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.gp.mixture import Mixture
from amt.gp.observations import Observations
from amt.gp.posterior import AbstractSourcePosterior
from amt.search.acquisition import Acquisition, upper_confidence_bound
from amt.search.replay import Decision, Feedback, Prediction, Trajectory, replay
from amt.search.rule import recommend, suggest


class Conditioned(NamedTuple):
    """State of amt's tuner: the sources' posterior and the target's observations."""

    source: AbstractSourcePosterior | Mixture
    observations: Observations


def query(
    state: Conditioned, feedback: Feedback, *, acquisition: Acquisition
) -> tuple[Conditioned, Decision]:
    """Condition the exact posterior on the latest score, task similarities included, and decide.

    The decision is not valid where the posterior is not finite.
    """
    source, before = state
    observations = before.append(feedback.config, feedback.epoch, feedback.score)
    observations = jax.tree.map(
        lambda new, old: jnp.where(feedback.observed, new, old), observations, before
    )
    posterior = source.condition(observations)
    config, _ = suggest(posterior, observations, feedback.remaining, acquisition)
    decision = Decision(
        config,
        recommend(posterior),
        jnp.isfinite(posterior.variance).all(),
        Prediction(posterior, source.noise),
    )
    return Conditioned(source, observations), decision


def simulate(
    source: AbstractSourcePosterior | Mixture,
    target: Float[Array, "config epoch"],
    *,
    budget: int,
    acquisition: Acquisition = upper_confidence_bound,
) -> Trajectory:
    """Tune with amt on a target whose learning curves are known, for `budget` epochs in all.

    Every query trains one configuration for one more epoch (`amt.search.rule.suggest`) and
    conditions the exact posterior on the score, task similarities included. Where `target` is NaN,
    the configuration ends there. `score` is NaN from a query on that found nothing left to train,
    or whose posterior was not finite.
    """
    state = Conditioned(source, Observations.empty(budget, target.dtype))
    return replay(state, partial(query, acquisition=acquisition), target, budget=budget)
