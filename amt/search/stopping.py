r"""Stopping when going on costs more than it is expected to bring.

The utility of a best score y after spending b of a budget B is \(U(b, y) = y - a (b / B)^c\), with
the weight a of cost and the power c, both the user's. With the best score y so far, the gain that
is expected of going on is that of the best plan which trains one configuration, up to some epoch,

\[ G = \max_{c', e} \; E[\max(y(c', e) - y, 0)]
       - a \left\{ \left(\frac{b + k(c', e)}{B}\right)^c - \left(\frac{b}{B}\right)^c \right\} , \]

over configurations c' and their remaining epochs e, k(c', e) being the cost of all epochs of c'
from its next one up to e, within the budget. The score y(c', e) is one that will be observed, noise
included, and its expectation is that of the exact posterior, weighted over a mixture. Plans that
train several configurations would gain more, so that G is a lower bound. The rule is to stop where
G is not positive. With a = 0 it never does; neither before the first score.

Source: Lee, Zhang, Kim, Park, Adriaensen, Lee, Hwang, Lee (2025), Cost-Sensitive Freeze-Thaw
Bayesian Optimization for Efficient Hyperparameter Tuning, NeurIPS, for the utility; their rule is
another, on the regret of the utility so far.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int

from amt.gp.observations import TargetPosterior
from amt.outcome import Outcome
from amt.search.acquisition.improvement import log_improvement

NODES = 20  # of Gauss-Legendre quadrature
TAIL = 6.0  # standard deviations up to which it goes


class Utility(NamedTuple):
    """A user's utility of score and cost, U of the module docstring.

    ```python
    utility = Utility(weight=2**-5, power=1.0)
    while not tuner.should_stop(utility, budget=100): ...
    ```

    Attributes:
        weight: a, in units of the score: what the whole budget costs.
        power: c; below 1 the first epochs cost most, above 1 the last.
    """

    weight: float
    power: float = 1.0

    def __call__(self, score: Any, share: Any) -> Any:
        """The utility of best scores after shares b / B of the budget, in arrays of one library."""
        return score - self.weight * share**self.power


UTILITIES = (
    Utility(0.0),
    *(Utility(*each) for each in product((2**-6, 2**-5, 2**-4), (0.5, 1.0, 2.0))),
)
"""Those that tuners are compared by, as Lee et al. (2025) do."""


def expected_improvement(
    posterior: TargetPosterior,
    noise: Float[Array, "*component epoch"],
    best: Float[Array, ""],
    outcome: Outcome | None = None,
) -> Float[Array, "config epoch"]:
    r"""\(E[\max(y(c, e) - y, 0)]\) of scores to be observed, over the best one y.

    By a closed form without `outcome`; else with \(y = v(f)\), f normal, by Gauss-Legendre
    quadrature over the part above the best score.

    Args:
        noise: variance of each epoch, of each component.
        best: y; in the metric's units, negated where it is minimised.
        outcome: from the metric to f; it has to compute with JAX arrays.
    """
    variance = posterior.variance + noise[..., None, :]
    if outcome is None:
        each = jnp.exp(log_improvement(posterior.mean, variance, best))
        return posterior.average(each)
    sign = outcome.sign
    deviation = jnp.sqrt(jnp.maximum(variance, jnp.finfo(variance.dtype).tiny))
    start = (outcome.forward(sign * best) - posterior.mean) / deviation
    lower = jnp.clip(start, -TAIL, TAIL)
    half = (jnp.maximum(lower, 0) + TAIL - lower) / 2

    def add(total: Array, node: tuple[Array, Array]) -> tuple[Array, None]:
        at, weight = node
        z = lower + half * (1 + at)
        value = sign * outcome.inverse(posterior.mean + deviation * z)
        return total + weight * jnp.maximum(value - best, 0) * norm.pdf(z), None

    nodes = jax.tree.map(
        lambda a: jnp.asarray(a, variance.dtype), np.polynomial.legendre.leggauss(NODES)
    )
    total, _ = jax.lax.scan(add, jnp.zeros_like(variance), nodes)
    return posterior.average(jnp.where(start < TAIL, half * total, 0))


def expected_gains(
    improvement: Float[Array, "config kept"],
    remaining: Bool[Array, "config epoch"],
    cost: Float[Array, "config epoch"],
    spent: Float[Array, ""],
    budget: Float[Array, ""] | float,
    utilities: Sequence[Utility],
    epochs: Int[Array, "kept"] | slice = slice(None),
) -> Float[Array, "utility"]:
    """G of the module docstring for each utility; -inf where nothing is left within the budget.

    Args:
        improvement: that of `expected_improvement`.
        cost: of each epoch by itself, in units of the budget.
        spent: b.
        epochs: positions of those that plans end at, which `improvement` is of.
    """
    after = (spent + jnp.cumsum(jnp.where(remaining, cost, 0), axis=1))[:, epochs]
    can = remaining[:, epochs] & (after <= budget * (1 + 1e-9))
    before, after = spent / budget, after / budget

    def gain(utility: Utility) -> Float[Array, ""]:
        change = utility(improvement, after) - utility(jnp.zeros(()), before)
        return jnp.max(jnp.where(can, change, -jnp.inf))

    return jnp.stack([gain(utility) for utility in utilities])


def stops(
    gains: Float[Array, "utility"], utilities: Sequence[Utility], observed: Bool[Array, ""] | bool
) -> Bool[Array, "utility"]:
    """Whether to stop, for each utility: G is not positive, a is, and there is a score."""
    weighs = jnp.asarray([utility.weight > 0 for utility in utilities])
    return weighs & (gains <= 0) & observed
