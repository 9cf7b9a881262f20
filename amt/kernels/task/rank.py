"""Kernel between tasks by how they rank the same configurations and epochs."""

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

_MOST_CELLS = 1024


def rank_distances(
    scores: Float[np.ndarray, "task config epoch"],
) -> Float[np.ndarray, "task task"]:
    r"""Share of pairs of cells that two tasks rank in opposite order (Kendall's distance).

    A cell is a (configuration, epoch); a pair counts where both tasks have both of its cells, a
    quarter where only one of the tasks has a tie. With the signs \(S_{tp}\) of the differences of
    the pairs, \(d(t, t') = \frac14 \mathrm{mean}_p (S_{tp} - S_{t'p})^2\). Tasks without a pair in
    common are at the mean of the others' distances. Of larger grids, the same 1024 cells, drawn at
    random, stand for all.
    """
    flat = np.asarray(scores).reshape(len(scores), -1)
    if flat.shape[1] > _MOST_CELLS:
        chosen = np.random.default_rng(0).choice(flat.shape[1], _MOST_CELLS, replace=False)
        flat = flat[:, chosen]
    discordant, count = np.zeros((2, len(flat), len(flat)))
    for cell in range(1, flat.shape[1]):
        difference = flat[:, [cell]] - flat[:, :cell]
        known = np.isfinite(difference).astype(np.float64)
        sign = np.sign(np.where(known, difference, 0))
        untied = np.square(sign) @ known.T
        discordant += (untied + untied.T - 2 * sign @ sign.T) / 4
        count += known @ known.T
    distance = np.where(count > 0, discordant / np.maximum(count, 1), np.nan)
    np.fill_diagonal(distance, 0.0)
    return np.where(np.isnan(distance), _mean_and_weight(distance)[0], distance)


def _mean_and_weight(distance: Float[np.ndarray, "task task"]) -> tuple[float, float]:
    """The Beta distribution of the distances' mean and variance: its mean, and what it weighs."""
    pairs = distance[np.triu_indices_from(distance, 1)]
    pairs = pairs[np.isfinite(pairs)]
    if len(pairs) < 3:
        return (float(pairs.mean()) if len(pairs) else 0.5), 2.0
    mean, variance = float(pairs.mean()), float(pairs.var())
    weight = mean * (1 - mean) / max(variance, 1e-12) - 1
    return mean, float(np.clip(weight, 2.0, 1e3))


def _bandwidth_prior(kernel: "RankAgreement") -> dist.Distribution:
    """Log-normal around the mean distance of tasks."""
    return dist.Normal(jnp.log(mean_distance(kernel.distance)), 1.0)


class RankAgreement(TaskKernel):
    r"""Similarity of tasks by Kendall's distance of their rankings.

    \[ k(t, t') = s\, e^{-d(t, t') / \ell} \]

    with d of `rank_distances`: scores may differ by any increasing function. On complete tasks d
    is a squared Euclidean distance, and this, the Mallows kernel, is positive semi-definite
    (Jiao and Vert); otherwise the nearest matrix that is so takes its place (`project_psd`).

    A target is compared with each source on all pairs of its n observations there. Its share of
    discordant pairs is mixed with the mean m of the sources' distances as the mean of a Beta
    distribution is: \(d = (\tfrac n2 \hat d + w m) / (\tfrac n2 + w)\), where m and w are those of
    the Beta distribution that has the mean and variance of the sources' distances, and n / 2 is
    how many pairs without a cell in common n observations make. Without observations, all sources
    are as similar as sources are to one another.

    Both choices are measured, on HyperRec and LCBench with observations that a tuner might have:
    n / 2 gives nearly the weights of least squared error, where counting pairs as independent
    doubles or triples them; and pairs of cells at any epochs tell more of the distance of
    rankings at the end than pairs at the same epoch do.

    Source: Wistuba, Schilling, Schmidt-Thieme (2016), two-stage surrogates, with this kernel in
    place of Epanechnikov's, which is indefinite; Jiao and Vert (2015).
    """

    distance: Float[Array, "task task"]
    prior_distance: Float[Array, ""]
    prior_weight: Float[Array, ""]
    scale: Float[Array, ""] = parameter(
        constraints.positive, prior=dist.Normal(0.0, 3.0), role="scale"
    )
    bandwidth: Float[Array, ""] = parameter(constraints.positive, prior=_bandwidth_prior)
    psd: Literal["project"] | None = eqx.field(static=True, default="project")

    @classmethod
    def init(
        cls, scores: Float[np.ndarray, "task config epoch"], key: PRNGKeyArray, dtype: jnp.dtype
    ) -> "RankAgreement":
        """Starts at s = 1 and a bandwidth at which the mean pair correlates by 1/e, varied by the
        key by a factor of about two.
        """
        distance = rank_distances(scores)
        mean, weight = _mean_and_weight(distance)
        typical = jnp.asarray(mean if mean > 0 else 1.0, dtype)
        return cls(
            distance=jnp.asarray(distance, dtype),
            prior_distance=jnp.asarray(mean, dtype),
            prior_weight=jnp.asarray(weight, dtype),
            scale=jnp.ones((), dtype),
            bandwidth=typical * jnp.exp2(jax.random.normal(key, (), dtype)),
            psd="project" if np.isnan(scores).any() else None,
        )

    def gram(self) -> Float[Array, "task task"]:
        gram = self.scale * jnp.exp(-self.distance / self.bandwidth)
        return gram if self.psd is None else project_psd(gram)

    def with_target(self, observations: TargetObservations) -> "RankAgreement":
        source = observations.source.T
        matched = observations.mask & jnp.isfinite(source)
        source = jnp.where(matched, source, 0)
        ranked = jnp.sign(observations.score[:, None] - observations.score)
        differs = ranked - jnp.sign(source[:, :, None] - source[:, None, :])
        pairs = matched[:, :, None] & matched[:, None, :]
        discordant = jnp.sum(jnp.where(pairs, jnp.square(differs) / 4, 0), (1, 2))
        count = matched.sum(1)
        seen = discordant / jnp.maximum(count * (count - 1), 1)
        own = jnp.where(count > 1, count / 2, 0).astype(seen.dtype)
        mixed = own * seen + self.prior_weight * self.prior_distance
        return RankAgreement(
            distance=bordered(self.distance, mixed / (own + self.prior_weight), jnp.zeros(())),
            prior_distance=self.prior_distance,
            prior_weight=self.prior_weight,
            scale=self.scale,
            bandwidth=self.bandwidth,
            psd="project",
        )
