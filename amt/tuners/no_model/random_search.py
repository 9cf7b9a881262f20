"""Random search: uniformly random configurations, each trained to its last epoch."""

import jax
from jaxtyping import PRNGKeyArray

from amt.tuners.in_order import State, curve_by_curve, recommend_best_observed
from amt.tuners.record import Problem, Pure, Record


def init(key: PRNGKeyArray, problem: Problem) -> State:
    """Draw an order, without replacement."""
    place = jax.random.permutation(key, problem.scores.shape[1])
    return curve_by_curve(place, problem.scores)


RECORD = Record(
    name="random_search",
    label="random search",
    source="Bergstra, Bengio (2012), Random Search for Hyper-Parameter Optimization",
    make=lambda: Pure(init, recommend_best_observed),
    orders=20,
)
