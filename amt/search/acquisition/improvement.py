"""Expected improvement of the score at the last epoch, and its logarithm."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Bool, Float

from amt.gp.observations import TargetPosterior
from amt.search.acquisition.base import Values

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def log_expected_improvement(
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    incumbent: Float[Array, ""],
) -> Values:
    r"""\(\log E[\max(f(c, e) - f^\dagger, 0)]\) at the last remaining epoch e of c.

    \(= \log \sigma + \log h(z)\), \(h(z) = \phi(z) + z \Phi(z)\),
    \(z = (\mu - f^\dagger) / \sigma\), computed without underflow for configurations far below
    the incumbent \(f^\dagger\).

    ```python
    tuner = amt.Tuner(sources, 0, acquisition="log_ei")
    ```

    Source: Ament, Daulton, Eriksson, Balandat, Bakshy (2023), equation 9.
    """
    last = remaining.shape[1] - 1 - jnp.argmax(remaining[:, ::-1], axis=1)
    at_last = jnp.arange(remaining.shape[0]), last
    value = log_improvement(posterior.mean[at_last], posterior.variance[at_last], incumbent)
    return jnp.where(remaining.any(1), value, -jnp.inf)


def expected_improvement(
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    incumbent: Float[Array, ""],
) -> Values:
    r"""\(E[\max(f(c, e) - f^\dagger, 0)]\) at the last remaining epoch e of c.

    The exponential of `log_expected_improvement`: 0 where that underflows.

    ```python
    tuner = amt.Tuner(sources, 0, acquisition="ei")
    ```

    Source: Jones, Schonlau, Welch (1998), equation 15.
    """
    value = log_expected_improvement(posterior, remaining, incumbent)
    return jnp.where(remaining.any(1), jnp.exp(value), -jnp.inf)


def log_improvement(
    mean: Values, variance: Values, threshold: Float[Array, "*config"]
) -> Float[Array, "config"]:
    r"""\(\log E[\max(f - \theta, 0)]\) of normal f over the threshold \(\theta\).

    Finite: that nothing is left to train is worse than any value.
    """
    deviation = jnp.sqrt(jnp.maximum(variance, jnp.finfo(variance.dtype).tiny))
    z = (mean - threshold) / deviation
    return jnp.maximum(jnp.log(deviation) + log_h(z), jnp.finfo(z.dtype).min)


def log_h(z: Float[Array, "config"]) -> Float[Array, "config"]:
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
