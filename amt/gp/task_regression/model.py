r"""Task regression: a target's curves as a weighted sum of the sources' curves, and what is left.

Each source is brought to a common scale, \(Z_t = (y_t - a_t) / b_t\), with the mean \(a_t\) and
standard deviation \(b_t\) over configurations of the best score of a curve. In units of the average
scale \(\bar b\) of the sources, and less their average level \(\bar a\), a target is

\[ y(c, e) = o + \sum_t w_t Z_t(c, e) + u(e) + h(c, e) + d_c(e) + \varepsilon, \]

    w ~ N(1/T 1, omega^2/T I + s_b^2/T^2 1 1')   weights of the sources: the similarity of tasks
    o ~ N(0, s_o^2)                              level of the task
    u ~ GP(0, k_u(e, e'))                        course that all its configurations share
    h ~ GP(0, k_config * k_fidelity)             part of its configurations that no source shows
    d_c ~ GP(0, k_d(e, e')), independent over c  part of each configuration by itself
    epsilon ~ N(0, sigma^2(e))                   noise

All of it is Gaussian and linear, so that the weights are integrated out, never plugged in. The few
parameters are learned from the likelihood of every source given the others
(`amt.gp.task_regression.likelihood`), which is the question that is asked of the model later. With
w = 0 the model is one of a single task.

Source: Cressie (1993), Statistics for Spatial Data, chapter 2, for d as a nugget; Swersky, Snoek,
Adams (2014), for h as in freeze-thaw optimization.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints
from tinygp.kernels import Kernel

from amt.curves import LearningCurves
from amt.gp.grid import CurveGrid
from amt.gp.noise import SeparableNoise
from amt.gp.task_regression.alone import alone, target_alone, typical_score
from amt.gp.task_regression.course import Course
from amt.gp.task_regression.likelihood import Residual, feature_gram, leave_one_out
from amt.gp.task_regression.mixture import Components
from amt.gp.task_regression.surface import Interpolation, Surface
from amt.gp.task_regression.target import Product, TargetPrior
from amt.gp.task_regression.widening import no_widening
from amt.kernels import make_kernel
from amt.linalg import cholesky, eigh
from amt.parameters import parameter
from amt.precision import require_dtype

_NOISE_FLOOR = 1e-6


class CommonScale(NamedTuple):
    """Level and scale of each task, and its curves in their units.

    Attributes:
        level: a, mean over configurations of the best score of a curve.
        scale: b, standard deviation of these, at least the floor.
        curves: Z.
    """

    level: Float[Array, "task"]
    scale: Float[Array, "task"]
    curves: Float[Array, "task config epoch"]

    @classmethod
    def of(cls, scores: Float[Array, "task config epoch"], *, floor: float = 0.02) -> "CommonScale":
        """Bring complete curves to a common scale."""
        best = jnp.max(scores, axis=2)
        level, scale = jnp.mean(best, 1), jnp.maximum(jnp.std(best, 1), floor)
        return cls(level, scale, (scores - level[:, None, None]) / scale[:, None, None])


class Features(NamedTuple):
    """Functions on the grid whose weights are normal, and a root of their prior covariance.

    Attributes:
        values: a constant, functions of the epoch alone, and the curves of tasks.
        root: R, the covariance of the weights is R R'.
    """

    values: Float[Array, "row config epoch"]
    root: Float[Array, "row row"]


class TaskRegression(eqx.Module):
    """The model of the module docstring; standard deviations are in units of the average scale.

    Attributes:
        config, fidelity: kernels of h.
        trend, own: kernels of u and d, without their scales.
        surface: how curves differ among the configurations of a source.
        noise: of one task.
        widening: factors of standard deviations in forecasts (`amt.inference.widening`).
        level: s_o.
        similarity: omega.
        common: s_b.
        residual, course, itself: standard deviations of h, u and d at the last epoch.
        functions: eigenfunctions of the trend that are kept.
        typical: expected score of a target where there is no source.
    """

    config: Kernel
    fidelity: Kernel
    trend: Kernel
    own: Kernel
    surface: Surface
    noise: SeparableNoise
    widening: Float[Array, "count"]
    level: Float[Array, ""] = parameter(constraints.positive, prior=dist.Normal(-0.5, 1.0))
    similarity: Float[Array, ""] = parameter(constraints.positive, prior=dist.Normal(-0.5, 1.0))
    common: Float[Array, ""] = parameter(constraints.positive, prior=dist.Normal(-1.0, 1.0))
    residual: Float[Array, ""] = parameter(constraints.positive, prior=dist.Normal(-1.0, 1.0))
    course: Float[Array, ""] = parameter(constraints.positive, prior=dist.Normal(-1.0, 1.0))
    itself: Float[Array, ""] = parameter(constraints.positive, prior=dist.Normal(-1.5, 1.0))
    functions: int = eqx.field(static=True, default=6)
    typical: float = eqx.field(static=True, default=0.0)

    @classmethod
    def init(
        cls,
        sources: LearningCurves,
        key: PRNGKeyArray,
        *,
        config: str = "matern",
        fidelity: str | None = None,
        functions: int = 6,
        dtype: DTypeLike = jnp.float64,
    ) -> "TaskRegression":
        """A starting point for learning from `sources`; kernels by their names in `KERNELS`.

        Args:
            config: of h, and of the surface.
            fidelity: of h; by default a `Course`.
        """
        dtype = require_dtype(dtype)
        keys = jax.random.split(key, 5)

        def deviation(log: float) -> Float[Array, ""]:
            return jnp.exp(jnp.asarray(log, dtype))

        return cls(
            config=make_kernel("config", config, sources, keys[0], dtype),
            fidelity=Course.init(keys[1], dtype)
            if fidelity is None
            else make_kernel("fidelity", fidelity, sources, keys[1], dtype),
            trend=Course.init(keys[2], dtype),
            own=Course.init(keys[3], dtype),
            surface=Surface(
                make_kernel("config", config, sources, keys[4], dtype), jnp.full((), 0.6, dtype)
            ),
            noise=SeparableNoise(jnp.full((1,), jnp.exp(-4.0), dtype), jnp.ones((), dtype)),
            widening=no_widening(dtype),
            level=deviation(-0.5),
            similarity=deviation(-0.5),
            common=deviation(-1.0),
            residual=deviation(-1.0),
            course=deviation(-1.0),
            itself=deviation(-1.5),
            functions=functions,
            typical=typical_score(sources.outcome),
        )

    def noise_variance(self, epochs: Float[Array, "epoch"]) -> Float[Array, "epoch"]:
        """sigma^2 of each epoch."""
        task, epoch = self.noise.factors(1, epochs)
        return task[0] * epoch + _NOISE_FLOOR

    def residual_covariance(self, grid: CurveGrid) -> Residual:
        """Covariance of h, d and the noise, by its factors."""
        epochs = grid.epochs
        own = jnp.square(self.itself) * self.own(epochs, epochs)
        return Residual(
            config=self.config(grid.features, grid.features),
            fidelity=jnp.square(self.residual) * self.fidelity(epochs, epochs),
            own=own + jnp.diag(self.noise_variance(epochs)),
        )

    def features(
        self, curves: Float[Array, "task config epoch"], epochs: Float[Array, "epoch"], sources: int
    ) -> Features:
        """Functions whose weights are integrated out: level, course, and curves of tasks.

        Args:
            curves: tasks on a common scale.
            sources: number of tasks that the weights are shared among, T.
        """
        dtype, shape = curves.dtype, curves.shape[1:]
        trend = jnp.square(self.course) * self.trend(epochs, epochs)
        kept = min(self.functions, len(epochs))
        # A fixed basis of functions, of which the covariance is learned.
        _, vectors = eigh(jax.lax.stop_gradient(trend))
        basis = jax.lax.stop_gradient(vectors[:, -kept:])
        jitter = 10 * jnp.finfo(dtype).eps * jnp.trace(trend) * jnp.eye(kept, dtype=dtype)
        of_course = cholesky(basis.T @ trend @ basis + jitter)
        tasks = len(curves)
        root = jnp.zeros((1 + kept + tasks,) * 2, dtype)
        root = root.at[0, 0].set(self.level).at[1 : 1 + kept, 1 : 1 + kept].set(of_course)
        weights = self.weight_root(tasks, sources, dtype)
        values = jnp.concatenate(
            [
                jnp.ones((1, *shape), dtype),
                jnp.broadcast_to(basis.T[:, None, :], (kept, *shape)),
                curves,
            ]
        )
        return Features(values, root.at[1 + kept :, 1 + kept :].set(weights))

    def weight_root(self, tasks: int, sources: int, dtype: jnp.dtype) -> Float[Array, "task task"]:
        """Root of the prior covariance of the weights of tasks, which is symmetric.

        Args:
            sources: number of tasks that the weights are shared among, T.
        """
        if not tasks:
            return jnp.zeros((0, 0), dtype)
        own = self.similarity / sources**0.5
        total = jnp.sqrt(jnp.square(own) + tasks * jnp.square(self.common / sources))
        return own * jnp.eye(tasks, dtype=dtype) + (total - own) / tasks

    def target_prior(self, grid: CurveGrid) -> TargetPrior:
        """The prior of a target on the sources' grid, given their curves, if there are any."""
        if not len(grid.scores):
            return target_alone(grid.features, grid.epochs, self.typical)
        tasks = CommonScale.of(grid.scores)
        count, size = len(tasks.level), len(grid.features)
        level, scale = jnp.mean(tasks.level), jnp.mean(tasks.scale)
        features = self.features(tasks.curves, grid.epochs, count)
        weighted = features.root[-count:, -count:].T
        residual, epochs = self.residual_covariance(grid), grid.epochs
        variance, noise = jnp.square(scale), self.noise_variance(grid.epochs)

        interpolation = Interpolation.of(self.surface, grid.features)
        shared = jnp.mean(tasks.curves, 0)
        of_shared = interpolation.covariance_of_epochs(shared)
        of_tasks = jax.vmap(interpolation.covariance_of_epochs)(tasks.curves - shared)
        of_tasks = jnp.sum(of_tasks, 0) / max(count - 1, 1)
        # E (sum_t w_t)^2 and E sum_t w_t^2.
        moved, total = jnp.square(self.similarity), jnp.square(self.common)
        of_error = (1 + moved + total) * of_shared + (1 / count + moved + total / count) * of_tasks
        surface = interpolation.factor @ interpolation.factor.T
        error = jnp.zeros(size, surface.dtype)
        if grid.variance is not None:
            doubt = jnp.mean(grid.variance, 2) / jnp.square(tasks.scale)[:, None]
            error = jnp.sum(doubt, 0) * (1 / count + moved + total / count) / count
            error /= jnp.maximum(jnp.mean(jnp.diagonal(of_error)), jnp.finfo(error.dtype).tiny)
        course = jnp.square(self.course) * self.trend(epochs, epochs) + jnp.square(self.level)
        return TargetPrior(
            mean=level + scale * shared,
            typical=level + scale * jnp.mean(shared, 0),
            weighted=scale * jnp.tensordot(weighted, tasks.curves, 1),
            course=variance * course,
            error=Product(jnp.diag(error), error, variance * of_error),
            residual=Product.of(residual.config, variance * residual.fidelity),
            own=variance * (residual.own - jnp.diag(noise)),
            surface=Product.of(surface, variance * (of_shared + of_tasks)),
            **alone(grid.features, grid.epochs, sources=True),
            noise=variance * noise,
            components=Components.of(surface.dtype),
            widening=self.widening,
        )

    def log_likelihood(self, grid: CurveGrid, mesh: Mesh | None = None) -> Float[Array, "task"]:
        """Log density of every task given all others, in units of their average scale.

        Differentiable once, in reverse mode. A single task has none but its own prior.

        Args:
            mesh: devices to spread the tasks over, under `jax.jit`; by default one device.
        """
        tasks = CommonScale.of(grid.scores)
        count = len(tasks.level)
        others = max(count - 1, 1)
        features = self.features(tasks.curves, grid.epochs, others)
        level = (jnp.sum(tasks.level) - tasks.level) / others if count > 1 else tasks.level
        scale = (jnp.sum(tasks.scale) - tasks.scale) / others if count > 1 else tasks.scale
        of_tasks = jnp.diag(tasks.scale / scale) - (1 - jnp.eye(count)) / others
        first = len(features.values) - count
        coefficients = jnp.zeros((len(features.values), count), grid.scores.dtype)
        coefficients = coefficients.at[0].set((tasks.level - level) / scale)
        coefficients = coefficients.at[first:].set(of_tasks.astype(grid.scores.dtype))
        gram, log_det = feature_gram(self.residual_covariance(grid), features.values, mesh)
        size = grid.scores[0].size
        return leave_one_out(gram, log_det, features.root, coefficients, size)
