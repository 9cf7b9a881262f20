r"""Weighted mixtures of source posteriors.

A mixture predicts \(p(y) = \sum_k w_k\, p_k(y)\). Its components can be draws of a sampler with
equal weights, or models of different kernels.
"""

from collections.abc import Sequence
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.gp.observations import Observations, TargetPosterior
from amt.gp.posterior import AbstractSourcePosterior


class Mixture(eqx.Module):
    """A weighted mixture of source posteriors, with their methods.

    Attributes:
        components: posteriors, those of the same structure stacked along a leading axis.
        log_weights: logarithm of each component's weight; the weights sum to 1.
    """

    components: tuple[AbstractSourcePosterior, ...]
    log_weights: Float[Array, "component"]

    @classmethod
    def of(
        cls,
        components: Sequence[AbstractSourcePosterior],
        log_weights: Float[Array, "component"] | None = None,
    ) -> "Mixture":
        """Mix posteriors, which may differ in their kernels; by default with equal weights."""
        groups = [jax.tree.map(lambda leaf: leaf[None], one) for one in components]
        return cls(tuple(groups), _normalised(groups, log_weights))

    @classmethod
    def of_draws(
        cls,
        draws: AbstractSourcePosterior,
        log_weights: Float[Array, "component"] | None = None,
    ) -> "Mixture":
        """Mix posteriors that are stacked along a leading axis; by default with equal weights."""
        return cls((draws,), _normalised([draws], log_weights))

    @property
    def noise(self) -> Float[Array, "component epoch"]:
        """The target's noise variance at each epoch, of each component."""
        return jnp.concatenate([jax.vmap(lambda p: p.noise)(group) for group in self.components])

    def on_grid(self) -> Self:
        """The same mixture without the kernels that only other configurations and epochs need."""
        reduced = tuple(group.on_grid() for group in self.components)
        return eqx.tree_at(lambda m: m.components, self, reduced)

    def condition(
        self,
        observations: Observations,
        extra: Float[Array, "extra feature"] | None = None,
        pending: Observations | None = None,
        **options: Any,
    ) -> TargetPosterior:
        """The target's posterior under each component.

        Arguments are those of `AbstractSourcePosterior.condition`.
        """

        def of_member(posterior: AbstractSourcePosterior) -> TargetPosterior:
            return posterior.condition(observations, extra, pending, **options)

        parts = [jax.vmap(of_member)(group) for group in self.components]
        mean, variance, *_ = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
        return TargetPosterior(mean, variance, self.log_weights)


def _normalised(
    groups: Sequence[AbstractSourcePosterior], log_weights: Float[Array, "component"] | None
) -> Float[Array, "component"]:
    size = sum(len(group.source_mean) for group in groups)
    if log_weights is None:
        log_weights = jnp.zeros(size, groups[0].source_mean.dtype)
    if log_weights.shape != (size,):
        raise ValueError(f"there are {size} components, but weights of shape {log_weights.shape}")
    return log_weights - jax.scipy.special.logsumexp(log_weights)
