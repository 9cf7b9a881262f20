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


class Fabolas(Kernel):
    r"""Two basis functions: a level, and what is lost to early stopping.

    \[ k(e, e') = \phi(e)^\top S\, \phi(e'), \quad \phi(e) = (1, (1 - e)^2)^\top, \quad
       S = L L^\top, \quad L = \begin{pmatrix} 1 & 0 \\ a & b \end{pmatrix} \]

    L has the first entry 1, and so \(k(1, 1) = 1\): the kernel's scale is that of the task kernel.
    b > 0; for a < 0, what is good at the end starts lower. The Gram matrix has rank 2.

    Source: Klein, Falkner, Bartels, Hennig, Hutter (2017), Fabolas.
    """

    a: Float[Array, ""] = parameter()
    b: Float[Array, ""] = parameter(constraints.positive)

    @classmethod
    def init(cls, key: PRNGKeyArray, dtype: jnp.dtype) -> "Fabolas":
        """Starts near a = 0 and b = 1/2, varied by the key."""
        a, b = 0.3 * jax.random.normal(key, (2,), dtype)
        return cls(a=a, b=jnp.exp(b) / 2)

    def evaluate(self, X1: Float[Array, ""], X2: Float[Array, ""]) -> Float[Array, ""]:
        lost, lost_too = jnp.square(1 - X1), jnp.square(1 - X2)
        level = (1 + self.a * lost) * (1 + self.a * lost_too)
        return level + jnp.square(self.b) * lost * lost_too


class LogMatern(Kernel):
    r"""Matern-5/2 on the logarithm of epochs: the first epochs change most.

    \[ k(e, e') = (1 + r + \tfrac13 r^2) e^{-r}, \qquad r = \sqrt5 |\log e - \log e'| / \ell \]

    Epochs below 1e-6 of the last count as that. The variance is 1.

    Source: Rasmussen and Williams (2006), equation 4.17.
    """

    lengthscale: Float[Array, ""] = parameter(constraints.positive)

    @classmethod
    def init(cls, key: PRNGKeyArray, dtype: jnp.dtype) -> "LogMatern":
        """Starts at a lengthscale of 2, varied by the key."""
        return cls(lengthscale=2 * jnp.exp(0.3 * jax.random.normal(key, (), dtype)))

    def evaluate(self, X1: Float[Array, ""], X2: Float[Array, ""]) -> Float[Array, ""]:
        first, second = (jnp.log(jnp.maximum(x, 1e-6)) for x in (X1, X2))
        r = jnp.sqrt(5.0) * jnp.abs(first - second) / self.lengthscale
        return (1 + r + jnp.square(r) / 3) * jnp.exp(-r)
