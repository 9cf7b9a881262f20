"""Kernel between tasks by the similarity of their learning curves, as in AT2."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from amt.kernels.task.base import TargetObservations, TaskKernel, bordered, mean_distance
from amt.kernels.task.psd import project_psd
from amt.parameters import parameter

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


def _lengthscale_prior(kernel: "AT2Task") -> dist.Distribution:
    """Log-normal around the lengthscale that makes the mean exponent of complete tasks 1."""
    return dist.Normal(0.5 * jnp.log(mean_distance(kernel.distance)), 1.0)


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
    scale: Float[Array, ""] = parameter(
        constraints.positive, prior=dist.Normal(0.0, 3.0), role="scale"
    )
    lengthscale: Float[Array, ""] = parameter(constraints.positive, prior=_lengthscale_prior)
    U: Float[Array, ""] = parameter(
        constraints.greater_than(1.0),
        prior=dist.Normal(-0.7, 1.0),  # U - 1 is around 1/2
    )
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
