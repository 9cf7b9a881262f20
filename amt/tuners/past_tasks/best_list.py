"""The sources' best configurations, trained one after another to the end.

The list is ordered by the mean over the sources of the z-score, among all configurations, of the
value of a configuration, which is that of its best epoch. The best observed is recommended, of all
epochs observed so far; before there is one, the first of the list.

Source: Wistuba, Schilling, Schmidt-Thieme (2015), Sequential Model-Free Hyperparameter Tuning, for
lists of configurations from past tasks.
"""

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from amt.tuners.in_order import State, by_merit, recommend_best_observed
from amt.tuners.record import Problem, Pure, Record


def init(key: PRNGKeyArray, problem: Problem) -> State:
    """Order by the best epoch on the sources."""
    del key
    return by_merit(jnp.nanmax(problem.scores, axis=2), problem.scores)


RECORD = Record(
    name="best_list",
    label="best list of sources",
    source="Wistuba, Schilling, Schmidt-Thieme (2015), Sequential Model-Free Hyperparameter Tuning",
    make=lambda: Pure(init, recommend_best_observed),
)
