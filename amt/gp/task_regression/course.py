"""Kernel between epochs of the part of a curve that task regression leaves."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from amt.kernels.fidelity import FidelityKernel
from amt.parameters import parameter


class Course(FidelityKernel):
    r"""A level and smooth deviations from it, larger or smaller as training goes on.

    \[ k(e, e') = (e e')^p \big(c + (1 - c)\, m(|\log e - \log e'| / \ell)\big), \qquad
       m(r) = (1 + \sqrt5 r + \tfrac53 r^2) e^{-\sqrt5 r} \]

    \(k(1, 1) = 1\): a share c of the variance is common to all epochs, and the standard deviation
    grows as \(e^p\). Epochs below 1e-6 of the last count as that.
    """

    numerical_rank: ClassVar[int] = 24
    power: Float[Array, ""] = parameter(constraints.real, prior=dist.Normal(0.0, 0.5))
    share: Float[Array, ""] = parameter(constraints.unit_interval, prior=dist.Normal(0.0, 1.5))
    lengthscale: Float[Array, ""] = parameter(constraints.positive, prior=dist.Normal(0.7, 1.0))

    @classmethod
    def init(cls, key: PRNGKeyArray, dtype: jnp.dtype) -> "Course":
        """Starts at p = 0, c = 1/2 and a lengthscale of e, varied by the key."""
        varied = jnp.exp(1 + 0.1 * jax.random.normal(key, (), dtype))
        return cls(jnp.zeros((), dtype), jnp.full((), 0.5, dtype), varied)

    def evaluate(self, X1: Float[Array, ""], X2: Float[Array, ""]) -> Float[Array, ""]:
        first, second = (jnp.log(jnp.maximum(x, 1e-6)) for x in (X1, X2))
        r = jnp.sqrt(5.0) * jnp.abs(first - second) / self.lengthscale
        smooth = (1 + r + jnp.square(r) / 3) * jnp.exp(-r)
        return jnp.exp(self.power * (first + second)) * (self.share + (1 - self.share) * smooth)
