"""A target as a weighted sum of the sources, learned from each source given the others.

Before the loop the model (`amt.gp.task_regression`) is fitted to the sources (`fit`), and made into
the prior of the target (`condition`). In the loop every score costs one update of each
component, and the configuration with the largest value of perfect information
(`amt.search.acquisition`) is trained next. Of those that have a score, the one with the largest
posterior mean is recommended, before there is one of all. Accuracies are modelled through the
arcsine of their square root.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from amt.gp.task_regression.final_scores import final_scores_of_state
from amt.gp.task_regression.model import TaskRegression
from amt.gp.task_regression.target import TargetPrior, TargetState, predicted_epochs
from amt.inference.task_regression import fit_task_regression
from amt.outcome import Outcome
from amt.parameters import stack
from amt.search.acquisition import (
    ACQUISITIONS,
    RULES,
    Acquisition,
    needs,
    options_of,
    value_of_perfect_information,
)
from amt.search.cost import expected_cost
from amt.search.fitting import as_modelled, source_grid
from amt.search.replay import Decision, Feedback, Prediction
from amt.search.rule import recommend, values_against
from amt.search.stopping import (
    UTILITIES,
    Utility,
    expected_gains,
    expected_improvement,
    stops,
)
from amt.tuners.checks import check_choice
from amt.tuners.record import HostProblem, Prepared, Pure, Record, RunStage


class Learned(eqx.Module):
    """The prior of the target, the expected cost of its epochs, and the number of scores to hold.

    Attributes:
        cost: in units of the mean epoch's (`amt.search.cost.expected_cost`).
        budget: the number.
    """

    prior: TargetPrior
    outcome: Outcome | None = eqx.field(static=True)
    budget: int = eqx.field(static=True)
    cost: Float[Array, "config epoch"] | None = None


class State(eqx.Module):
    """The target's posterior, in units of the transform, and what was observed.

    Attributes:
        observed: the configurations with a score.
        best: the best score, in units of the transform; -inf before the first.
        spent: the expected cost of what was trained.
        key: of random rules.
    """

    prior: TargetPrior
    target: TargetState
    observed: Bool[Array, "config"]
    best: Float[Array, ""]
    spent: Float[Array, ""]
    key: PRNGKeyArray
    cost: Float[Array, "config epoch"] | None
    outcome: Outcome | None = eqx.field(static=True)


def init(key: PRNGKeyArray, learned: Learned) -> State:
    """Start from the prior, without scores."""
    prior, dtype = learned.prior, learned.prior.mean.dtype
    return State(
        prior=prior,
        # One more: the loop's first step has no score.
        target=TargetState.init(prior, learned.budget + 1, predicted_epochs(len(prior.noise))),
        observed=jnp.zeros(len(prior.mean), bool),
        best=jnp.asarray(-jnp.inf, dtype),
        spent=jnp.zeros((), dtype),
        key=key,
        cost=learned.cost,
        outcome=learned.outcome,
    )


def step(
    state: State,
    feedback: Feedback,
    *,
    acquisition: Acquisition = value_of_perfect_information,
    by_cost: bool = False,
    utilities: Sequence[Utility] = (),
) -> tuple[State, Decision]:
    """Condition on the latest score, and decide.

    Args:
        by_cost: whether values are per unit of cost.
        utilities: to say for each whether to stop; none for no stopping rule.
    """
    score = feedback.score if state.outcome is None else state.outcome.forward(feedback.score)
    prior, observed, config = state.prior, feedback.observed, feedback.config
    target = state.target.update(prior, config, feedback.epoch, score, observed)
    posterior, epochs = target.posterior(prior), target.epochs
    noise = prior.noises()[:, epochs]
    seen = state.observed.at[config].max(observed)
    best = jnp.where(observed, jnp.maximum(state.best, score), state.best)
    expected = jnp.max(posterior.average(posterior.mean)[:, -1])
    of_rule, key = jax.random.split(state.key)
    values = values_against(
        jnp.where(jnp.isfinite(best), best, expected),
        posterior,
        feedback.remaining[:, epochs],
        acquisition,
        key=of_rule,
        final=final_scores_of_state(prior, target, posterior)
        if needs(acquisition, "final")
        else None,
        cost=state.cost[:, epochs] if by_cost and state.cost is not None else None,
    )
    spent, stop = state.spent, None
    if utilities:
        cost = state.cost
        assert cost is not None
        spent += jnp.where(observed, cost[config, feedback.epoch], 0)
        outcome = state.outcome
        metric = best if outcome is None else outcome.inverse(best)
        improvement = expected_improvement(posterior, noise, metric, outcome)
        budget = target.rows.shape[1] - 1
        gains = expected_gains(
            improvement, feedback.remaining, cost, spent, budget, utilities, epochs
        )
        stop = stops(gains, utilities, seen.any())
    decision = Decision(
        jnp.argmax(values),
        recommend(posterior, seen),
        jnp.isfinite(posterior.variance).all(),
        Prediction(posterior, noise, state.outcome),
        stop,
    )
    after = replace(state, target=target, observed=seen, best=best, spent=spent, key=key)
    return after, decision


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
    costs = [expected_cost(problem.sources) for problem in problems]
    cost = jnp.asarray(np.stack(costs), grids.scores.dtype)
    return Prepared(Learned(prior, outcome, problems[0].budget, cost), diagnostics)


@cache
def task_regression(name: str = RULES["task_regression"], **options: Any) -> Pure:
    """The tuner with an acquisition function by its name; the same for the same arguments.

    Args:
        options: of the function, and of `step`.

    Raises:
        ValueError: there is no such function or option.
    """
    check_choice("acquisition", name, ACQUISITIONS)
    function, own = ACQUISITIONS[name], ("by_cost", "utilities")
    of_rule = {option: value for option, value in options.items() if option not in own}
    for option in of_rule:
        check_choice(f"option of {name}", option, options_of(function))
    of_step = {option: value for option, value in options.items() if option in own}
    rule = partial(function, **of_rule) if of_rule else function
    return Pure(init, partial(step, acquisition=rule, **of_step), prepare)


RECORD = Record(
    name="task_regression",
    label="task regression",
    source="this library",
    make=lambda acquisition=None: task_regression(**(acquisition or {})),
    settings=("acquisition",),
)

RECORDS = [
    Record(
        name=f"task_regression_{rule}",
        label=f"task regression, {rule.replace('_', ' ')}",
        source="this library; its decision rule: "
        + " ".join((ACQUISITIONS[rule].__doc__ or "").rpartition("Source: ")[2].split()),
        make=lambda rule=rule: task_regression(rule),
    )
    for rule in ("ucb", "log_ei_remaining", "thompson", "top_two", "kg")
]
RECORDS += [
    Record(
        name="task_regression_by_cost",
        label="task regression per cost",
        source="this library; Snoek, Larochelle, Adams (2012), section 3.2",
        make=lambda: task_regression(by_cost=True),
    ),
    Record(
        name="task_regression_stopping",
        label="task regression, stops",
        source="this library; Lee et al. (2025), Cost-Sensitive Freeze-Thaw Bayesian Optimization",
        make=lambda: task_regression(utilities=UTILITIES),
    ),
]
