"""Scores that a pure tuner was told, in arrays of one size for a whole loop."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from amt.search.simulate import Feedback


class Told(eqx.Module):
    """Scores in the order in which they came; behind the last there is padding.

    Attributes:
        config, epoch, score: of each.
        count: how many there are.
    """

    config: Int[Array, "obs"]
    epoch: Int[Array, "obs"]
    score: Float[Array, "obs"]
    count: Int[Array, ""]

    @classmethod
    def init(cls, budget: int, dtype: Any) -> "Told":
        """Start without scores, with room for so many."""
        index = jnp.zeros(budget, int)
        return cls(index, index, jnp.zeros(budget, dtype), jnp.zeros((), int))

    def add(self, feedback: Feedback) -> "Told":
        """Append the score of the feedback, if it has one."""
        place = jnp.where(feedback.observed, self.count, len(self.config))
        return Told(
            self.config.at[place].set(feedback.config, mode="drop"),
            self.epoch.at[place].set(feedback.epoch, mode="drop"),
            self.score.at[place].set(feedback.score, mode="drop"),
            self.count + feedback.observed,
        )

    @property
    def mask(self) -> Bool[Array, "obs"]:
        """Which are scores, not padding."""
        return jnp.arange(len(self.config)) < self.count

    def level_and_scale(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Mean and standard deviation of the scores; 0 and 1 where that says nothing."""
        count = jnp.maximum(self.count, 1)
        level = jnp.sum(jnp.where(self.mask, self.score, 0)) / count
        variance = jnp.sum(jnp.where(self.mask, jnp.square(self.score - level), 0)) / count
        return level, jnp.where(variance > 1e-12, jnp.sqrt(jnp.maximum(variance, 1e-12)), 1)
