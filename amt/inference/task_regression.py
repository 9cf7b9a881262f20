"""Learning a task regression from source tasks, by the likelihood of each given the others."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from amt.gp.grid import CurveGrid, thinned
from amt.gp.task_regression.model import CommonScale, TaskRegression
from amt.gp.task_regression.posterior import TaskRegressionPosterior
from amt.inference.mle import Optimizer, maximize
from amt.inference.priors import Priors, log_prior
from amt.inference.widening import learn_widening


class TaskRegressionFit(NamedTuple):
    """A fitted task regression and how the optimisation went; attributes as of `Fit`."""

    model: Any
    log_density: Float[Array, "restart step"]
    gradient_norm: Float[Array, "restart step"]
    converged: Bool[Array, "restart"]
    best: Int[Array, ""]

    def diagnostics(self) -> dict[str, float]:
        """Whether the restart that was kept has `converged` (1, else 0); not for `jax.jit`."""
        return {"converged": float(self.converged[self.best])}

    def posterior(self, grid: CurveGrid, rank: int | None = None) -> TaskRegressionPosterior:
        """Condition on the source curves, for any target; `rank` has no meaning here."""
        del rank
        return TaskRegressionPosterior.of(self.model, grid)


def fit_task_regression(
    starts: TaskRegression,
    grid: CurveGrid,
    *,
    epochs: int = 16,
    optimizer: Optimizer = "adam",
    steps: int = 100,
    learning_rate: float = 0.1,
    priors: Priors = "declared",
    mesh: Mesh | None = None,
) -> TaskRegressionFit:
    """Maximise the log density of every source given the others, and the log prior.

    That of the best score of every curve, given how configurations of one task differ, is added
    to it, which says what is known of configurations that no source has. How much wider intervals
    are is learned from the model found (`amt.inference.widening`).

    Args:
        starts: models stacked along a leading axis, one entry a restart.
        grid: complete curves, or ones filled in: a task counts by its share of known scores.
        epochs: number of epochs that are looked at, spread evenly on a logarithmic axis: neighbours
            say nearly the same, and late ones would outweigh the few early ones that a tuner sees.
        optimizer, steps, learning_rate: as of `amt.inference.mle.fit_mle`.
        priors: of the model's parameters.
        mesh: devices that the tasks are spread over, under `jax.jit`, any number of tasks, such as
            `jax.make_mesh((4,), ("task",))`; by default one device computes all.
    """
    some = thinned(len(grid.epochs), epochs)
    best = jnp.max(CommonScale.of(grid.scores).curves, 2)
    known = 1.0 if grid.variance is None else jnp.mean(grid.variance == 0, (1, 2))
    variance = None if grid.variance is None else grid.variance[:, :, some]
    scores, at = grid.scores[:, :, some], grid.epochs[some]
    grid = CurveGrid(scores, grid.features, at, variance=variance)

    def log_posterior(model: TaskRegression):
        surface = model.surface.log_likelihood(best, grid.features)
        densities = model.log_likelihood(grid, mesh) + surface
        return jnp.sum(known * densities) + log_prior(model, priors)

    found = maximize(
        log_posterior,
        starts,
        grid.scores.size,
        optimizer=optimizer,
        steps=steps,
        learning_rate=learning_rate,
    )
    model, *rest = found
    return TaskRegressionFit(replace(model, widening=learn_widening(model, grid)), *rest)
