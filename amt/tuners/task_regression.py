"""A target as a weighted sum of the sources, learned from each source given the others.

Before the loop the model (`amt.gp.task_regression`) is fitted to the sources (`fit`), and made into
the prior of the target (`condition`). In the loop every score costs one update of each
component, and the configuration with the largest expected lead (`amt.search.acquisition`) is
trained next. Accuracies are modelled through the arcsine of their square root.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from amt.gp.grid import CurveGrid, require_complete
from amt.gp.task_regression.model import TaskRegression
from amt.gp.task_regression.target import TargetPrior, TargetState
from amt.inference.task_regression import fit_task_regression
from amt.outcome import ArcsineOutcome, Outcome
from amt.search.acquisition import expected_lead
from amt.search.fitting import stack
from amt.search.rule import recommend
from amt.search.simulate import Decision, Feedback, Prediction
from amt.tuners.record import HostProblem, Prepared, Pure, Record, RunStage


class Learned(eqx.Module):
    """The prior of the target, and the number of scores to make room for."""

    prior: TargetPrior
    outcome: Outcome | None = eqx.field(static=True)
    budget: int = eqx.field(static=True)


class State(eqx.Module):
    """The target's posterior, in units of the transform."""

    prior: TargetPrior
    target: TargetState
    outcome: Outcome | None = eqx.field(static=True)


def init(key: PRNGKeyArray, learned: Learned) -> State:
    """Start from the prior, without scores."""
    del key
    # One more: the loop's first step has no score.
    target = TargetState.init(learned.prior, learned.budget + 1)
    return State(learned.prior, target, learned.outcome)


def step(state: State, feedback: Feedback) -> tuple[State, Decision]:
    """Condition on the latest score, and train what is expected to lead."""
    score = feedback.score if state.outcome is None else state.outcome.forward(feedback.score)
    prior, observed = state.prior, feedback.observed
    target = state.target.update(prior, feedback.config, feedback.epoch, score, observed)
    posterior = target.posterior(prior)
    matched = posterior.matched()
    values = expected_lead(matched, feedback.remaining, jnp.max(matched.mean))
    decision = Decision(
        jnp.argmax(values),
        recommend(matched),
        jnp.isfinite(matched.variance).all(),
        Prediction(posterior, prior.noises(), state.outcome),
    )
    return State(prior, target, state.outcome), decision


def transform_of(problem: HostProblem) -> Outcome | None:
    """The transform of scores that are accuracies as they stand; None of others."""
    return ArcsineOutcome() if problem.sources.within_unit else None


def prepare(
    problems: Sequence[HostProblem], keys: Sequence[PRNGKeyArray], dtype: Any, stage: RunStage
) -> Prepared:
    """Fit to the sources of each problem, and make the priors of its target."""
    outcomes = [transform_of(problem) for problem in problems]
    outcome = outcomes[0] if all(outcomes) else None
    grids = []
    for problem in problems:
        grid = CurveGrid.of(problem.sources, dtype)
        require_complete(grid, f"task regression of {problem.name}")
        if outcome is not None:
            grid = eqx.tree_at(lambda g: g.scores, grid, outcome.forward(grid.scores))
        grids.append(grid)
    grids = stack(grids)
    starts = [
        stack([TaskRegression.init(problem.sources, key, dtype=dtype)])
        for problem, key in zip(problems, keys, strict=True)
    ]
    fits = stage("fit", fit_task_regression, stack(starts), grids)
    prior = stage("condition", TaskRegression.target_prior, fits.model, grids)
    converged = np.asarray(fits.converged)[np.arange(len(problems)), np.asarray(fits.best)]
    diagnostics = [{"converged": float(value)} for value in converged]
    return Prepared(Learned(prior, outcome, problems[0].budget), diagnostics)


RECORD = Record(
    name="task_regression",
    label="task regression",
    source="this library",
    make=lambda: Pure(init, step, prepare),
)
