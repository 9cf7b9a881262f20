"""Learning a task regression from source tasks, by the likelihood of each given the others."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from amt.gp.grid import CurveGrid
from amt.gp.task_regression.model import TaskRegression
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

    Args:
        starts: models stacked along a leading axis, one entry a restart.
        grid: complete curves.
        epochs: number of epochs that are looked at, spread evenly on a logarithmic axis: neighbours
            say nearly the same, and late ones would outweigh the few early ones that a tuner sees.
        optimizer, steps, learning_rate: as of `amt.inference.mle.fit_mle`.
    """
    some = thinned(len(grid.epochs), epochs)
    grid = CurveGrid(grid.scores[:, :, some], grid.features, grid.epochs[some])

    def log_posterior(model: TaskRegression):
        return jnp.sum(model.log_likelihood(grid)) + log_prior(model)

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
