r"""Exact inference by the covariance matrix of all observations, for small problems.

The same model and the same answers as `amt.gp.solvers.kronecker` and `amt.gp.posterior`, by tinygp's
general way, a Cholesky factorisation of the N x N covariance: what the fast ways are compared
with. The task means are at their generalized-least-squares value,
\(\hat m = (H^\top K^{-1} H)^{-1} H^\top K^{-1} y\), where H says which task an observation is of.

Source: Rasmussen and Williams (2006), algorithm 2.1 and equation 2.41 (for a flat prior).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import tinygp
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from tinygp.noise import Noise
from tinygp.solvers import DirectSolver

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP, require_kronecker
from amt.gp.posterior import (
    Observations,
    TargetPosterior,
    beside_sources,
    mean_prior,
    target_noise,
)
from amt.gp.solvers.kronecker import GridPoints, KroneckerKernel, grid_points, outer
from amt.inference.mle import Fit, Optimizer, fit_mle
from amt.kernels.task import GivenGram
from amt.linalg import cholesky, solve_cholesky, solve_lower

LARGEST = 5000


class BatchSafeSolver(DirectSolver):
    """tinygp's DirectSolver on the factorisations of `amt.linalg`, which may be batched."""

    def __init__(self, kernel, X, noise: Noise, *, covariance=None):
        self.X = X
        self.variance_value = kernel(X) + noise.diagonal()
        self.covariance_value = kernel(X, X) + noise if covariance is None else covariance
        self.scale_tril = cholesky(self.covariance_value)

    def solve_triangular(self, y: Array, *, transpose: bool = False) -> Array:
        solution = solve_lower(self.scale_tril, y.reshape(len(y), -1), transpose)
        return solution.reshape(y.shape)


class DenseGP(eqx.Module):
    """A model whose likelihood and posterior are computed by dense algebra."""

    model: MultiTaskGP

    def process(self, grid: CurveGrid) -> tinygp.GaussianProcess:
        """The scores of all tasks, less their means, in the order of the raveled grid."""
        require_kronecker(self.model, grid, "dense inference")
        model, (tasks, configs, _) = self.model, grid.scores.shape
        task_noise, epoch_noise = model.noise.factors(tasks, grid.epochs)
        noise = outer(task_noise, jnp.ones(configs, grid.scores.dtype), epoch_noise).ravel()
        kernel = KroneckerKernel(model.task, model.config, model.fidelity)
        X = grid_points(jnp.arange(tasks), grid.features, grid.epochs)
        return tinygp.GaussianProcess(kernel, X, diag=noise, solver=BatchSafeSolver)

    def log_likelihood(self, grid: CurveGrid) -> tuple[Float[Array, ""], Float[Array, "task"]]:
        """As `MultiTaskGP.log_likelihood`."""
        process = self.process(grid)
        means = jax.lax.stop_gradient(_means(process, grid))
        residual = grid.scores - means[:, None, None]
        return process.log_probability(residual.ravel()), means

    def is_solved(self, grid: CurveGrid) -> Bool[Array, ""]:
        """As `MultiTaskGP.is_solved`: always."""
        return jnp.asarray(True)

    def posterior(self, grid: CurveGrid) -> "DensePosterior":
        """What the sources say of any target."""
        process = self.process(grid)
        means = _means(process, grid)
        residual = (grid.scores - means[:, None, None]).ravel()
        weights = process.solver.solve_triangular(residual)
        weights = process.solver.solve_triangular(weights, transpose=True)
        config = self.model.config(grid.features, grid.features)
        fidelity = self.model.fidelity(grid.epochs, grid.epochs)
        response = config @ weights.reshape(grid.scores.shape) @ fidelity
        return DensePosterior(self.model, grid, means, response)


class DensePosterior(eqx.Module):
    """The sources and any target, with the interface of `amt.gp.posterior.SourcePosterior`.

    Attributes:
        model, grid: the sources.
        source_mean: the sources' means.
        response: see `TargetObservations.response`.
    """

    model: MultiTaskGP
    grid: CurveGrid
    source_mean: Float[Array, "task"]
    response: Float[Array, "task config epoch"]

    @property
    def noise(self) -> Float[Array, "epoch"]:
        """The target's noise variance at each epoch."""
        task, epoch = self.model.noise.factors(len(self.grid.scores), self.grid.epochs)
        return target_noise(task) * epoch

    def condition(self, observations: Observations) -> TargetPosterior:
        """The target's posterior given all scores of the sources and its observations.

        NaN where the task kernel is indefinite together with the target.
        """
        model, grid, mask = self.model, self.grid, observations.mask
        tasks, configs, epochs = grid.scores.shape
        task_noise, epoch_noise = model.noise.factors(tasks, grid.epochs)
        noise = self.noise[observations.epoch]
        mean, mean_variance = mean_prior(self.source_mean, grid.scores)
        at = grid.features[observations.config], grid.epochs[observations.epoch]
        prior = model.config(at[0], at[0]) * model.fidelity(at[1], at[1])
        told = beside_sources(
            observations, grid.scores, self.response, (mean, mean_variance), prior, noise
        )
        gram = model.task.with_target(told).gram()

        # Tasks are the sources, the target, and for the padding one that is always 0.
        target, padding = tasks, tasks + 1
        kernel = KroneckerKernel(
            GivenGram(jnp.pad(gram, (0, 1))), model.config, model.fidelity
        ) + KroneckerKernel(
            GivenGram(
                jnp.zeros((tasks + 2,) * 2, gram.dtype).at[target, target].set(mean_variance)
            ),
            tinygp.kernels.Constant(jnp.ones((), gram.dtype)),
            tinygp.kernels.Constant(jnp.ones((), gram.dtype)),
        )
        sources = grid_points(jnp.arange(tasks), grid.features, grid.epochs)
        everywhere = grid_points(jnp.full(1, target), grid.features, grid.epochs)
        seen = GridPoints(jnp.where(mask, target, padding), *at)
        X = jax.tree.map(lambda *parts: jnp.concatenate(parts), sources, seen)
        source_noise = outer(task_noise, jnp.ones(configs, gram.dtype), epoch_noise).ravel()
        diagonal = jnp.concatenate([source_noise, jnp.where(mask, noise, 1)])
        process = tinygp.GaussianProcess(kernel, X, diag=diagonal, solver=BatchSafeSolver)

        residual = grid.scores - self.source_mean[:, None, None]
        own = jnp.where(mask, observations.score - mean, 0)
        half = process.solver.solve_triangular(jnp.concatenate([residual.ravel(), own]))
        cross = process.solver.solve_triangular(kernel(X, everywhere))
        variance = kernel(everywhere) - jnp.sum(jnp.square(cross), 0)
        shape = configs, epochs
        return TargetPosterior(
            mean=mean + (half @ cross).reshape(shape),
            variance=jnp.maximum(variance, 0).reshape(shape),
        )


def _means(process: tinygp.GaussianProcess, grid: CurveGrid) -> Float[Array, "task"]:
    tasks, configs, epochs = grid.scores.shape
    which = jnp.repeat(jnp.eye(tasks, dtype=grid.scores.dtype), configs * epochs, axis=0)
    design = process.solver.solve_triangular(which)
    scores = process.solver.solve_triangular(grid.scores.ravel())
    return solve_cholesky(cholesky(design.T @ design), (design.T @ scores)[:, None])[:, 0]


class DenseFit(NamedTuple):
    """A fitted model and how the optimisation went.

    Attributes:
        fit: as of `fit_mle`; its model is a `DenseGP`.
    """

    fit: Fit

    @property
    def model(self) -> MultiTaskGP:
        return self.fit.model.model

    def diagnostics(self) -> dict[str, float]:
        """As of `fit_mle`."""
        return self.fit.diagnostics()

    def posterior(self, grid: CurveGrid, rank: int | None = None) -> DensePosterior:
        """What the sources say of any target. Dense algebra has no use for a `rank`."""
        return self.fit.model.posterior(grid)


def fit_dense(
    starts: MultiTaskGP,
    grid: CurveGrid,
    key: PRNGKeyArray | None = None,
    *,
    optimizer: Optimizer = "adam",
    steps: int = 300,
    learning_rate: float = 0.05,
    largest: int = LARGEST,
) -> DenseFit:
    """Maximise the log marginal likelihood of `grid` from each of the `starts`.

    Args:
        key: not used, as nothing is random; the other ways of inference have one.
        optimizer, steps, learning_rate: as in `fit_mle`.
        largest: number of observations up to which to try.

    Raises:
        ValueError: there are more observations; the message says what they would take.
    """
    size, itemsize = grid.scores.size, grid.scores.dtype.itemsize
    if size > largest:
        raise ValueError(
            f"dense inference on {size} observations would take about "
            f"{5 * size**2 * itemsize / 2**30:.1f} GiB for matrices of {size} x {size} and time "
            f"that grows with their cube; the limit is {largest} observations. Inference on the "
            "grid (fit_mle) gives the same answers."
        )
    options: Any = {"optimizer": optimizer, "steps": steps, "learning_rate": learning_rate}
    return DenseFit(fit_mle(DenseGP(starts), grid, **options))
