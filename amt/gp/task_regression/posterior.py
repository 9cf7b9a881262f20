"""Predictions of a target by task regression, at the sources' configurations and at any others."""

from dataclasses import replace
from typing import Self

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from tinygp.kernels import Kernel

from amt.gp.grid import CurveGrid
from amt.gp.observations import Observations, TargetPosterior
from amt.gp.task_regression.alone import SMOOTH, kernel
from amt.gp.task_regression.model import TaskRegression
from amt.gp.task_regression.surface import Interpolation
from amt.gp.task_regression.target import Product, TargetPrior


class OffGrid(eqx.Module):
    """Kernel and interpolation for configurations that the sources do not have.

    Attributes:
        residual: kernel K_C.
        interpolation: of the sources' curves.
    """

    residual: Kernel
    interpolation: Interpolation

    def joined(
        self, prior: TargetPrior, extra: Float[Array, "extra feature"], observable: int | None
    ) -> TargetPrior:
        """Put other configurations behind those of the grid.

        Args:
            observable: how many of them, the first ones, can have scores; None for all.
        """
        known = self.interpolation
        some, features, smooth = extra[:observable], known.features, known.surface
        weights = known.weights(extra)
        error, error_variance = known.error(extra, observable)
        nothing = jnp.zeros((len(extra), len(features)), extra.dtype)

        def of_kernel(product: Product, kernel: Kernel, factor: Array, own: Array) -> Product:
            cross, between = factor * kernel(extra, features), factor * kernel(some, extra)
            between += own * jnp.eye(*between.shape, dtype=extra.dtype)
            return _behind(product, cross, between, factor * kernel(extra) + own)

        one, share = jnp.ones((), extra.dtype), smooth.share
        unknown = kernel(features.shape[1], extra.dtype, sources=len(prior.weighted) > 0)
        return prior._replace(
            mean=jnp.concatenate([prior.mean, weights @ prior.mean]),
            weighted=jnp.concatenate([prior.weighted, weights @ prior.weighted], 1),
            error=_behind(prior.error, nothing, error, error_variance),
            residual=of_kernel(prior.residual, self.residual, one, 0 * one),
            surface=of_kernel(prior.surface, smooth.kernel, share, 1 - share),
            steady=of_kernel(prior.steady, unknown, one, (1 - SMOOTH) * one),
            growing=of_kernel(prior.growing, unknown, one, (1 - SMOOTH) * one),
        )


def _behind(
    product: Product,
    cross: Float[Array, "extra config"],
    between: Float[Array, "observable extra"],
    variance: Float[Array, "extra"],
) -> Product:
    known = product.config, cross.T
    behind = cross[: len(between)], between
    return product._replace(
        config=jnp.block([[*known], [*behind]]),
        variance=jnp.concatenate([product.variance, variance]),
    )


class TaskRegressionPosterior(eqx.Module):
    """Any target given the sources; with the methods of `amt.gp.mixture.Mixture`.

    Attributes:
        prior: of a target on the grid.
        root: R of the weights of the sources, whose prior covariance is R R'.
        off_grid: None where nothing off the grid is asked for.
    """

    prior: TargetPrior
    root: Float[Array, "task task"]
    off_grid: OffGrid | None

    @classmethod
    def of(cls, model: TaskRegression, grid: CurveGrid) -> "TaskRegressionPosterior":
        """Condition a model on the source curves."""
        interpolation = Interpolation.of(model.surface, grid.features)
        root = model.weight_root(len(grid.scores), len(grid.scores), grid.scores.dtype)
        return cls(model.target_prior(grid), root, OffGrid(model.config, interpolation))

    @property
    def noise(self) -> Float[Array, "component epoch"]:
        """The target's noise variance at each epoch, of each component."""
        return self.prior.noises()

    def on_grid(self) -> Self:
        """The same posterior without what only other configurations need."""
        return replace(self, off_grid=None)

    def condition(
        self,
        observations: Observations,
        extra: Float[Array, "extra feature"] | None = None,
        pending: Observations | None = None,
        *,
        observable: int | None = None,
        epochs: Int[Array, "kept"] | None = None,
    ) -> TargetPosterior:
        """The target's posterior; arguments are those of `AbstractSourcePosterior.condition`.

        Args:
            epochs: positions of those to predict; None for all.

        Raises:
            ValueError: configurations off the grid, of a posterior that was reduced to it.
        """
        prior = self._prior_of(extra, observable)
        return prior.condition(observations, pending, epochs)

    def similarity(
        self, observations: Observations, extra: Float[Array, "extra feature"] | None = None
    ) -> tuple[Float[Array, "component task"], Float[Array, "component task"]]:
        """Mean and standard deviation of the sources' weights w, given the target's observations.

        Args:
            extra: as of `condition`.
        """
        mean, covariance = self._prior_of(extra, None).weights(observations)
        equal = jnp.full((len(self.root), 1), 1 / max(len(self.root), 1), mean.dtype)
        root = jnp.concatenate([equal, self.root], 1)
        variance = jnp.einsum("ti,kij,tj->kt", root, covariance, root)
        mean = self.prior.components.shared[:, None] * equal[:, 0] + mean @ root.T
        return mean, jnp.sqrt(jnp.maximum(variance, 0))

    def _prior_of(
        self, extra: Float[Array, "extra feature"] | None, observable: int | None
    ) -> TargetPrior:
        if extra is None or not len(extra):
            return self.prior
        if self.off_grid is None:
            raise ValueError("this posterior was reduced to its grid (on_grid)")
        return self.off_grid.joined(self.prior, extra, observable)
