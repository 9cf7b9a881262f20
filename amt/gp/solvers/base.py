"""The interface of solvers of a Gaussian process on learning curves."""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
from jaxtyping import Array, Bool, Float

from amt.gp.factors import Factors
from amt.gp.posterior import AbstractSourcePosterior
from amt.gp.sources import Sources


class Solution(NamedTuple):
    """The marginal likelihood of source curves.

    Attributes:
        value: log marginal likelihood at the best task means. Differentiable once, in reverse
            mode.
        means: the task means, at their generalized-least-squares value; without a derivative.
        converged: whether both are as accurate as the solver is meant to be.
    """

    value: Float[Array, ""]
    means: Float[Array, "task"]
    converged: Bool[Array, ""]


class AbstractSolver(eqx.Module):
    """A way to compute the likelihood of source curves and their posterior."""

    @abstractmethod
    def solve(self, factors: Factors, scores: Float[Array, "task config epoch"]) -> Solution:
        """The log marginal likelihood of the scores that are not NaN, and the task means.

        Args:
            factors: covariance of the scores; each task needs a score.
        """

    @abstractmethod
    def posterior(self, sources: Sources, rank: int | None = None) -> AbstractSourcePosterior:
        """Condition on the source curves, for any target.

        Args:
            rank: eigenvalues of the fidelity's Gram matrix that are carried; None for as many as
                the solver takes by itself.
        """
