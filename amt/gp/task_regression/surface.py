r"""How curves of a configuration follow from those of others on the same task.

Curves of one task differ among its configurations with the covariance \(R \otimes V\),

\[ R(x, x') = s\, k(x, x') + (1 - s)\, 1[x = x'], \]

of which a share s is smooth in the hyperparameters. As configurations and epochs separate, curves
off the grid are predicted by the same weights at all epochs, those of ordinary kriging, and the
error of the prediction separates too:

\[ W = r R^{-1} + a\, b^{-1} 1^\top R^{-1}, \quad a = 1 - r R^{-1} 1, \quad b = 1^\top R^{-1} 1, \]
\[ \mathrm{cov}(\text{errors}) = (R_{**} - r R^{-1} r^\top + a\, b^{-1} a^\top) \otimes V, \]

with the covariances r of the others with the grid's. The weights of each sum to 1, so that what all
configurations share is kept.

Source: Cressie (1993), Statistics for Spatial Data, section 3.2.
"""

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from tinygp.kernels import Kernel

from amt.linalg import cholesky, solve_lower
from amt.parameters import parameter


class Surface(eqx.Module):
    """R of the module docstring.

    Attributes:
        kernel: k.
        share: s.
    """

    kernel: Kernel
    share: Float[Array, ""] = parameter(constraints.unit_interval, prior=dist.Normal(0.5, 1.0))

    def log_likelihood(
        self, values: Float[Array, "task config"], features: Float[Array, "config feature"]
    ) -> Float[Array, "task"]:
        r"""Log density of each task's values but for a constant, its mean and variance unknown.

        The restricted likelihood at its largest over the variance,
        \(-\tfrac12 \{(C - 1) \log \hat\sigma^2 + \log |R| + \log b\}\).

        Source: Cressie (1993), section 2.6.
        """
        known = Interpolation.of(self, features)
        centered = solve_lower(known.factor, values.T)
        ones = known.ones[:, None]
        centered -= ones * (ones.T @ centered) / known.total
        degrees = max(len(features) - 1, 1)
        # What is the same for all configurations has a variance of rounding errors.
        variance = jnp.sum(jnp.square(centered), 0) / degrees + 1e-6
        log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(known.factor))) + jnp.log(known.total)
        return -0.5 * ((len(features) - 1) * jnp.log(variance) + log_det)


class Interpolation(eqx.Module):
    """A surface known on a grid of configurations.

    Attributes:
        surface: R.
        features: of the grid's configurations.
        factor: Cholesky factor L of R among them.
        ones, total: L^-1 1 and b of the module docstring.
    """

    surface: Surface
    features: Float[Array, "config feature"]
    factor: Float[Array, "config config"]
    ones: Float[Array, "config"]
    total: Float[Array, ""]

    @classmethod
    def of(cls, surface: Surface, features: Float[Array, "config feature"]) -> "Interpolation":
        """Factorise R on the grid."""
        share, size = surface.share, len(features)
        jitter = 10 * size * jnp.finfo(features.dtype).eps
        own = (1 - share + jitter) * jnp.eye(size, dtype=features.dtype)
        factor = cholesky(share * surface.kernel(features, features) + own)
        ones = solve_lower(factor, jnp.ones((size, 1), features.dtype))[:, 0]
        return cls(surface, features, factor, ones, jnp.sum(jnp.square(ones)))

    def covariance_of_epochs(self, curves: Float[Array, "config epoch"]) -> Float[Array, "e e"]:
        """V of some curves, by generalised least squares."""
        whitened = solve_lower(self.factor, curves)
        whitened -= self.ones[:, None] * (self.ones @ whitened) / self.total
        return whitened.T @ whitened / max(len(self.features) - 1, 1)

    def weights(self, extra: Float[Array, "extra feature"]) -> Float[Array, "extra config"]:
        """W of the module docstring."""
        half, left = self._half(extra)
        half += left[:, None] * self.ones / self.total
        return solve_lower(self.factor, half.T, True).T

    def error(
        self, extra: Float[Array, "extra feature"], observable: int | None = None
    ) -> tuple[Float[Array, "observable extra"], Float[Array, "extra"]]:
        """Covariance of the errors of the first ones with all, and the variance of each."""
        half, left = self._half(extra)
        share, kernel = self.surface.share, self.surface.kernel
        some, size = slice(observable), len(extra)
        covariance = share * kernel(extra[some], extra) - half[some] @ half.T
        covariance += left[some, None] * left / self.total
        covariance += (1 - share) * jnp.eye(len(covariance), size, dtype=extra.dtype)
        variance = share * kernel(extra) + 1 - share - jnp.sum(jnp.square(half), 1)
        return covariance, variance + jnp.square(left) / self.total

    def _half(
        self, extra: Float[Array, "extra feature"]
    ) -> tuple[Float[Array, "extra config"], Float[Array, "extra"]]:
        """(L^-1 r')' and a of the module docstring."""
        cross = self.surface.share * self.surface.kernel(self.features, extra)
        half = solve_lower(self.factor, cross).T
        return half, 1 - half @ self.ones
