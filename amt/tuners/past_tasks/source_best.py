"""The configuration that is best on the sources, recommended whatever is observed.

Best is the largest mean over the sources of the z-score of its final value among all
configurations. Epochs are spent on training it, then the next best.
"""

from jaxtyping import PRNGKeyArray

from amt.tuners.in_order import State, by_merit, recommend_first
from amt.tuners.record import Problem, Pure, Record


def init(key: PRNGKeyArray, problem: Problem) -> State:
    """Order by the last epoch on the sources."""
    del key
    return by_merit(problem.scores[:, :, -1], problem.scores)


RECORD = Record(
    name="source_best",
    label="best on sources",
    source="best mean z-score of the last epoch; no model",
    make=lambda: Pure(init, recommend_first),
)
