"""Kernels between fidelities: epochs as a share of all epochs, in (0, 1]."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints
from tinygp.kernels import Kernel

from amt.parameters import parameter


def _decay(z: Float[Array, ""], a: Float[Array, ""], b: Float[Array, ""]) -> Float[Array, ""]:
    r"""\((b / (z + b))^a = \int_0^\infty e^{-\lambda z} \mathrm{Gamma}(\lambda; a, b) d\lambda\)"""
    return jnp.exp(-a * jnp.log1p(z / b))


class FreezeThaw(Kernel):
    r"""Mixture of exponential decays with Gamma(a, b) rates.

    \[ k(e, e') = \int_0^\infty e^{-\lambda (e + e')} \mathrm{Gamma}(\lambda; a, b)
       \, \mathrm d\lambda = \Big(\frac{b}{e + e' + b}\Big)^a \]

    Source: Swersky, Snoek, Adams (2014), equation 6.
    """

    a: Float[Array, ""] = parameter(constraints.positive)
    b: Float[Array, ""] = parameter(constraints.positive)

    @classmethod
    def init(cls, key: PRNGKeyArray, dtype: jnp.dtype) -> "FreezeThaw":
        """Starts at a = b = log 2 (the reference's start for AT2), varied by the key."""
        a, b = jnp.log(2.0) * jnp.exp(0.3 * jax.random.normal(key, (2,), dtype))
        return cls(a=a, b=b)

    def evaluate(self, X1: Float[Array, ""], X2: Float[Array, ""]) -> Float[Array, ""]:
        return _decay(X1 + X2, self.a, self.b)


class AT2Fidelity(Kernel):
    r"""Accelerating decay: curves that leave a common start and settle at different levels.

    \[ k(e, e') = s \big(1 + F(e + e') - F(e) - F(e')\big), \qquad F(z) = (b / (z + b))^a \]

    the covariance of \(1 - e^{-\lambda e}\) under \(\lambda \sim \mathrm{Gamma}(a, b)\): 0 at
    e = 0, rising towards s.

    Source: Xiao, Xing, Neiswanger (2021), section 4.3.
    """

    a: Float[Array, ""] = parameter(constraints.positive)
    b: Float[Array, ""] = parameter(constraints.positive)
    scale: Float[Array, ""] = parameter(constraints.positive)

    @classmethod
    def init(cls, key: PRNGKeyArray, dtype: jnp.dtype) -> "AT2Fidelity":
        """Starts at a = b = s = log 2 (the reference's start), a and b varied by the key."""
        a, b = jnp.log(2.0) * jnp.exp(0.3 * jax.random.normal(key, (2,), dtype))
        return cls(a=a, b=b, scale=jnp.full((), jnp.log(2.0), dtype))

    def evaluate(self, X1: Float[Array, ""], X2: Float[Array, ""]) -> Float[Array, ""]:
        together = _decay(X1 + X2, self.a, self.b)
        apart = _decay(X1, self.a, self.b) + _decay(X2, self.a, self.b)
        return self.scale * (1 + together - apart)
