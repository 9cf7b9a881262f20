"""Learning a task regression from source tasks, by the likelihood of each given the others."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from amt.gp.grid import CurveGrid
from amt.gp.task_regression.model import CommonScale, TaskRegression
from amt.inference.mle import Maximum, Optimizer, maximize
from amt.inference.priors import log_prior


def fit_task_regression(
    starts: TaskRegression,
    grid: CurveGrid,
    *,
    epochs: int = 16,
    optimizer: Optimizer = "adam",
    steps: int = 100,
    learning_rate: float = 0.1,
) -> Maximum:
    """Maximise the log density of every source given the others, and the log prior.

    That of the best score of every curve, given how configurations of one task differ, is added
    to it, which says what is known of configurations that no source has.

    Args:
        starts: models stacked along a leading axis, one entry a restart.
        grid: complete curves.
        epochs: number of epochs that are looked at, spread evenly on a logarithmic axis: neighbours
            say nearly the same, and late ones would outweigh the few early ones that a tuner sees.
        optimizer, steps, learning_rate: as of `amt.inference.mle.fit_mle`.
    """
    some = thinned(len(grid.epochs), epochs)
    best = jnp.max(CommonScale.of(grid.scores).curves, 2)
    grid = CurveGrid(grid.scores[:, :, some], grid.features, grid.epochs[some])

    def log_posterior(model: TaskRegression):
        surface = model.surface.log_likelihood(best, grid.features)
        return jnp.sum(model.log_likelihood(grid)) + jnp.sum(surface) + log_prior(model)

    return maximize(
        log_posterior,
        starts,
        grid.scores.size,
        optimizer=optimizer,
        steps=steps,
        learning_rate=learning_rate,
    )


def thinned(size: int, count: int) -> Int[np.ndarray, "kept"]:
    """At most `count` positions among `size`, evenly on a logarithmic axis, the ends included."""
    if count >= size:
        return np.arange(size)
    return np.unique(np.round(np.geomspace(1, size, count)).astype(int)) - 1
