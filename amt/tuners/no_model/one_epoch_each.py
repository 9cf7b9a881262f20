"""One epoch of every configuration in random order, then a second one, and so on."""

import jax
from jaxtyping import PRNGKeyArray

from amt.tuners.in_order import State, epoch_by_epoch, recommend_best_observed
from amt.tuners.record import Problem, Pure, Record


def init(key: PRNGKeyArray, problem: Problem) -> State:
    """Draw an order."""
    place = jax.random.permutation(key, problem.scores.shape[1])
    return epoch_by_epoch(place, problem.scores)


RECORD = Record(
    name="one_epoch_each",
    label="one epoch each",
    source="breadth first, as the first rung of successive halving: Jamieson, Talwalkar (2016)",
    make=lambda: Pure(init, recommend_best_observed),
)
