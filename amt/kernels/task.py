"""Kernels between tasks.

A task is an integer, its position among the tasks that the kernel was made for: a Gram matrix is
`kernel(tasks, tasks)` with `tasks = jnp.arange(T)`. A task kernel also says how a new task joins:
`kernel.with_target(observations)` is the kernel of T + 1 tasks, the target last, with the
similarity of the target to every source as far as its observations show it.
"""

from abc import abstractmethod
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpyro.distributions import constraints
from tinygp.kernels import Kernel

from amt.gp._linalg import cholesky, solve_cholesky, solve_lower
from amt.kernels.psd import project_psd
from amt.parameters import parameter


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


def bordered(
    matrix: Float[Array, "task task"], row: Float[Array, "task"], corner: Float[Array, ""]
) -> Float[Array, "task+1 task+1"]:
    """`matrix` with one more row and column."""
    last = jnp.append(row, corner.astype(row.dtype))
    return jnp.block([[matrix, row[:, None]], [last[None, :]]])


_UNMATCHED_DISTANCE = 0.5


def task_distances(
    scores: Float[np.ndarray, "task config epoch"],
) -> tuple[Float[np.ndarray, "task task"], Float[np.ndarray, "task task"]]:
    r"""Distances of tasks, and the share of the grid that both of a pair have observed.

    \(d(t, t') = \frac1n \lVert (y_t - \bar y_t) - (y_{t'} - \bar y_{t'}) \rVert^2\) over the n
    (configuration, epoch) cells that both tasks have, the means over these cells alone; 0.5 for
    n <= 1. This is the variance of the difference of the two tasks' scores.

    Source: Xiao, Xing, Neiswanger (2021), section 4.1; the value for n <= 1 is that of the
    authors' code.
    """
    flat = np.asarray(scores, dtype=np.float64).reshape(len(scores), -1)
    distance = np.zeros((len(flat), len(flat)))
    count = np.zeros_like(distance)
    for task, row in enumerate(flat):
        difference = row - flat
        matched = np.isfinite(difference)
        count[task] = matched.sum(1)
        known = np.maximum(count[task], 1)
        centred = difference - (np.where(matched, difference, 0).sum(1) / known)[:, None]
        distance[task] = np.square(np.where(matched, centred, 0)).sum(1) / known
    distance[count <= 1] = _UNMATCHED_DISTANCE
    np.fill_diagonal(distance, 0.0)
    return distance, count / flat.shape[1]


class AT2Task(TaskKernel):
    r"""Low-fidelity similarity of tasks.

    \[ k(t, t') = s \exp\!\big(-d(t, t') / (\ell\, g(t, t'))^2\big), \qquad
       g = \frac{U}{1 + (U - 1)\, r} \]

    with the distance d of `task_distances` and the share r of the grid on which it was measured:
    a similarity measured on few observations is taken as larger (g from U > 1 down to 1).
    As each pair is measured on its own cells, the Gram matrix can be indefinite.
    `psd="project"` takes the nearest PSD matrix with the same diagonal (`project_psd`),
    `psd=None` the published values.

    U shows only in incomplete tasks: complete sources leave it where it starts.

    Source: Xiao, Xing, Neiswanger (2021), section 4.1.
    """

    distance: Float[Array, "task task"]
    overlap: Float[Array, "task task"]
    scale: Float[Array, ""] = parameter(constraints.positive)
    lengthscale: Float[Array, ""] = parameter(constraints.positive)
    U: Float[Array, ""] = parameter(constraints.greater_than(1.0))
    psd: Literal["project"] | None = eqx.field(static=True, default="project")

    @classmethod
    def init(
        cls, scores: Float[np.ndarray, "task config epoch"], key: PRNGKeyArray, dtype: jnp.dtype
    ) -> "AT2Task":
        """Starts at s = 1, U = 1.5 and a lengthscale at which the median pair correlates by 1/e,
        varied by the key by a factor of about two.
        """
        distance, overlap = task_distances(scores)
        pairs = distance[np.triu_indices_from(distance, 1)]
        typical = np.sqrt(np.median(pairs)) if pairs.size and np.median(pairs) > 0 else 1.0
        return cls(
            distance=jnp.asarray(distance, dtype),
            overlap=jnp.asarray(overlap, dtype),
            scale=jnp.ones((), dtype),
            lengthscale=jnp.asarray(typical, dtype) * jnp.exp2(jax.random.normal(key, (), dtype)),
            U=jnp.asarray(1.5, dtype),
        )

    def gram(self) -> Float[Array, "task task"]:
        g = self.U / (1 + (self.U - 1) * self.overlap)
        published = self.scale * jnp.exp(-self.distance / jnp.square(self.lengthscale * g))
        return published if self.psd is None else project_psd(published)

    def with_target(self, observations: TargetObservations) -> "AT2Task":
        difference = observations.score[:, None] - observations.source
        matched = observations.mask[:, None] & jnp.isfinite(difference)
        count = matched.sum(0)
        known = jnp.maximum(count, 1)
        mean = jnp.where(matched, difference, 0).sum(0) / known
        variance = jnp.square(jnp.where(matched, difference - mean, 0)).sum(0) / known
        distance = jnp.where(count > 1, variance, _UNMATCHED_DISTANCE)
        overlap = (count * observations.share).astype(distance.dtype)
        own = observations.mask.sum() * observations.share
        return AT2Task(
            distance=bordered(self.distance, distance, jnp.zeros(())),
            overlap=bordered(self.overlap, overlap, own),
            scale=self.scale,
            lengthscale=self.lengthscale,
            U=self.U,
            psd=self.psd,
        )


class ICM(TaskKernel):
    r"""Free-form coregionalization: \(K = L L^\top + \mathrm{diag}(\kappa)\), L of shape (T, rank).

    Task t is \(\sum_r L_{tr} g_r + \sqrt{\kappa_t} h_t\), of latent functions shared by all tasks
    and one of its own. A target's loadings have the prior \(N(\bar L, \mathrm{cov}(L))\) of the
    sources' rows and are replaced by their posterior mean given its observations: a linear
    regression on the latent functions as the sources determine them, with the target's own
    function, its mean and the noise as errors. Its kappa is the sources' mean.

    Source: Bonilla, Chai, Williams (2007), equation 2; Swersky, Snoek, Adams (2013), section 3.
    """

    loadings: Float[Array, "task rank"] = parameter()
    kappa: Float[Array, "task"] = parameter(constraints.positive)

    @classmethod
    def init(
        cls,
        scores: Float[np.ndarray, "task config epoch"],
        key: PRNGKeyArray,
        dtype: jnp.dtype,
        *,
        rank: int = 2,
    ) -> "ICM":
        """Starts with every task loading on the first latent function, and noise on the others."""
        loadings = 0.3 * jax.random.normal(key, (len(scores), rank), dtype)
        return cls(loadings=loadings.at[:, 0].add(1.0), kappa=jnp.full((len(scores),), 0.1, dtype))

    def gram(self) -> Float[Array, "task task"]:
        return self.loadings @ self.loadings.T + jnp.diag(self.kappa)

    def with_target(self, observations: TargetObservations) -> "ICM":
        prior_mean = self.loadings.mean(0)
        centred = self.loadings - prior_mean
        # The prior covariance of the loadings is R R', the errors' L L'.
        rounding = jnp.finfo(centred.dtype)
        jitter = 10 * rounding.eps * jnp.square(self.loadings).sum() + rounding.tiny
        identity = jnp.eye(centred.shape[1], dtype=centred.dtype)
        root = cholesky(centred.T @ centred / max(len(centred) - 1, 1) + jitter * identity)
        kappa = self.kappa.mean()

        latent = jnp.where(observations.mask[:, None], observations.response, 0) @ self.loadings
        residual = jnp.where(observations.mask, observations.residual, 0) - latent @ prior_mean
        whitened: Array = solve_lower(
            cholesky(observations.error(kappa)),
            jnp.concatenate([latent @ root, residual[:, None]], 1),
        )
        design, response = whitened[:, :-1], whitened[:, -1:]
        precision = cholesky(identity + design.T @ design)
        shift = root @ solve_cholesky(precision, design.T @ response)[:, 0]
        return ICM(
            loadings=jnp.concatenate([self.loadings, (prior_mean + shift)[None]]),
            kappa=jnp.append(self.kappa, kappa),
        )
