r"""Components of a target's prior, weighted by what each predicted of its scores so far.

How noisy a target is, how much of it no source shows, and whether the sources say anything about it
is not known before it is trained. So there are components with the standard deviations of noise
and of the residual halved, as learned, and doubled, and one without transfer; component k has the
weight

\[ w_k \propto \pi_k \prod_i p_k(y_i \mid y_1, \dots, y_{i-1}), \]

the predictive densities being those of `amt.gp.task_regression.target`. Sources that mislead lose
their weight after a few scores.

Without transfer, w = 0: the mean is the sources' mean course, the same for all configurations,
and how curves differ among the configurations of a source is the covariance of those of the target
(`amt.gp.task_regression.surface`).

Source: Hoeting, Madigan, Raftery, Volinsky (1999), Bayesian Model Averaging: A Tutorial, for the
weights.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

SCALES = (0.5, 1.0, 2.0)
WITHOUT_TRANSFER = 0.1


class Components(NamedTuple):
    """Factors of the variances of each component's parts; see `TargetPrior`.

    Attributes:
        log_weight: logarithm of the prior weight.
        noise: of the noise.
        transfer: of the sources' weighted curves, 1 or 0, and of what the mean has of them.
        residual: of what no source shows.
        surface: of how curves differ among the configurations of a source.
    """

    log_weight: Float[Array, "component"]
    noise: Float[Array, "component"]
    transfer: Float[Array, "component"]
    residual: Float[Array, "component"]
    surface: Float[Array, "component"]

    @classmethod
    def of(cls, dtype: jnp.dtype) -> "Components":
        """The components of the module docstring, the one without transfer last."""
        pairs = [(noise**2, residual**2) for noise in SCALES for residual in SCALES]
        weight = (1 - WITHOUT_TRANSFER) / len(pairs)
        rows = [(weight, noise, 1.0, residual, 0.0) for noise, residual in pairs]
        weights, *factors = jnp.asarray([*rows, (WITHOUT_TRANSFER, 1.0, 0.0, 0.0, 1.0)], dtype).T
        return cls(jnp.log(weights), *factors)

    @property
    def parts(self) -> Float[Array, "component part"]:
        """Factors of the parts of `TargetPrior.columns`, of which the course's is 1."""
        ones = jnp.ones_like(self.transfer)
        return jnp.stack([ones, self.transfer, self.residual, self.surface], 1)
