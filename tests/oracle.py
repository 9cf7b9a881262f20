"""The one dense Gaussian process of all tests, through tinygp's own direct solver.

What is computed fast in `amt.gp` is computed here from its definition: every score is a point with
a task, a configuration and an epoch, the kernel is evaluated for each pair of points, and their
covariance is factorised. A missing score, and padding, is a point that is independent of all
others: it changes nothing, so that values differ where shapes need not.

For float64 alone.
"""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import tinygp
from jaxtyping import Array, Bool, Float
from tinygp.kernels import Kernel

from amt.gp.factors import Factors
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.observations import Observations, TargetPosterior
from amt.gp.points import GridPoints, KroneckerKernel, grid_points
from amt.gp.posterior import CurvePrediction
from amt.gp.sources import Sources
from amt.kernels.task import GivenGram, TaskKernel


class Gram(Kernel):
    """A kernel on positions, which are numbers or features of one column, of a given matrix."""

    matrix: Float[Array, "n n"]

    def evaluate(self, X1, X2):
        row, column = (jnp.ravel(x)[0].astype(int) for x in (X1, X2))
        return self.matrix[row, column]


class Same(Kernel):
    """1 of a configuration with itself, else 0."""

    def evaluate(self, X1, X2):
        return jnp.all(X1 == X2).astype(jnp.result_type(X1))


class KnownTask(TaskKernel):
    """Covariances of the sources and a target, which is last, whatever is observed."""

    full: Float[Array, "task+1 task+1"]

    def gram(self):
        return self.full[:-1, :-1]

    def with_target(self, observations):
        return GivenGram(self.full)


class _AmongSeen(Kernel):
    """The covariance of points that have a score; the others are independent."""

    kernel: Kernel

    def evaluate(self, X1, X2):
        (first, seen), (second, also) = X1, X2
        return jnp.where(seen & also, self.kernel.evaluate(first, second), 0)


class Oracle(eqx.Module):
    """Scores at points, and the covariance of f there.

    Attributes:
        kernel: of f, on `GridPoints`.
        points: where the scores are.
        score: of each point, NaN where there is none.
        noise: noise variance of each.
    """

    kernel: Kernel
    points: GridPoints
    score: Float[Array, "point"]
    noise: Float[Array, "point"]

    @property
    def seen(self) -> Bool[Array, "point"]:
        return jnp.isfinite(self.score)

    def process(self) -> tinygp.GaussianProcess:
        X, noise = (self.points, self.seen), jnp.where(self.seen, self.noise, 1)
        return tinygp.GaussianProcess(_AmongSeen(self.kernel), X, diag=noise)

    def least_squares(self, design: Float[Array, "point mean"]) -> Float[Array, "mean"]:
        """Generalized-least-squares coefficients of the columns of `design`."""
        solver, seen = self.process().solver, self.seen
        columns = solver.solve_triangular(jnp.where(seen[:, None], design, 0))
        right = solver.solve_triangular(jnp.where(seen, self.score, 0))
        return jnp.linalg.solve(columns.T @ columns, columns.T @ right)

    def log_density(self, mean: Float[Array, "point"]) -> Float[Array, ""]:
        """Log density of the scores, of a given mean."""
        residual = jnp.where(self.seen, self.score - mean, 0)
        padding = jnp.sum(~self.seen) * math.log(2 * math.pi) / 2
        return self.process().log_probability(residual) + padding

    def predict(
        self, mean: Float[Array, "point"], test: GridPoints
    ) -> tuple[Float[Array, "test"], Float[Array, "test"]]:
        """Mean, less the prior's, and variance of f elsewhere, given the scores."""
        residual = jnp.where(self.seen, self.score - mean, 0)
        X = test, jnp.ones(len(test.task), bool)
        posterior = self.process().condition(residual, X, diag=0.0).gp
        return posterior.loc, posterior.variance


def product(
    task: Kernel, config: Kernel, fidelity: Kernel, nugget: Float[Array, "task"] | None = None
) -> Kernel:
    """The model's covariance of f, with a variance of each curve by itself if there is one."""
    kernel = KroneckerKernel(task, config, fidelity)
    if nugget is not None:
        kernel += KroneckerKernel(Gram(jnp.diag(nugget)), Same(), fidelity)
    return kernel


def _on_grid(kernel, features, epochs, scores, task_noise, epoch_noise) -> Oracle:
    points = grid_points(jnp.arange(len(scores)), features, epochs)
    noise = jnp.broadcast_to(task_noise[:, None, None] * epoch_noise, scores.shape)
    return Oracle(kernel, points, scores.ravel(), noise.ravel())


def of_model(model: MultiTaskGP, grid: CurveGrid) -> Oracle:
    """Source curves under a model, its kernels evaluated point by point."""
    noise = model.noise.factors(len(grid.scores), grid.epochs)
    kernel = product(model.task, model.config, model.fidelity, model.nugget)
    return _on_grid(kernel, grid.features, grid.epochs, grid.scores, *noise)


def of_factors(factors: Factors, scores: Float[Array, "task config epoch"]) -> Oracle:
    """Source curves of given Gram matrices and noise."""
    kernel = product(*map(Gram, factors.grams), factors.nugget)
    features, epochs = jnp.arange(scores.shape[1])[:, None], jnp.arange(scores.shape[2])
    return _on_grid(kernel, features, epochs, scores, factors.task_noise, factors.epoch_noise)


def of_sources(sources: Sources) -> Oracle:
    """Source curves under the kernels that the sources carry."""
    factors, inputs = sources.factors, sources.off_grid()
    kernel = product(sources.task, inputs.config, inputs.fidelity, factors.nugget)
    noise = factors.task_noise, factors.epoch_noise
    return _on_grid(kernel, inputs.features, inputs.epochs, sources.scores, *noise)


def design(
    scores: Float[Array, "task config epoch"], shape: Float[Array, "epoch"] | None = None
) -> Float[Array, "point task"]:
    """The task of each score, times the course of a mean over the epochs, which is 1 by default."""
    which = jnp.repeat(jnp.eye(len(scores)), scores[0].size, axis=0)
    return which if shape is None else which * jnp.tile(shape, len(which) // len(shape))[:, None]


def profile(
    oracle: Oracle,
    scores: Float[Array, "task config epoch"],
    shape: Float[Array, "epoch"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, "task"]]:
    """Log density at the generalized-least-squares means of the tasks, and these."""
    columns = design(scores, shape)
    means = jax.lax.stop_gradient(oracle.least_squares(columns))
    return oracle.log_density(columns @ means), means


def solve(
    factors: Factors,
    scores: Float[Array, "task config epoch"],
    shape: Float[Array, "epoch"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, "task"]]:
    """`profile` of given Gram matrices and noise."""
    return profile(of_factors(factors, scores), scores, shape)


def _with_nugget(sources: Sources) -> Sources:
    """With a nugget, of 0 where there is none: one program does for both."""
    factors = sources.factors
    if factors.nugget is None:
        factors = factors._replace(nugget=np.zeros(len(factors.task_noise)))
    return dataclasses.replace(sources, factors=factors)


def source_means(sources: Sources) -> Float[Array, "task"]:
    """Generalized-least-squares means of the sources."""
    return _source_means(_with_nugget(sources))


@jax.jit
def _source_means(sources: Sources) -> Float[Array, "task"]:
    return of_sources(sources).least_squares(design(sources.scores))


def curves(
    sources: Sources,
    features: Float[Array, "row feature"] | None = None,
    epochs: Float[Array, "epoch"] | None = None,
) -> CurvePrediction:
    """The sources' noise-free scores given all of theirs, at any configurations and epochs."""
    inputs = sources.off_grid()
    features = inputs.features if features is None else features
    epochs = inputs.epochs if epochs is None else epochs
    return _curves(_with_nugget(sources), features, epochs)


@jax.jit
def _curves(sources, features, epochs) -> CurvePrediction:
    oracle, means = of_sources(sources), _source_means(sources)
    test = grid_points(jnp.arange(len(means)), features, epochs)
    mean, variance = oracle.predict(design(sources.scores) @ means, test)
    shape = len(means), len(features), len(epochs)
    return CurvePrediction(
        mean.reshape(shape) + means[:, None, None],
        variance.reshape(shape),
    )


@jax.jit
def _given_scores(sources, full, means, config, epoch, score, extra) -> TargetPosterior:
    """The target's posterior given its scores that are not NaN."""
    oracle, inputs, factors = of_sources(sources), sources.off_grid(), sources.factors
    target = len(means)
    mean = jnp.mean(means)
    mean_variance = jnp.var(means, ddof=1) if target > 1 else jnp.nanvar(sources.scores)
    is_target = jnp.zeros_like(full).at[target, target].set(mean_variance)
    one = tinygp.kernels.Constant(jnp.ones(()))
    nugget = factors.nugget
    if nugget is not None:
        nugget = jnp.append(nugget, jnp.mean(nugget))
    kernel = product(Gram(full), inputs.config, inputs.fidelity, nugget)
    kernel += KroneckerKernel(Gram(is_target), one, one)

    rows = inputs.features if extra is None else jnp.concatenate([inputs.features, extra])
    own = GridPoints(jnp.full(len(config), target), rows[config], inputs.epochs[epoch])
    noise = jnp.exp(jnp.mean(jnp.log(factors.task_noise))) * factors.epoch_noise[epoch]
    together = Oracle(
        kernel,
        jax.tree.map(lambda a, b: jnp.concatenate([a, b]), oracle.points, own),
        jnp.append(oracle.score, score),
        jnp.append(oracle.noise, noise),
    )
    prior = jnp.append(design(sources.scores) @ means, jnp.full(len(config), mean))
    test = grid_points(jnp.full(1, target), rows, inputs.epochs)
    change, variance = together.predict(prior, test)
    shape = len(rows), len(inputs.epochs)
    return TargetPosterior(change.reshape(shape) + mean, variance.reshape(shape))


def condition(
    sources: Sources,
    full: Float[Array, "task+1 task+1"],
    observations: Observations,
    extra: Float[Array, "extra feature"] | None = None,
    pending: Observations | None = None,
    means: Float[Array, "task"] | None = None,
) -> TargetPosterior:
    """The posterior of a target given the sources and its observations.

    Args:
        full: covariances of the sources and the target, which is last.
        extra: features of configurations behind those of the grid.
        pending: evaluations that are believed to have the posterior mean as their scores.
        means: of the sources; by default at their generalized-least-squares value.
    """
    sources = _with_nugget(sources)
    means = source_means(sources) if means is None else means
    config, epoch, score = _told(observations, pending)
    before = _given_scores(sources, full, means, config, epoch, score, extra)
    if pending is None:
        return before
    score = _believed(score, before.mean, pending)
    return _given_scores(sources, full, means, config, epoch, score, extra)


@jax.jit
def _told(observations: Observations, pending: Observations | None) -> tuple[Array, ...]:
    """Configurations, epochs and scores, NaN in what is padding; behind them what is pending."""
    config, epoch, score, _ = observations
    score = jnp.where(observations.mask, score, jnp.nan)
    if pending is None:
        return config, epoch, score
    unknown = jnp.full(len(pending.score), jnp.nan)
    return (
        jnp.append(config, pending.config),
        jnp.append(epoch, pending.epoch),
        jnp.append(score, unknown),
    )


@jax.jit
def _believed(score: Array, mean: Array, pending: Observations) -> Array:
    """Scores of what is pending, at the end, that are the mean."""
    believed = jnp.where(pending.mask, mean[pending.config, pending.epoch], jnp.nan)
    return score.at[-len(believed) :].set(believed)
