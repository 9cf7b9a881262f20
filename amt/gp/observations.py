"""Scores of a target task so far, and posteriors of its curves."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Observations(NamedTuple):
    """Scores of the target, in the order told: the first `count` entries, the rest is padding."""

    config: Int[Array, "obs"]
    epoch: Int[Array, "obs"]
    score: Float[Array, "obs"]
    count: Int[Array, ""]

    @classmethod
    def empty(cls, capacity: int, dtype: jnp.dtype) -> "Observations":
        """No observation yet, with room for `capacity`."""
        index = jnp.zeros((capacity,), jnp.int32)
        return cls(index, index, jnp.zeros((capacity,), dtype), jnp.zeros((), jnp.int32))

    @classmethod
    def of(
        cls, entries: Sequence[tuple[int, int, float]], capacity: int, dtype: jnp.dtype
    ) -> "Observations":
        """Gather (configuration, epoch, score), both by position, with room for `capacity`."""
        config, epoch = np.zeros((2, capacity), np.int32)
        score = np.zeros(capacity, dtype)
        for index, entry in enumerate(entries):
            config[index], epoch[index], score[index] = entry
        count = jnp.asarray(len(entries), jnp.int32)
        return cls(jnp.asarray(config), jnp.asarray(epoch), jnp.asarray(score), count)

    def append(
        self, config: Int[Array, ""], epoch: Int[Array, ""], score: Float[Array, ""]
    ) -> "Observations":
        """Add one more observation; it is dropped where the capacity is used up."""

        def put(values: Array, value: Array) -> Array:
            return values.at[self.count].set(jnp.asarray(value, values.dtype), mode="drop")

        arrays = put(self.config, config), put(self.epoch, epoch), put(self.score, score)
        return Observations(*arrays, self.count + 1)

    @property
    def mask(self) -> Bool[Array, "obs"]:
        """Whether an entry is an observation, and no padding."""
        return jnp.arange(self.score.shape[0]) < self.count

    def with_pending(
        self, pending: "Observations | None"
    ) -> tuple["Observations", Bool[Array, "both"] | None]:
        """Put `pending` behind these, which alone are counted; and say which are under way."""
        if pending is None:
            return self, None
        under_way = jnp.append(jnp.zeros_like(self.mask), pending.mask)
        both = Observations(
            jnp.concatenate([self.config, pending.config]),
            jnp.concatenate([self.epoch, pending.epoch]),
            jnp.concatenate([self.score, pending.score]),
            self.count,
        )
        return both, under_way


class TargetPosterior(NamedTuple):
    """Marginals of the noise-free score f of the target, its mean included, on its grid.

    Attributes:
        mean, variance: of a mixture (`amt.gp.mixture`) with a leading axis of components.
        log_weights: of a mixture the logarithms of its weights, which sum to 1; else None.
        trusted: of a mixture the components that the next query trusts; None for all.
        widening: factor of the standard deviations in forecasts; None for 1.
    """

    mean: Float[Array, "*component config epoch"]
    variance: Float[Array, "*component config epoch"]
    log_weights: Float[Array, "component"] | None = None
    trusted: Bool[Array, "component"] | None = None
    widening: Float[Array, ""] | None = None

    def average(self, values: Float[Array, "..."]) -> Float[Array, "..."]:
        """Average over the components by their weights; values without components stay."""
        if self.log_weights is None:
            return values
        weights = jnp.exp(self.log_weights).reshape(-1, *(1,) * (values.ndim - 1))
        # Infinite values of components without weight do not count.
        return jnp.sum(jnp.where(weights > 0, weights * values, 0), axis=0)

    def of_trusted(self) -> "TargetPosterior":
        """The mixture of the components that are trusted alone."""
        if self.trusted is None or self.log_weights is None:
            return self
        least = jnp.finfo(self.log_weights.dtype).min
        log_weights = jnp.where(self.trusted, self.log_weights, least)
        return self._replace(log_weights=jax.nn.log_softmax(log_weights), trusted=None)

    def of(self, configs: Sequence[int]) -> "TargetPosterior":
        """The marginals of some configurations, as arrays of NumPy: any number is fast."""
        mean, variance = (np.asarray(leaf)[..., list(configs), :] for leaf in self[:2])
        return self._replace(mean=mean, variance=variance, trusted=None)

    def widened(self) -> "TargetPosterior":
        """The marginals of forecasts, whose standard deviations are times the factor."""
        if self.widening is None:
            return self
        return self._replace(variance=self.widening**2 * self.variance, widening=None)

    def matched(self) -> "TargetPosterior":
        """Normal marginals of the mixture's mean and variance; itself without components."""
        if self.log_weights is None:
            return self
        mean = self.average(self.mean)
        return TargetPosterior(mean, self.average(self.variance + jnp.square(self.mean - mean)))


class SourcePosterior(Protocol):
    """A posterior given the past tasks, by any model, that predicts the curves of a new task."""

    @property
    def noise(self) -> Float[Array, "*component epoch"]:
        """The target's noise variance at each epoch, of each component."""
        ...

    def on_grid(self) -> Self:
        """The same posterior without what only other configurations and epochs need."""
        ...

    def condition(
        self,
        observations: Observations,
        extra: Float[Array, "extra feature"] | None = None,
        pending: Observations | None = None,
        *,
        observable: int | None = None,
    ) -> TargetPosterior:
        """The target's posterior; arguments are those of `AbstractSourcePosterior.condition`."""
        ...
