r"""Posteriors of incomplete source curves.

In the basis V of the epochs, the target has the covariance \(s\, k_C(x, x') \Lambda\), less what
the sources explain of it. Where a task kernel, once it has seen the target, changes covariances
among the sources, only the target's regression on them is taken from it
(`amt.gp.conditioning.Regression`).
"""

from abc import abstractmethod

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from amt.gp.conditioning import Regression
from amt.gp.observations import Observations
from amt.gp.posterior import AbstractSourcePosterior, Target, TargetPrior, less_explained
from amt.gp.sources import Rows


class IncompletePosterior(AbstractSourcePosterior):
    """The posterior of source curves that need not be complete.

    Attributes:
        weights: `response` is linear in the covariances with the grid's configurations: these are
            the coefficients, in the basis of the epochs.
    """

    weights: Float[Array, "task config rank"]

    @abstractmethod
    def explained(
        self,
        target: Target,
        similarity: Float[Array, "task"],
        regression: Float[Array, "task"],
        rows: Rows,
        at: Int[Array, "obs"],
        basis: Float[Array, "obs rank"],
    ) -> tuple[Float[Array, "obs row rank"], Float[Array, "row rank rank"]]:
        """The part of the target's covariances that the sources explain.

        Args:
            target: the target's covariances; of them only `shared` is used.
            similarity: covariances of the target with the sources.
            regression: its regression coefficients on them.
            rows: configurations.
            at: row of each observation.
            basis: the epochs' vectors at each observation.

        Returns:
            Between the observations and each row's vectors; and among each row's vectors.
        """

    def response(self, rows: Rows) -> Float[Array, "task row epoch"]:
        return rows.cross @ self.weights @ self.basis.T

    def prior(
        self, target: Target, rows: Rows, at: Observations, functions: Float[Array, "epoch rank"]
    ) -> TargetPrior:
        similarity, scale, regression = Regression.of(self.sources.factors.grams.task, target.gram)
        explained = self.explained(
            target, similarity, regression, rows, at.config, self.basis[at.epoch]
        )
        variance, cross = less_explained(self, scale, target, rows, at, functions, explained)
        mean = jnp.tensordot(similarity, rows.cross @ self.weights, 1)
        if target.shared is not None:
            own = jnp.tensordot(target.shared, self.weights, 1)
            mean = mean.at[: len(own)].add(own)
        return TargetPrior(mean @ functions.T, variance, cross)
