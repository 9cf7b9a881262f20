"""Task regression where there is no past task: the target's own curves alone.

The prior is `amt.gp.task_regression.alone`; the loop is that of `amt.tuners.task_regression`, with
another decision rule, `amt.search.acquisition.WITHOUT_TASKS`. The first configuration is drawn at
random, as all are alike before. Of the sources it knows what kind of metric they have, and nothing
else.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from amt.gp.task_regression.alone import target_alone, typical_score
from amt.outcome import ArcsineOutcome
from amt.parameters import stack
from amt.search.acquisition import WITHOUT_TASKS
from amt.tuners.record import HostProblem, Prepared, Record, RunStage
from amt.tuners.task_regression import Learned, task_regression


def prepare(
    problems: Sequence[HostProblem], keys: Sequence[PRNGKeyArray], dtype: Any, stage: RunStage
) -> Prepared:
    """Make the prior of each problem, in which no score of a source is."""
    del stage
    accuracies = all(problem.sources.within_unit for problem in problems)
    outcome = ArcsineOutcome() if accuracies else None
    learned = []
    for problem, key in zip(problems, keys, strict=True):
        curves = problem.sources
        features = jnp.asarray(curves.features, dtype)
        epochs = jnp.asarray(curves.epochs / curves.epochs[-1], dtype)
        prior = target_alone(features, epochs, typical_score(outcome))
        first = 1e-6 * jax.random.normal(key, (len(features), 1), dtype)  # of equals
        learned.append(Learned(prior._replace(mean=prior.mean + first), outcome, problem.budget))
    return Prepared(stack(learned), [{}] * len(problems))


RECORD = Record(
    name="task_regression_alone",
    label="task regression, no past task",
    source="this library",
    make=lambda: task_regression(WITHOUT_TASKS)._replace(prepare=prepare),
)
