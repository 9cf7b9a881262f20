r"""Training in an order that is fixed before the first query.

Cell (c, e) of the target's grid has a priority, and the cells are trained by increasing priority,

\[ \text{curve by curve: } \pi(c)\, E + e, \qquad \text{epoch by epoch: } e\, C + \pi(c), \]

where \(\pi\) is a place of each configuration, drawn from a key or by merit on the sources.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from amt.search.replay import Decision, Feedback


class State(NamedTuple):
    """The order, and the best observed so far.

    Attributes:
        recommended: configuration of the largest score; before there is one the first in order.
        best: that score.
    """

    priority: Int[Array, "config epoch"]
    recommended: Int[Array, ""]
    best: Float[Array, ""]


def curve_by_curve(place: Int[Array, "config"], scores: Float[Array, "task config epoch"]) -> State:
    """Start to train each configuration to its end before the next one."""
    epochs = jnp.arange(scores.shape[2])
    return _start(place[:, None] * scores.shape[2] + epochs, scores)


def epoch_by_epoch(place: Int[Array, "config"], scores: Float[Array, "task config epoch"]) -> State:
    """Start to train all configurations for one epoch before any for a second one."""
    epochs = jnp.arange(scores.shape[2])
    return _start(epochs * scores.shape[1] + place[:, None], scores)


def by_merit(
    values: Float[Array, "task config"], scores: Float[Array, "task config epoch"]
) -> State:
    """Start to train curve by curve, the largest mean z-score of `values` over the tasks first.

    A task's z-scores are those among all configurations, missing values left out.
    """
    deviation = jnp.nanstd(values, axis=1, keepdims=True)
    scale = jnp.where(deviation > 0, deviation, 1)
    merit = jnp.nanmean((values - jnp.nanmean(values, axis=1, keepdims=True)) / scale, axis=0)
    return curve_by_curve(jnp.argsort(jnp.argsort(-merit)), scores)


def recommend_best_observed(state: State, feedback: Feedback) -> tuple[State, Decision]:
    """Train what is next in order; recommend the configuration of the largest score so far."""
    better = feedback.observed & (feedback.score > state.best)
    state = State(
        state.priority,
        jnp.where(better, feedback.config, state.recommended),
        jnp.where(better, feedback.score, state.best),
    )
    return state, Decision(_next(state, feedback), state.recommended)


def recommend_first(state: State, feedback: Feedback) -> tuple[State, Decision]:
    """Train what is next in order; recommend the first in order, whatever is observed."""
    return state, Decision(_next(state, feedback), state.recommended)


def _start(priority: Int[Array, "config epoch"], scores: Float[Array, "..."]) -> State:
    return State(priority, jnp.argmin(priority[:, 0]), jnp.asarray(-jnp.inf, scores.dtype))


def _next(state: State, feedback: Feedback) -> Int[Array, ""]:
    last = state.priority.size
    return jnp.argmin(jnp.where(feedback.remaining, state.priority, last).min(1))
