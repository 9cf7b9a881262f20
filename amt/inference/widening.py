r"""How much wider a target's intervals are than its components say, learned from the sources.

A search trains the configurations that the sources name best. What it sees of them says little of
how far apart the others are on the target, and the components that predict it closely are sure of
more than that, which forecasts should not be. Sources are targets of which everything is known.
With \(F_{tc}(\cdot\,; a)\) the predictive distribution of the last score of configuration c of
source t, given the other sources and n scores of t, and with all standard deviations of noise-free
scores times a, the factor after n scores is

\[ a_n = \min \{ a \ge 1 : \mathrm{mean}_{tc}\, 1[\,|F_{tc}(y_{tc}; a) - 1/2| \le 0.45\,]
   \ge 0.9 \}, \]

over all configurations that none of the n scores is of. These scores are of the \(\sqrt n\)
configurations that the other sources name best, after their first \(\sqrt n\) epochs.

Source: Vovk (2015), Cross-conformal predictors, with a task for a fold; Lei et al. (2018),
Distribution-Free Predictive Inference for Regression, section 5.2, for intervals that are scaled.
"""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int

from amt.gp.grid import CurveGrid
from amt.gp.observations import Observations
from amt.gp.task_regression.model import TaskRegression
from amt.gp.task_regression.widening import COUNTS, no_widening

LEVEL = 0.9
MOST_TASKS = 32  # that are left out
FACTORS = np.geomspace(1.0, 4.0, 33)


def learn_widening(model: TaskRegression, grid: CurveGrid) -> Float[Array, "count"]:
    """The factors of the module docstring after each number of scores of `COUNTS`.

    At most `MOST_TASKS` sources are left out, spread evenly. 1 where there are no others to predict
    a source from, or none but the configurations that scores are of.

    Args:
        grid: complete curves, or ones filled in: a last score that was filled in does not count.
    """
    tasks, configs, epochs = grid.scores.shape
    dtype = grid.scores.dtype
    if tasks < 2:
        return no_widening(dtype)
    left_out = np.unique(np.linspace(0, tasks - 1, MOST_TASKS).round().astype(int))
    others = np.array([np.delete(np.arange(tasks), task) for task in left_out])
    trained, factors = _trained(configs, epochs), jnp.asarray(FACTORS, dtype)

    def of_task(split: tuple[Int[Array, ""], Int[Array, "other"]]) -> tuple[Array, Array]:
        task, rest = split
        scores, variance = grid.scores, grid.variance
        given = None if variance is None else variance[rest]
        prior = model.target_prior(replace(grid, scores=scores[rest], variance=given))
        known = jnp.ones(configs, bool) if variance is None else variance[task, :, -1] == 0
        best = jnp.argsort(-prior.mean[:, -1])
        last = jnp.asarray([epochs - 1])

        def after(trained: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            rank, epoch, count = trained
            config = best[rank]
            at = Observations(config, epoch, scores[task, config, epoch], count)
            posterior = prior.condition(at, epochs=last)
            variance = jnp.square(factors)[:, None] * posterior.variance[:, None, :, 0]
            deviation = jnp.sqrt(variance + prior.noises()[:, -1][:, None, None])
            mean = posterior.mean[:, None, :, 0]
            below = posterior.average(norm.cdf(scores[task, :, -1], mean, deviation))
            counted = known.at[config].set(False)
            inside = counted & (jnp.abs(below - 0.5) <= LEVEL / 2)
            return jnp.sum(inside, 1), jnp.sum(counted)

        return jax.lax.map(after, trained)

    inside, counted = jax.lax.map(of_task, (jnp.asarray(left_out), jnp.asarray(others)))
    inside, counted = jnp.sum(inside, 0), jnp.sum(counted, 0)[:, None]
    enough = (inside >= LEVEL * counted).at[:, -1].set(True)
    found = factors[jnp.argmax(enough, 1)]
    return jnp.where(counted[:, 0] > 0, found, 1)


def _trained(
    configs: int, epochs: int
) -> tuple[Int[np.ndarray, "count obs"], Int[np.ndarray, "count obs"], Int[np.ndarray, "count"]]:
    """Rank and epoch of the scores for each number of `COUNTS`, and how many of these there are."""
    rank, epoch = np.zeros((2, len(COUNTS), max(COUNTS)), int)
    sizes = []
    for row, count in enumerate(COUNTS):
        side = math.isqrt(count)
        grid = np.indices((min(side, configs), min(side, epochs))).reshape(2, -1)
        sizes.append(grid.shape[1])
        rank[row, : sizes[-1]], epoch[row, : sizes[-1]] = grid
    return rank, epoch, np.array(sizes)
