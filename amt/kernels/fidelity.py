"""Kernels between fidelities: epochs as a share of all epochs, in (0, 1]."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints
from tinygp.kernels import Kernel

from amt.parameters import parameter


class FidelityKernel(Kernel):
    """A kernel between epochs, of a Gram matrix with quickly falling eigenvalues.

    `numerical_rank`, which every class states, is the number of largest eigenvalues, or dimensions
    of a curve, that exact inference from incomplete curves keeps. Those behind may add up to no
    more than a small part of the noise. Eigenvalues of analytic kernels fall geometrically: on
    HyperRec, with 75 epochs, those behind the eighth ("at2") or tenth ("freeze_thaw") change a
    gradient by less than 1e-6 of its norm. Behind the 24th of "matern" there is 1e-3 of the noise.
    A larger number is more exact and takes longer; that of epochs is always enough.
    """

    numerical_rank: ClassVar[int]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        rank = getattr(cls, "numerical_rank", None)
        if not isinstance(rank, int) or rank < 1:
            raise TypeError(
                f"{cls.__name__} states no numerical_rank, the number of eigenvalues of its Gram "
                "matrix that count: write `numerical_rank = 24` in its body (24 is "
                "enough for a Matern kernel, 10 for most smooth ones)"
            )


def _decay(z: Float[Array, ""], a: Float[Array, ""], b: Float[Array, ""]) -> Float[Array, ""]:
    r"""\((b / (z + b))^a = \int_0^\infty e^{-\lambda z} \mathrm{Gamma}(\lambda; a, b) d\lambda\)"""
    return jnp.exp(-a * jnp.log1p(z / b))


class FreezeThaw(FidelityKernel):
    r"""Mixture of exponential decays with Gamma(a, b) rates.

    \[ k(e, e') = \int_0^\infty e^{-\lambda (e + e')} \mathrm{Gamma}(\lambda; a, b)
       \, \mathrm d\lambda = \Big(\frac{b}{e + e' + b}\Big)^a \]

    Source: Swersky, Snoek, Adams (2014), equation 6.
    """

    numerical_rank: ClassVar[int] = 10
    a: Float[Array, ""] = parameter(constraints.positive, prior=dist.Normal(0.0, 1.0))
    b: Float[Array, ""] = parameter(constraints.positive, prior=dist.Normal(0.0, 1.0))

    @classmethod
    def init(cls, key: PRNGKeyArray, dtype: jnp.dtype) -> "FreezeThaw":
        """Starts at a = b = log 2 (the reference's start for AT2), varied by the key."""
        a, b = jnp.log(2.0) * jnp.exp(0.3 * jax.random.normal(key, (2,), dtype))
        return cls(a=a, b=b)

    def evaluate(self, X1: Float[Array, ""], X2: Float[Array, ""]) -> Float[Array, ""]:
        return _decay(X1 + X2, self.a, self.b)


class AT2Fidelity(FidelityKernel):
    r"""Accelerating decay: curves that leave a common start and settle at different levels.

    \[ k(e, e') = s \big(1 + F(e + e') - F(e) - F(e')\big), \qquad F(z) = (b / (z + b))^a \]

    the covariance of \(1 - e^{-\lambda e}\) under \(\lambda \sim \mathrm{Gamma}(a, b)\): 0 at
    e = 0, rising towards s.

    Source: Xiao, Xing, Neiswanger (2021), section 4.3.
    """

    numerical_rank: ClassVar[int] = 8
    a: Float[Array, ""] = parameter(constraints.positive, prior=dist.Normal(0.0, 1.0))
    b: Float[Array, ""] = parameter(constraints.positive, prior=dist.Normal(0.0, 1.0))
    scale: Float[Array, ""] = parameter(
        constraints.positive, prior=dist.Normal(0.0, 3.0), role="scale"
    )

    @classmethod
    def init(cls, key: PRNGKeyArray, dtype: jnp.dtype) -> "AT2Fidelity":
        """Starts at a = b = s = log 2 (the reference's start), a and b varied by the key."""
        a, b = jnp.log(2.0) * jnp.exp(0.3 * jax.random.normal(key, (2,), dtype))
        return cls(a=a, b=b, scale=jnp.full((), jnp.log(2.0), dtype))

    def evaluate(self, X1: Float[Array, ""], X2: Float[Array, ""]) -> Float[Array, ""]:
        together = _decay(X1 + X2, self.a, self.b)
        apart = _decay(X1, self.a, self.b) + _decay(X2, self.a, self.b)
        return self.scale * (1 + together - apart)


class Fabolas(FidelityKernel):
    r"""Two basis functions: a level, and what is lost to early stopping.

    \[ k(e, e') = \phi(e)^\top S\, \phi(e'), \quad \phi(e) = (1, (1 - e)^2)^\top, \quad
       S = L L^\top, \quad L = \begin{pmatrix} 1 & 0 \\ a & b \end{pmatrix} \]

    L has the first entry 1, and so \(k(1, 1) = 1\): the kernel's scale is that of the task kernel.
    b > 0; for a < 0, what is good at the end starts lower. The Gram matrix has rank 2.

    Source: Klein, Falkner, Bartels, Hennig, Hutter (2017), Fabolas.
    """

    numerical_rank: ClassVar[int] = 2
    a: Float[Array, ""] = parameter(constraints.real, prior=dist.Normal(0.0, 1.0))
    b: Float[Array, ""] = parameter(constraints.positive, prior=dist.Normal(0.0, 1.0))

    @classmethod
    def init(cls, key: PRNGKeyArray, dtype: jnp.dtype) -> "Fabolas":
        """Starts near a = 0 and b = 1/2, varied by the key."""
        a, b = 0.3 * jax.random.normal(key, (2,), dtype)
        return cls(a=a, b=jnp.exp(b) / 2)

    def evaluate(self, X1: Float[Array, ""], X2: Float[Array, ""]) -> Float[Array, ""]:
        lost, lost_too = jnp.square(1 - X1), jnp.square(1 - X2)
        level = (1 + self.a * lost) * (1 + self.a * lost_too)
        return level + jnp.square(self.b) * lost * lost_too


class LogMatern(FidelityKernel):
    r"""Matern-5/2 on the logarithm of epochs: the first epochs change most.

    \[ k(e, e') = (1 + r + \tfrac13 r^2) e^{-r}, \qquad r = \sqrt5 |\log e - \log e'| / \ell \]

    Epochs below 1e-6 of the last count as that. The variance is 1.

    Source: Rasmussen and Williams (2006), equation 4.17.
    """

    numerical_rank: ClassVar[int] = 24
    lengthscale: Float[Array, ""] = parameter(
        constraints.positive,
        prior=dist.Normal(0.7, 1.0),  # around 2
    )

    @classmethod
    def init(cls, key: PRNGKeyArray, dtype: jnp.dtype) -> "LogMatern":
        """Starts at a lengthscale of 2, varied by the key."""
        return cls(lengthscale=2 * jnp.exp(0.3 * jax.random.normal(key, (), dtype)))

    def evaluate(self, X1: Float[Array, ""], X2: Float[Array, ""]) -> Float[Array, ""]:
        first, second = (jnp.log(jnp.maximum(x, 1e-6)) for x in (X1, X2))
        r = jnp.sqrt(5.0) * jnp.abs(first - second) / self.lengthscale
        return (1 + r + jnp.square(r) / 3) * jnp.exp(-r)
