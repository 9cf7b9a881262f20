r"""Posteriors of incomplete source curves.

In the basis V of the epochs, the target has the covariance \(s\, k_C(x, x') \Lambda\), less what
the sources explain of it. Where a task kernel, once it has seen the target, changes covariances
among the sources, only the target's regression on them is taken from it
(`amt.gp.conditioning.Regression`).
"""

from abc import abstractmethod
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.gp.conditioning import Regression
from amt.gp.observations import Observations
from amt.gp.posterior import AbstractSourcePosterior, Target, TargetPrior, less_explained
from amt.gp.sources import Rows


class Regressed(NamedTuple):
    """A target's covariances with the sources.

    Attributes:
        similarity: covariances with the sources.
        weights: regression coefficients on them.
        shared: covariance of its nugget with each source's; None of a target that is no source.
    """

    similarity: Float[Array, "task"]
    weights: Float[Array, "task"]
    shared: Float[Array, "task"] | None


class Explained(NamedTuple):
    """Covariances of a target that the sources explain, in the basis of the epochs' vectors.

    Attributes:
        observed: between the observations and each row's functions.
        among: among the functions of each row.
    """

    observed: Float[Array, "obs row rank"]
    among: Float[Array, "row rank rank"]


class IncompletePosterior(AbstractSourcePosterior):
    """The posterior of source curves that need not be complete.

    Attributes:
        weights: `response` is linear in the covariances with the grid's configurations: these are
            the coefficients, in the basis of the epochs.
    """

    weights: Float[Array, "task config rank"]

    @abstractmethod
    def explained(self, target: Regressed, rows: Rows, at: Observations) -> Explained:
        """The part of the target's covariances that the sources explain.

        Args:
            target: its covariances with the sources.
            rows: configurations.
            at: where it has observations.
        """

    def response(self, rows: Rows) -> Float[Array, "task row epoch"]:
        return rows.cross @ self.weights @ self.basis.T

    def prior(
        self, target: Target, rows: Rows, at: Observations, functions: Float[Array, "epoch rank"]
    ) -> TargetPrior:
        similarity, scale, weights = Regression.of(self.sources.factors.grams.task, target.gram)
        explained = self.explained(Regressed(similarity, weights, target.shared), rows, at)
        variance, cross = less_explained(self, scale, target, rows, at, functions, explained)
        mean = jnp.tensordot(similarity, rows.cross @ self.weights, 1)
        if target.shared is not None:
            own = jnp.tensordot(target.shared, self.weights, 1)
            mean = mean.at[: len(own)].add(own)
        return TargetPrior(mean @ functions.T, variance, cross)
