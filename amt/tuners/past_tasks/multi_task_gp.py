"""Multi-task Gaussian process on final scores, with an intrinsic model of coregionalization.

It is the model of this library (`amt.gp.model`) with the kernels icm and matern, on curves of one
epoch, the best of each curve, fitted to the sources by maximum likelihood. Next is the largest
expected improvement.

Source: Swersky, Snoek, Adams (2013), Multi-Task Bayesian Optimization, section 3.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from amt.curves import LearningCurves
from amt.gp.observations import Observations
from amt.search.acquisition import log_expected_improvement
from amt.search.rule import acquisition_values
from amt.tuners import full_training
from amt.tuners.amt import Learned, Settings, amt
from amt.tuners.final_score_gp import final_scores
from amt.tuners.record import HostProblem, Prepared, Pure, Record, RunStage

SETTINGS = Settings(task="icm", config="matern", fidelity="matern")


def prepare(
    problems: Sequence[HostProblem], keys: Sequence[PRNGKeyArray], dtype: Any, stage: RunStage
) -> Prepared:
    """Fit to the final scores of the sources, and condition on them."""
    final = []
    for problem in problems:
        curves = problem.sources
        one_epoch = LearningCurves(
            configs=curves.configs,
            space=curves.space,
            tasks=curves.tasks,
            scores=final_scores(curves)[:, :, None],
            epochs=np.ones(1, int),
        )
        room = full_training.capacity(problem.budget, curves.num_epochs)
        final.append(HostProblem(problem.name, one_epoch, room))
    inner = amt(SETTINGS).prepare
    assert inner is not None
    return inner(final, keys, dtype, stage)


def init(key: PRNGKeyArray, learned: Learned) -> full_training.State:
    """Start without scores."""
    del key
    empty = Observations.empty(1, learned.source.noise.dtype)
    num_configs = len(learned.source.condition(empty).mean)
    return full_training.start(learned, num_configs, empty.score.dtype)


def choose(learned: Learned, scores: Float[Array, "config"]) -> Float[Array, "config"]:
    """Expected improvement of each configuration's final score."""
    configs, mask, values = full_training.scored(scores, learned.budget)
    count = jnp.sum(mask).astype(jnp.int32)
    at = configs.astype(jnp.int32)
    observations = Observations(at, jnp.zeros_like(at), values, count)
    posterior = learned.source.condition(observations)
    every = jnp.ones((len(scores), 1), bool)
    return acquisition_values(posterior, observations, every, log_expected_improvement)


def step(state, feedback):
    """Condition on the final scores, and train the configuration of the largest improvement."""
    return full_training.step(state, feedback, choose=choose)


RECORD = Record(
    name="multi_task_gp",
    label="multi-task GP",
    source="Swersky, Snoek, Adams (2013), Multi-Task Bayesian Optimization",
    make=lambda: Pure(init, step, prepare),
)
