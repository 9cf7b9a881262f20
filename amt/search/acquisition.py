r"""Acquisition functions: which configuration to train for one more epoch.

Each takes the target's posterior marginals on the grid, the epochs still to be trained, and the
incumbent, and gives one value for each configuration, to be maximised; configurations without
a remaining epoch have -inf. All have the same signature, are pure, and pass through jit and vmap.

```python
acquisition = functools.partial(upper_confidence_bound, beta=0.25)
values = acquisition(posterior, remaining, incumbent)
```
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Bool, Float

from amt.gp.observations import TargetPosterior

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

Values = Float[Array, "config"]
Acquisition = Callable[
    [TargetPosterior, Bool[Array, "config epoch"], Float[Array, ""]], Float[Array, "config"]
]


def upper_confidence_bound(
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    incumbent: Float[Array, ""],
    *,
    beta: float = 0.25,
) -> Values:
    r"""\(\max_e \mu(c, e) + \beta\, \sigma(c, e)\) over the remaining epochs e of c.

    Source: Xiao, Xing, Neiswanger (2021), section 4.4, with beta 0.25; Srinivas, Krause, Kakade,
    Seeger (2010).
    """
    del incumbent
    bound = posterior.mean + beta * jnp.sqrt(posterior.variance)
    return jnp.max(jnp.where(remaining, bound, -jnp.inf), axis=1)


def log_expected_improvement(
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    incumbent: Float[Array, ""],
) -> Values:
    r"""\(\log E[\max(f(c, e) - f^\dagger, 0)]\) at the last remaining epoch e of c.

    \(= \log \sigma + \log h(z)\), \(h(z) = \phi(z) + z \Phi(z)\),
    \(z = (\mu - f^\dagger) / \sigma\), computed without underflow for configurations far below
    the incumbent \(f^\dagger\).

    Source: Ament, Daulton, Eriksson, Balandat, Bakshy (2023), equation 9.
    """
    last = remaining.shape[1] - 1 - jnp.argmax(remaining[:, ::-1], axis=1)
    at_last = jnp.arange(remaining.shape[0]), last
    value = _log_improvement(posterior.mean[at_last], posterior.variance[at_last], incumbent)
    return jnp.where(remaining.any(1), value, -jnp.inf)


def expected_improvement(
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    incumbent: Float[Array, ""],
) -> Values:
    r"""\(E[\max(f(c, e) - f^\dagger, 0)]\) at the last remaining epoch e of c.

    The exponential of `log_expected_improvement`: 0 where that underflows.

    Source: Jones, Schonlau, Welch (1998), equation 15.
    """
    value = log_expected_improvement(posterior, remaining, incumbent)
    return jnp.where(remaining.any(1), jnp.exp(value), -jnp.inf)


def expected_lead(
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    incumbent: Float[Array, ""],
) -> Values:
    r"""\(\log E[\max(f(c, e_c) - \max_{c' \ne c} \mu(c', e_{c'}), 0)]\), e_c of the largest mean.

    How far c is expected to be ahead of the best of the others: improvement is over what is
    expected of them, not over scores observed, as a configuration that was trained for a few epochs
    is worth what it will reach. The leader is compared with the second. Of a mixture, it is that of
    the normal marginals with its mean and variance.

    Source: Jones, Schonlau, Welch (1998), equation 15, with the posterior mean as in Frazier,
    Powell, Dayanik (2009), The Knowledge-Gradient Policy for Correlated Normal Beliefs.
    """
    del incumbent
    posterior = posterior.matched()
    at = jnp.arange(len(remaining)), jnp.argmax(posterior.mean, axis=1)
    mean = posterior.mean[at]
    second, first = jnp.sort(jnp.append(mean, -jnp.inf))[-2:]
    # One configuration alone leads whatever it scores.
    other = jnp.where(mean == first, jnp.where(jnp.isfinite(second), second, mean), first)
    value = _log_improvement(mean, posterior.variance[at], other)
    return jnp.where(remaining.any(1), value, -jnp.inf)


def _log_improvement(
    mean: Values, variance: Values, threshold: Float[Array, "*config"]
) -> Float[Array, "config"]:
    r"""\(\log E[\max(f - \theta, 0)]\) of normal f over the threshold \(\theta\).

    Finite: that nothing is left to train is worse than any value.
    """
    deviation = jnp.sqrt(jnp.maximum(variance, jnp.finfo(variance.dtype).tiny))
    z = (mean - threshold) / deviation
    return jnp.maximum(jnp.log(deviation) + _log_h(z), jnp.finfo(z.dtype).min)


def _log_h(z: Float[Array, "config"]) -> Float[Array, "config"]:
    r"""\(\log(\phi(z) + z \Phi(z))\), each part of the line by the formula that is accurate there.

    Each is given a harmless value elsewhere, so that gradients are finite. The limit between the
    two below -1 balances their errors, at 2e-9 relative in float64 and 3e-4 in float32.
    """
    is_near, is_far = z > -1, z < -((210 / jnp.finfo(z.dtype).eps) ** 0.1)
    near = _log_h_near(jnp.where(is_near, z, 0))
    middle = _log_mills_tail(jnp.where(is_near | is_far, -1.0, z))
    far = _log_mills_tail_far(jnp.where(is_far, z, -100.0))
    return jnp.where(is_near, near, _log_density(z) + jnp.where(is_far, far, middle))


def _log_density(z: Float[Array, "config"]) -> Float[Array, "config"]:
    r"""\(\log \phi(z)\)"""
    return -0.5 * jnp.square(z) - HALF_LOG_2PI


def _log_h_near(z: Float[Array, "config"]) -> Float[Array, "config"]:
    r"""\(\log(\phi(z) + z \Phi(z))\) as it stands, for z > -1."""
    return jnp.log(jnp.exp(_log_density(z)) + z * jax.scipy.stats.norm.cdf(z))


def _log_mills_tail(z: Float[Array, "config"]) -> Float[Array, "config"]:
    r"""\(\log(1 - |z|\, R)\) for negative z, with the Mills ratio \(R = \Phi(z) / \phi(z)\).

    It cancels far below 0.
    """
    log_ratio = log_ndtr(z, series_order=8) + 0.5 * jnp.square(z) + HALF_LOG_2PI + jnp.log(-z)
    return jnp.log(-jnp.expm1(log_ratio))


def _log_mills_tail_far(z: Float[Array, "config"]) -> Float[Array, "config"]:
    r"""`_log_mills_tail` by \(1 - |z| R = z^{-2} (1 - 3 z^{-2} + 15 z^{-4} - O(z^{-6}))\)."""
    inverse = 1 / jnp.square(z)
    return jnp.log(inverse) + jnp.log1p(-3 * inverse + 15 * jnp.square(inverse))


OF_MIXTURES: tuple[Acquisition, ...] = (expected_lead,)
"""Functions that take the posterior of a mixture whole; others are averaged over its components."""

RULES = {"task_regression": "lead", "multi_task": "ucb"}
"""The acquisition function of each model that is used by default."""

ACQUISITIONS: dict[str, Acquisition] = {
    "ucb": upper_confidence_bound,
    "ei": expected_improvement,
    "log_ei": log_expected_improvement,
    "lead": expected_lead,
}


def get_acquisition(acquisition: Acquisition | str) -> Acquisition:
    """The acquisition function of a name in `ACQUISITIONS`; a function stays as it is.

    Raises:
        KeyError: there is none of that name; the message lists those there are.
    """
    if not isinstance(acquisition, str):
        return acquisition
    if acquisition not in ACQUISITIONS:
        raise KeyError(
            f"no acquisition function {acquisition!r}; there are {', '.join(ACQUISITIONS)}"
        )
    return ACQUISITIONS[acquisition]
