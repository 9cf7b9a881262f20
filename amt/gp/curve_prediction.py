r"""The sources' own curves: what is missing of them, and what is noise in them.

A source's f is that of a target whose covariances with all tasks are the source's, none of whose
scores is known by itself: in `amt.gp.posterior`'s terms \(k_* = K_T e_t\), \(s = [K_T]_{tt}\).
So one way serves every kind of posterior, of complete and of incomplete grids. In place of a
target's unknown mean stands the source's, at its generalized-least-squares value; how uncertain
that is, is left out, as it is from the likelihood.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from amt.gp.posterior import Observations, SourcePosterior, mean_prior
from amt.gp.solvers.observed_curves import IncompleteSourcePosterior
from amt.kernels.task import GivenGram, TargetObservations, TaskKernel, bordered


class CurvePrediction(NamedTuple):
    """Marginals of the noise-free scores of the sources, their means included."""

    mean: Float[Array, "task config epoch"]
    variance: Float[Array, "task config epoch"]


class _Again(TaskKernel):
    """The tasks of a kernel; their target is one of them."""

    kernel: TaskKernel
    task: Int[Array, ""]

    def gram(self) -> Float[Array, "task task"]:
        return self.kernel.gram()

    def with_target(self, observations: TargetObservations) -> GivenGram:
        gram = self.gram()
        row = gram[self.task]
        return GivenGram(bordered(gram, row, row[self.task]))


def predict(posterior: SourcePosterior | IncompleteSourcePosterior) -> CurvePrediction:
    """The sources' curves on the whole grid given all their scores.

    `posterior` is that of `MultiTaskGP.source_posterior`, or of a fit; exact where that is. Of
    `LatentSourcePosterior`, whose covariances are estimated from samples, variances have a relative
    standard error of (2 / samples)^(1/2), and means are exact.
    """
    nothing = Observations.empty(1, posterior.scores.dtype)
    mean, mean_variance = mean_prior(posterior.source_mean, posterior.scores)

    def of_task(task: Int[Array, ""]) -> CurvePrediction:
        again = replace(posterior, task=_Again(posterior.task, task))
        if isinstance(again, IncompleteSourcePosterior):
            alone = again.nugget[task]
            shared = jnp.where(jnp.arange(len(again.nugget)) == task, alone, 0)
            again = replace(again, nugget=jnp.full_like(again.nugget, alone), shared=shared)
        target = again.condition(nothing)
        variance = jnp.maximum(target.variance - mean_variance, 0)
        return CurvePrediction(target.mean - mean + posterior.source_mean[task], variance)

    return jax.lax.map(of_task, jnp.arange(len(posterior.source_mean)))
