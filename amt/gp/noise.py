"""The noise of learning curves."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from amt.parameters import parameter

NoiseKind = Literal["homoscedastic", "task", "epoch", "task_epoch"]


def floor(dtype: jnp.dtype) -> float:
    """The least noise variance, of scores with a scale near 1: a deviation of 3e-5, or 1e-3."""
    return 1e-9 if dtype == jnp.float64 else 1e-6


class SeparableNoise(eqx.Module):
    r"""Noise variance \(\sigma^2[t, e] = a_t\, e^{-p}\), e the epoch as a share of the last.

    Early epochs are noisier for p > 0. `variance` has one entry, or one for each task; `power`
    is None for noise that is the same at all epochs. No \(a_t\) counts as less than `floor`:
    scores that are exact, or there twice, would lead it to 0, where rounding decides.
    """

    variance: Float[Array, "task"] = parameter(
        constraints.positive, prior=dist.Normal(-6.9, 3.0), role="noise"
    )
    power: Float[Array, ""] | None = parameter(constraints.real, prior=dist.Normal(0.0, 1.0))

    @classmethod
    def init(cls, kind: NoiseKind, num_tasks: int, dtype: jnp.dtype) -> "SeparableNoise":
        """Starts at a standard deviation of 0.03, constant over epochs."""
        if kind not in ("homoscedastic", "task", "epoch", "task_epoch"):
            raise ValueError(f"noise is homoscedastic, task, epoch or task_epoch, not {kind!r}")
        return cls(
            variance=jnp.full((num_tasks if "task" in kind else 1,), 1e-3, dtype),
            power=jnp.zeros((), dtype) if "epoch" in kind else None,
        )

    def factors(
        self, num_tasks: int, epochs: Float[Array, "epoch"]
    ) -> tuple[Float[Array, "task"], Float[Array, "epoch"]]:
        """A and the epochs' factor."""
        variance = jnp.maximum(self.variance, floor(self.variance.dtype))
        power = jnp.zeros((), epochs.dtype) if self.power is None else self.power
        return jnp.broadcast_to(variance, (num_tasks,)), epochs**-power
