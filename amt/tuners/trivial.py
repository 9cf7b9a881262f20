r"""What needs no model: random search, the best of the sources, one epoch of everything.

A tuner that does not beat these has learned nothing. Each trains epochs in an order that is fixed
before the first query: cell (c, e) of the target's grid has a priority, and the cells are trained
by increasing priority,

\[ \text{curve by curve: } \pi(c)\, E + e, \qquad \text{epoch by epoch: } e\, C + \pi(c), \]

where \(\pi\) is an order of the configurations, drawn from the key or by merit on the sources.
A missing score ends its configuration's curve, as in `amt.search.simulate`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from amt.search.simulate import Trajectory


def random_search(
    key: PRNGKeyArray,
    sources: Float[Array, "task config epoch"],
    target: Float[Array, "config epoch"],
    *,
    budget: int,
) -> Trajectory:
    """Train uniformly random configurations, each to its last epoch; recommend the best observed.

    Without replacement.
    """
    del sources
    place = jax.random.permutation(key, target.shape[0])
    epochs = jnp.arange(target.shape[1])
    return _with_best_observed(_train_by(place[:, None] * target.shape[1] + epochs, target, budget))


def one_epoch_each(
    key: PRNGKeyArray,
    sources: Float[Array, "task config epoch"],
    target: Float[Array, "config epoch"],
    *,
    budget: int,
) -> Trajectory:
    """Train every configuration for one epoch, in random order; recommend the best observed.

    With budget left, train every configuration for a second epoch, and so on.
    """
    del sources
    place = jax.random.permutation(key, target.shape[0])
    epochs = jnp.arange(target.shape[1])
    return _with_best_observed(_train_by(epochs * target.shape[0] + place[:, None], target, budget))


def source_best(
    key: PRNGKeyArray,
    sources: Float[Array, "task config epoch"],
    target: Float[Array, "config epoch"],
    *,
    budget: int,
) -> Trajectory:
    """Recommend the configuration that is best on the sources, whatever is observed.

    Best is the largest mean over the sources of the z-score of its final value among all
    configurations. Epochs are spent on training this configuration, then the next best.
    """
    del key
    final = sources[:, :, -1]
    deviation = jnp.nanstd(final, axis=1, keepdims=True)
    scale = jnp.where(deviation > 0, deviation, 1)
    merit = jnp.nanmean((final - jnp.nanmean(final, axis=1, keepdims=True)) / scale, axis=0)
    order = jnp.argsort(-merit)
    place = jnp.argsort(order)
    epochs = jnp.arange(target.shape[1])
    trajectory = _train_by(place[:, None] * target.shape[1] + epochs, target, budget)
    return trajectory._replace(recommended=jnp.full_like(trajectory.recommended, order[0]))


def _train_by(
    priority: Int[Array, "config epoch"], target: Float[Array, "config epoch"], budget: int
) -> Trajectory:
    """Train in order of increasing priority. `recommended` is the configuration trained.

    With nothing left to train, the score is NaN.
    """
    reachable = jnp.cumprod(jnp.isfinite(target), axis=1).astype(bool)
    order = jnp.argsort(jnp.where(reachable, priority, target.size).ravel())
    query = jnp.arange(budget)
    cell = order[jnp.minimum(query, target.size - 1)]
    config, epoch = jnp.divmod(cell, target.shape[1])
    left = query < reachable.sum()
    score = jnp.where(left, target[config, epoch], jnp.nan)
    return Trajectory(config, epoch, score, config)


def _with_best_observed(trajectory: Trajectory) -> Trajectory:
    """Recommending, after each query, the configuration of the largest score so far."""
    score = jnp.where(jnp.isnan(trajectory.score), -jnp.inf, trajectory.score)
    so_far = jnp.tri(score.size, dtype=bool)
    best = jnp.argmax(jnp.where(so_far, score, -jnp.inf), axis=1)
    return trajectory._replace(recommended=trajectory.config[best])
