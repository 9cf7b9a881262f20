"""Kernels between tasks: their Gram matrix, and how a new task joins.

A task is an integer, its position among the tasks that the kernel was made for: a Gram matrix is
`kernel(tasks, tasks)` with `tasks = jnp.arange(T)`. A task kernel also says how a new task joins:
`kernel.with_target(observations)` is the kernel of T + 1 tasks, the target last, with the
similarity of the target to every source as far as its observations show it.
"""

from abc import abstractmethod
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from tinygp.kernels import Kernel


class TargetObservations(NamedTuple):
    r"""Scores of the target so far, padded to a fixed capacity, beside what the sources say there.

    Attributes:
        score: observed scores of the target.
        mask: which entries are observations; the others are padding.
        source: the sources' scores at the same configuration and epoch, NaN where missing.
        residual: `score` minus the prior mean of the target's mean.
        response: the prediction is linear in the target's covariances \(k_*\) with the sources:
            \(E[f_*] = \) `response` \(k_*\) (the columns are
            \((K_C \otimes K_E) [K^{-1} r]_t\) at the observations).
        prior: \(k_C k_E\) between the observations.
        noise: noise variance of each observation.
        mean_variance: prior variance of the target's mean.
        share: one observation as a share of the grid, \(1 / (C E)\).
        nugget: covariance of what the target's curves have to themselves (`MultiTaskGP.nugget`).
    """

    score: Float[Array, "obs"]
    mask: Bool[Array, "obs"]
    source: Float[Array, "obs task"]
    residual: Float[Array, "obs"]
    response: Float[Array, "obs task"]
    prior: Float[Array, "obs obs"]
    noise: Float[Array, "obs"]
    mean_variance: Float[Array, ""]
    share: float
    nugget: Float[Array, "obs obs"] | float = 0.0

    def error(self, own: Float[Array, ""]) -> Float[Array, "obs obs"]:
        """Covariance of what `response` leaves open of the residuals; 1 for padding.

        Args:
            own: variance of the target's part that no source shares, in units of `prior`.
        """
        both = self.mask[:, None] & self.mask
        error = jnp.where(both, own * self.prior + self.nugget + self.mean_variance, 0)
        return error + jnp.diag(jnp.where(self.mask, self.noise, 1))


class TaskKernel(Kernel):
    """A kernel on task indices, given by its Gram matrix."""

    @abstractmethod
    def gram(self) -> Float[Array, "task task"]:
        """The Gram matrix of all tasks."""

    @abstractmethod
    def with_target(self, observations: TargetObservations) -> "TaskKernel":
        """The kernel of all tasks and the target, which comes last."""

    def evaluate(self, X1: Int[Array, ""], X2: Int[Array, ""]) -> Float[Array, ""]:
        return self.gram()[X1, X2]


class GivenGram(TaskKernel):
    """Tasks, a target among them, with a given Gram matrix."""

    matrix: Float[Array, "task task"]

    def gram(self) -> Float[Array, "task task"]:
        return self.matrix

    def with_target(self, observations: TargetObservations) -> "GivenGram":
        raise TypeError("the similarity of one more task to these is not known")


def mean_distance(distance: Float[Array, "task task"]) -> Float[Array, ""]:
    """Mean over pairs of different tasks; 1 where there is none or all are alike."""
    pairs = distance.shape[0] * (distance.shape[0] - 1)
    mean = jnp.sum(distance) / max(pairs, 1)
    return jnp.where(mean > 0, mean, 1.0)


def bordered(
    matrix: Float[Array, "task task"], row: Float[Array, "task"], corner: Float[Array, ""]
) -> Float[Array, "task+1 task+1"]:
    """`matrix` with one more row and column."""
    last = jnp.append(row, corner.astype(row.dtype))
    return jnp.block([[matrix, row[:, None]], [last[None, :]]])
