"""A target as a weighted sum of the sources, learned from each source given the others.

Before the loop the model (`amt.gp.task_regression`) is fitted to the sources (`fit`), and made into
the prior of the target (`condition`). In the loop every score costs one update of each
component, and the configuration with the largest expected lead (`amt.search.acquisition`) is
trained next. Of those that have a score, the one with the largest posterior mean is recommended,
before there is one of all. Accuracies are modelled through the arcsine of their square root.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray

from amt.gp.task_regression.model import TaskRegression
from amt.gp.task_regression.target import TargetPrior, TargetState
from amt.inference.task_regression import fit_task_regression
from amt.outcome import Outcome
from amt.search.acquisition import expected_lead
from amt.search.fitting import as_modelled, source_grid, stack
from amt.search.rule import recommend
from amt.search.simulate import Decision, Feedback, Prediction
from amt.tuners.record import HostProblem, Prepared, Pure, Record, RunStage


class Learned(eqx.Module):
    """The prior of the target, and the number of scores to make room for."""

    prior: TargetPrior
    outcome: Outcome | None = eqx.field(static=True)
    budget: int = eqx.field(static=True)


class State(eqx.Module):
    """The target's posterior, in units of the transform, and the configurations with a score."""

    prior: TargetPrior
    target: TargetState
    observed: Bool[Array, "config"]
    outcome: Outcome | None = eqx.field(static=True)


def init(key: PRNGKeyArray, learned: Learned) -> State:
    """Start from the prior, without scores."""
    del key
    # One more: the loop's first step has no score.
    target = TargetState.init(learned.prior, learned.budget + 1)
    observed = jnp.zeros(len(learned.prior.mean), bool)
    return State(learned.prior, target, observed, learned.outcome)


def step(state: State, feedback: Feedback) -> tuple[State, Decision]:
    """Condition on the latest score, and train what is expected to lead."""
    score = feedback.score if state.outcome is None else state.outcome.forward(feedback.score)
    prior, observed = state.prior, feedback.observed
    target = state.target.update(prior, feedback.config, feedback.epoch, score, observed)
    posterior = target.posterior(prior)
    seen = state.observed.at[feedback.config].max(observed)
    values = expected_lead(posterior, feedback.remaining, jnp.max(posterior.mean))
    decision = Decision(
        jnp.argmax(values),
        recommend(posterior, seen),
        jnp.isfinite(posterior.variance).all(),
        Prediction(posterior, prior.noises(), state.outcome),
    )
    return State(prior, target, seen, state.outcome), decision


def prepare(
    problems: Sequence[HostProblem], keys: Sequence[PRNGKeyArray], dtype: Any, stage: RunStage
) -> Prepared:
    """Fit to the sources of each problem, and make the priors of its target."""
    curves = [problem.sources for problem in problems]
    outcome = None
    if all(sources.within_unit for sources in curves):
        curves = [as_modelled(sources, "task_regression") for sources in curves]
        outcome = curves[0].outcome
    grids = [source_grid(sources, "task_regression", dtype) for sources in curves]
    if any(grid.variance is not None for grid in grids):
        grids = [
            grid if grid.variance is not None else replace(grid, variance=0 * grid.scores)
            for grid in grids
        ]
    grids = stack(grids)
    starts = [
        stack([TaskRegression.init(problem.sources, key, dtype=dtype)])
        for problem, key in zip(problems, keys, strict=True)
    ]
    fits = stage("fit", fit_task_regression, stack(starts), grids)
    prior = stage("condition", TaskRegression.target_prior, fits.model, grids)
    of_problem = (jax.tree.map(lambda leaf: leaf[i], fits) for i in range(len(problems)))  # noqa: B023
    diagnostics = [fit.diagnostics() for fit in of_problem]
    return Prepared(Learned(prior, outcome, problems[0].budget), diagnostics)


RECORD = Record(
    name="task_regression",
    label="task regression",
    source="this library",
    make=lambda: Pure(init, step, prepare),
)
