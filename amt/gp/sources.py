"""Source curves under given kernels, and the configurations that their posterior is asked for."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float
from tinygp.kernels import Kernel

from amt.gp.factors import Factors
from amt.kernels.task.base import TaskKernel


class Inputs(eqx.Module):
    """Kernels between configurations and between epochs, and where the grid has both.

    Attributes:
        config, fidelity: the kernels.
        features: of the grid's configurations.
        epochs: of the grid, as a share of the last.
    """

    config: Kernel
    fidelity: Kernel
    features: Float[Array, "config feature"]
    epochs: Float[Array, "epoch"]


class Rows(NamedTuple):
    """Configurations: those of the grid, and behind them others.

    Attributes:
        cross: covariances with the configurations of the grid.
        gram: covariances of the configurations that can have observations with all.
        variance: of each by itself.
        extra: features of the configurations off the grid; None for none.
    """

    cross: Float[Array, "row config"]
    gram: Float[Array, "observable row"]
    variance: Float[Array, "row"]
    extra: Float[Array, "extra feature"] | None = None


class Sources(eqx.Module):
    """Source curves and the covariance that a model gives them.

    Attributes:
        task: kernel of the source tasks.
        factors: covariance of the scores on the grid.
        scores: source scores, NaN where missing.
        inputs: what is needed off the grid; None where nothing off the grid is asked for.
    """

    task: TaskKernel
    factors: Factors
    scores: Float[Array, "task config epoch"]
    inputs: Inputs | None

    def off_grid(self) -> Inputs:
        """Kernels and inputs of the grid.

        Raises:
            ValueError: the posterior was reduced to its grid.
        """
        if self.inputs is None:
            raise ValueError(
                "this posterior was reduced to its grid (on_grid) and knows nothing of other "
                "configurations and epochs"
            )
        return self.inputs

    def rows(
        self, extra: Float[Array, "extra feature"] | None = None, observable: int | None = None
    ) -> Rows:
        """Covariances of the grid's configurations and of others behind them.

        Args:
            extra: features of the others.
            observable: how many of them, the first ones, can have observations; None for all.
        """
        gram = self.factors.grams.config
        if extra is None:
            return Rows(gram, gram, jnp.diagonal(gram))
        inputs = self.off_grid()
        kernel, features = inputs.config, inputs.features
        cross, between = kernel(extra, features), kernel(extra[:observable], extra)
        return Rows(
            cross=jnp.concatenate([gram, cross]),
            gram=jnp.block([[gram, cross.T], [cross[: len(between)], between]]),
            variance=jnp.concatenate([jnp.diagonal(gram), kernel(extra)]),
            extra=extra,
        )
