r"""Acquisition values per unit of cost.

A gain g of a configuration, trained for its next epoch at the cost k, counts as \(g / k\), and its
logarithm as \(\log g - \log k\). Values that are scores count by what they are ahead of the largest
posterior mean, \(a = v - \max \mu\): as \(a / k\), or \(a k\) where they are behind it. So with
equal costs every rule is what it is without.

Source: Snoek, Larochelle, Adams (2012), Practical Bayesian Optimization of Machine Learning
Algorithms, section 3.2.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from amt.curves import LearningCurves
from amt.search.acquisition import GAINS, LOGARITHMS, Acquisition, Values, function_of


def per_cost(
    acquisition: Acquisition,
    values: Values,
    best_mean: Float[Array, ""],
    cost: Float[Array, "config epoch"],
    remaining: Bool[Array, "config epoch"],
) -> Values:
    """The values of an acquisition function per unit of the next epoch's cost.

    Args:
        best_mean: the largest posterior mean.
        cost: of each epoch by itself, positive.
    """
    price = cost[jnp.arange(len(cost)), jnp.argmax(remaining, axis=1)]
    function = function_of(acquisition)
    if function in LOGARITHMS:
        each = jnp.maximum(values - jnp.log(price), jnp.finfo(values.dtype).min)
    elif function in GAINS:
        each = values / price
    else:
        ahead = values - best_mean
        each = jnp.where(ahead > 0, ahead / price, ahead * price)
    return jnp.where(remaining.any(1), each, -jnp.inf)


def expected_cost(curves: LearningCurves) -> Float[np.ndarray, "config epoch"]:
    """The cost of each epoch of a new task by itself, in units of its mean epoch's.

    That of the sources, each in units of its own mean, averaged over those that know it. An epoch
    that none knows costs as much as the mean one; so do all where costs are not known. Between
    epochs of a grid that leaves some out, it is of all epochs up to the next one of the grid.
    """
    epochs = np.diff(curves.epochs, prepend=0).astype(float)
    length = np.broadcast_to(epochs, curves.scores.shape[1:])
    if curves.cost is None:
        return length.copy()
    known = np.isfinite(curves.cost)
    cost = np.where(known, curves.cost, 0.0)
    mean = cost.sum((1, 2)) / np.maximum((known * length).sum((1, 2)), 1e-300)
    relative = cost / np.where(mean > 0, mean, 1.0)[:, None, None]
    count = known.sum(0)
    average = relative.sum(0) / np.maximum(count, 1)
    # What costs nothing would be infinitely good.
    return np.where((count > 0) & (average > 0), average, length)
