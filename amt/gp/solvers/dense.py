r"""Exact inference by the covariance matrix of all scores, for small problems.

The same model and the same answers as `amt.gp.solvers.kronecker`, by a Cholesky factorisation of
the N x N covariance: a way to compare the fast ways with. The task means are at their
generalized-least-squares value, \(\hat m = (H^\top K^{-1} H)^{-1} H^\top K^{-1} y\), where H says
which task a score is of.

Source: Rasmussen and Williams (2006), algorithm 2.1 and equation 2.41 (for a flat prior).
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.gp.factors import Factors
from amt.gp.observations import Observations
from amt.gp.posterior import AbstractSourcePosterior, Target, TargetPrior, less_explained
from amt.gp.solvers.base import AbstractSolver, Solution
from amt.gp.sources import Rows, Sources
from amt.gp.spectral import Eigen, outer
from amt.linalg import cholesky, solve_cholesky, solve_lower


class Dense(AbstractSolver):
    """Exact on complete grids of few scores without a nugget, by dense algebra.

    Attributes:
        largest: number of scores up to which to try.
    """

    largest: int = eqx.field(static=True, default=5000)

    def solve(self, factors: Factors, scores: Float[Array, "task config epoch"]) -> Solution:
        """The log marginal likelihood of complete scores, and the task means.

        Raises:
            ValueError: there are more scores than `largest`; the message says what they would
                take.
        """
        factor = self._factor(factors, scores)
        means = jax.lax.stop_gradient(_means(factor, scores))
        residual = (scores - means[:, None, None]).reshape(-1, 1)
        half = solve_lower(factor, residual)
        log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
        value = -0.5 * (jnp.sum(jnp.square(half)) + log_det + scores.size * math.log(2 * math.pi))
        return Solution(value, means, jnp.asarray(True))

    def posterior(self, sources: Sources, rank: int | None = None) -> "DensePosterior":
        """Condition on the source curves, for any target; all eigenvalues are carried."""
        factors, scores = sources.factors, sources.scores
        factor = self._factor(factors, scores)
        means = _means(factor, scores)
        residual = (scores - means[:, None, None]).reshape(-1, 1)
        weights = solve_cholesky(factor, residual).reshape(scores.shape)
        scale = jnp.sqrt(factors.epoch_noise)
        fidelity = factors.grams.fidelity
        return DensePosterior(
            sources=sources,
            fidelity=Eigen.of(fidelity / (scale[:, None] * scale)),
            source_mean=means,
            weights=weights @ fidelity,
        )

    def _factor(
        self, factors: Factors, scores: Float[Array, "task config epoch"]
    ) -> Float[Array, "point point"]:
        factors.require_product("Dense")
        size, itemsize = scores.size, scores.dtype.itemsize
        if size > self.largest:
            raise ValueError(
                f"dense inference on {size} observations would take about "
                f"{5 * size**2 * itemsize / 2**30:.1f} GiB for matrices of {size} x {size} and "
                f"time that grows with their cube; the limit is {self.largest} observations. "
                "Inference on the grid (fit_mle) gives the same answers."
            )
        return cholesky(covariance(factors))


def covariance(factors: Factors) -> Float[Array, "point point"]:
    """The covariance of complete scores, in the order of the raveled grid."""
    task, config, fidelity = factors.grams
    ones = jnp.ones(len(config), config.dtype)
    noise = outer(factors.task_noise, ones, factors.epoch_noise).ravel()
    return jnp.kron(jnp.kron(task, config), fidelity) + jnp.diag(noise)


def _means(
    factor: Float[Array, "point point"], scores: Float[Array, "task config epoch"]
) -> Float[Array, "task"]:
    """Generalized-least-squares means of the tasks."""
    tasks, configs, epochs = scores.shape
    which = jnp.repeat(jnp.eye(tasks, dtype=scores.dtype), configs * epochs, axis=0)
    design: Array = solve_lower(factor, which)
    half = solve_lower(factor, scores.reshape(-1, 1))
    return solve_cholesky(cholesky(design.T @ design), design.T @ half)[:, 0]


class DensePosterior(AbstractSourcePosterior):
    """The posterior of complete source grids by dense algebra.

    Attributes:
        weights: the inverse covariance times the residuals, times the epochs' Gram matrix.
    """

    weights: Float[Array, "task config epoch"]

    def response(self, rows: Rows) -> Float[Array, "task row epoch"]:
        return rows.cross @ self.weights

    def prior(
        self, target: Target, rows: Rows, at: Observations, functions: Float[Array, "epoch rank"]
    ) -> TargetPrior:
        sources = self.sources
        task, similarity = target.gram[:-1, :-1], target.gram[:-1, -1]
        grams = sources.factors.grams._replace(task=task)
        factor = cholesky(covariance(sources.factors._replace(grams=grams)))
        between = jnp.einsum("t,xc,ek->tcexk", similarity, rows.cross, self.basis)
        cross = (between * self.fidelity.values).reshape(len(factor), -1)
        half = solve_lower(factor, cross)
        residual = (sources.scores - self.source_mean[:, None, None]).reshape(-1, 1)
        shape = *rows.variance.shape, len(self.fidelity.values)
        mean = (solve_lower(factor, residual).T @ half).reshape(shape)
        half = half.reshape(-1, *shape)
        observed = jnp.einsum("nik,ik->in", half[:, at.config], self.basis[at.epoch])
        explained = jnp.tensordot(observed, half, 1), jnp.einsum("nxk,nxl->xkl", half, half)
        variance, left = less_explained(
            self, target.gram[-1, -1], target, rows, at, functions, explained
        )
        return TargetPrior(mean @ functions.T, variance, left)
