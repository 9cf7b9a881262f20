r"""The target task, conditioned on complete source grids.

In units of the noise (`amt.gp.solvers.kronecker.whiten`), let \(k_*\) be the covariances of the target
with the sources, s its variance, and \(q = Q_T^\top k_*\). Given all source scores, the target's f
is a Gaussian process on the (config, epoch) grid, diagonal in the eigenbasis of the grid:

\[ \mu_{jk} = \lambda^C_j \lambda^E_k \sum_i q_i \alpha_{ijk}, \qquad
   V_{jk} = s\, \lambda^C_j \lambda^E_k - (\lambda^C_j \lambda^E_k)^2 \sum_i q_i^2 / D_{ijk} . \]

n observations of the target cost one n x n Cholesky factorisation, whatever the number of source
observations. They are padded to a fixed capacity, so that shapes never change.

The target has a mean of its own. It is integrated out under the normal prior that the source
means suggest, \(m_* \sim N(\bar m, \mathrm{var}(m))\): a constant added to the covariance.

Configurations off the grid have coordinates in the same eigenbasis, \(v = Q_C^\top k_C(C, x)\).
With \(W_{jk} = \sum_i q_i^2 / D_{ijk}\) and \(u = Q_E\) e's row,

\[ \mu(x, e) = \sum_{jk} v_j u_k \lambda^E_k \sum_i q_i \alpha_{ijk}, \qquad
   \mathrm{cov}\big((x, e), (x', e')\big) = \sum_k u_k u'_k \big( s\, \lambda^E_k k_C(x, x')
   - (\lambda^E_k)^2 \sum_j v_j v'_j W_{jk} \big), \]

where grid configurations are those with \(v = \lambda^C Q_C\) c's row.

Smooth fidelity kernels have few eigenvalues above rounding error. Only the largest `rank` are
carried (`numerical_rank` says how many there are), which changes nothing but time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from tinygp.kernels import Kernel

from amt.gp.solvers.kronecker import Eigen, kronecker_product, outer, whiten
from amt.kernels.task import TargetObservations, TaskKernel
from amt.linalg import cholesky, solve_cholesky, solve_lower


class Observations(NamedTuple):
    """Scores of the target, in the order told: the first `count` entries, the rest is padding."""

    config: Int[Array, "obs"]
    epoch: Int[Array, "obs"]
    score: Float[Array, "obs"]
    count: Int[Array, ""]

    @classmethod
    def empty(cls, capacity: int, dtype: jnp.dtype) -> "Observations":
        index = jnp.zeros((capacity,), jnp.int32)
        return cls(index, index, jnp.zeros((capacity,), dtype), jnp.zeros((), jnp.int32))

    @classmethod
    def of(
        cls, entries: Sequence[tuple[int, int, float]], capacity: int, dtype: jnp.dtype
    ) -> "Observations":
        """Of (configuration, epoch, score), both by position, with room for `capacity`."""
        config, epoch = np.zeros((2, capacity), np.int32)
        score = np.zeros(capacity, dtype)
        for index, entry in enumerate(entries):
            config[index], epoch[index], score[index] = entry
        return cls(*map(jnp.asarray, (config, epoch, score, np.int32(len(entries)))))

    def append(
        self, config: Int[Array, ""], epoch: Int[Array, ""], score: Float[Array, ""]
    ) -> "Observations":
        """With one more observation; it is dropped where the capacity is used up."""
        new = jnp.asarray(config), jnp.asarray(epoch), jnp.asarray(score)
        arrays = (
            old.at[self.count].set(value.astype(old.dtype), mode="drop")
            for old, value in zip(self[:3], new, strict=True)
        )
        return Observations(*arrays, self.count + 1)

    def padded(self, capacity: int) -> "Observations":
        """The same observations with room for more."""
        more = capacity - self.score.shape[0]
        config, epoch, score = (jnp.pad(a, (0, more)) for a in self[:3])
        return Observations(config, epoch, score, self.count)

    @property
    def mask(self) -> Bool[Array, "obs"]:
        return jnp.arange(self.score.shape[0]) < self.count

    def with_pending(
        self, pending: "Observations | None"
    ) -> tuple["Observations", Bool[Array, "both"] | None]:
        """Both, one behind the other, of which these alone count; and which are under way."""
        if pending is None:
            return self, None
        both = map(jnp.concatenate, zip(self[:3], pending[:3], strict=True))
        under_way = jnp.append(jnp.zeros_like(self.mask), pending.mask)
        return Observations(*both, self.count), under_way


class TargetPosterior(NamedTuple):
    """Marginals of the noise-free score f of the target, its mean included, on its grid.

    That of an `Ensemble` has a leading axis, one entry a draw.
    """

    mean: Float[Array, "*draw config epoch"]
    variance: Float[Array, "*draw config epoch"]


class OffGrid(NamedTuple):
    """Configurations off the grid, by their covariances \\(k_C\\).

    Behind the C configurations of the grid they count from C. Only the first of them, the rows of
    `gram`, can have observations.

    Attributes:
        cross: with the grid.
        gram: of those that can have observations with all.
        variance: of each by itself.
    """

    cross: Float[Array, "extra config"]
    gram: Float[Array, "observable extra"]
    variance: Float[Array, "extra"]

    @classmethod
    def empty(cls, num_configs: int, dtype: jnp.dtype) -> "OffGrid":
        """None at all."""
        nothing = jnp.zeros((0, num_configs), dtype)
        return cls(nothing, nothing[:, :0], nothing[:, 0])

    @classmethod
    def of(
        cls,
        kernel: Kernel,
        grid: Float[Array, "config feature"],
        extra: Float[Array, "extra feature"],
        observable: int | None = None,
    ) -> "OffGrid":
        """From features; the first `observable` can have observations, by default all."""
        return cls(kernel(extra, grid), kernel(extra[:observable], extra), kernel(extra))


def numerical_rank(gram: Float[Array, "*batch n n"]) -> int:
    """How many eigenvalues exceed n * eps * the largest, at most over the batch (not for jit)."""
    values = np.linalg.eigvalsh(np.asarray(gram))
    floor = values.shape[-1] * np.finfo(values.dtype).eps * values[..., -1:]
    return max(int((values > floor).sum(-1).max()), 1)


def mean_prior(
    means: Float[Array, "task"], scores: Float[Array, "task config epoch"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean and variance of the target's mean; of one source, the variance of its scores."""
    return jnp.mean(means), jnp.var(means, ddof=1) if means.size > 1 else jnp.nanvar(scores)


def target_noise(task_noise: Float[Array, "task"]) -> Float[Array, ""]:
    """The target's noise variance at the last epoch: the sources' geometric mean."""
    return jnp.exp(jnp.mean(jnp.log(task_noise)))


def beside_sources(
    observations: Observations,
    scores: Float[Array, "task config epoch"],
    response: Float[Array, "task config epoch"],
    mean: tuple[Float[Array, ""], Float[Array, ""]],
    prior: Float[Array, "obs obs"],
    noise: Float[Array, "obs"],
    nugget: Float[Array, "obs obs"] | float = 0.0,
) -> TargetObservations:
    """What a task kernel is told; `mean` is from `mean_prior`, the rest as it says there.

    The sources have no scores of configurations off the grid.
    """
    at = observations.config, observations.epoch
    return TargetObservations(
        score=observations.score,
        mask=observations.mask,
        source=scores.at[:, *at].get(mode="fill", fill_value=jnp.nan).T,
        residual=observations.score - mean[0],
        response=response[:, *at].T,
        prior=prior,
        noise=noise,
        mean_variance=mean[1],
        share=1 / scores[0].size,
        nugget=nugget,
    )


class Regression(NamedTuple):
    r"""How a target depends on sources whose covariances are kept.

    A task kernel that projects to the nearest PSD matrix changes covariances among the sources,
    once it has seen the target. What is taken of its Gram matrix \(\tilde K\) is how the target
    regresses on them, \(w = \tilde K^{-1} \tilde k\), and the variance left over; so
    \(k_* = K w\).

    Attributes:
        similarity: covariances \(k_*\) with the sources.
        variance: the target's.
        weights: w.
        indefinite: whether less than rounding errors is left over.
    """

    similarity: Float[Array, "task"]
    variance: Float[Array, ""]
    weights: Float[Array, "task"]
    indefinite: Bool[Array, ""]

    @classmethod
    def of(
        cls, sources: Float[Array, "task task"], gram: Float[Array, "task+1 task+1"]
    ) -> "Regression":
        """Of the Gram matrix of the sources, and the kernel's with the target."""
        row = gram[:-1, -1]
        ridge = jnp.finfo(row.dtype).eps ** 0.5 * jnp.mean(jnp.diagonal(gram)[:-1])
        factor = cholesky(gram[:-1, :-1] + ridge * jnp.eye(len(row), dtype=row.dtype))
        weights: Array = solve_cholesky(factor, row[:, None])[:, 0]
        changed = (sources - gram[:-1, :-1]) @ weights
        indefinite = gram[-1, -1] - row @ weights < -10 * ridge
        return cls(row + changed, gram[-1, -1] + weights @ changed, weights, indefinite)


def condition_on(
    observations: Observations,
    noise: Float[Array, "obs"],
    prior: TargetPosterior,
    cross: Float[Array, "obs config function"],
    epochs: Float[Array, "epoch function"],
    pending: Bool[Array, "obs"] | None = None,
) -> TargetPosterior:
    r"""The target given its observations, of a prior whose functions of the epoch are few.

    Args:
        noise: noise variance of each observation.
        prior: before them.
        cross: covariances of the observations with f are `cross @ epochs.T`.
        pending: entries behind all observations that are under way, whose scores are taken to be
            the posterior mean there, given the observations. In \(z = L^{-1} (y - \mu)\), L
            the Cholesky factor, these are the entries of 0.
    """
    config, epoch, mask = observations.config, observations.epoch, observations.mask
    told = mask
    if pending is not None:
        mask = mask | pending
    cross = jnp.where(mask[:, None, None], cross, 0)
    both = mask[:, None] & mask[None, :]
    gram = jnp.einsum("ijk,jk->ij", cross[:, config], epochs[epoch])
    gram = jnp.where(both, gram, 0) + jnp.diag(jnp.where(mask, noise, 1))
    factor = cholesky(gram)
    residual = jnp.where(told, observations.score - prior.mean[config, epoch], 0)
    whitened = jnp.where(told[:, None], solve_lower(factor, residual[:, None]), 0)
    weights = solve_lower(factor, whitened, True)[:, 0]
    half = solve_lower(factor, cross.reshape(len(cross), -1)).reshape(cross.shape)
    explained = jnp.einsum("ick,icl->ckl", half, half)
    reduction = jnp.einsum("ckl,ek,el->ce", explained, epochs, epochs)
    return TargetPosterior(
        mean=prior.mean + jnp.tensordot(weights, cross, 1) @ epochs.T,
        variance=jnp.maximum(prior.variance - reduction, 0),
    )


class SourcePosterior(eqx.Module):
    """What the sources say of any target: everything that does not depend on its observations.

    Attributes:
        task: kernel of the sources.
        scores: source scores.
        rotated: whitened residuals in the eigenbasis of configurations and epochs.
        config, fidelity: these bases; of the fidelity only the largest eigenvalues.
        response: see `TargetObservations.response`.
        source_mean: the sources' means.
        task_noise: noise variance of each source at the last epoch.
        epoch_scale: standard deviation of the noise of each epoch, relative to the last.
    """

    task: TaskKernel
    scores: Float[Array, "task config epoch"]
    rotated: Float[Array, "task config rank"]
    config: Eigen
    fidelity: Eigen
    response: Float[Array, "task config epoch"]
    source_mean: Float[Array, "task"]
    task_noise: Float[Array, "task"]
    epoch_scale: Float[Array, "epoch"]

    @classmethod
    def of(
        cls,
        task: TaskKernel,
        config_gram: Float[Array, "config config"],
        fidelity_gram: Float[Array, "epoch epoch"],
        scores: Float[Array, "task config epoch"],
        means: Float[Array, "task"],
        task_noise: Float[Array, "task"],
        epoch_noise: Float[Array, "epoch"],
        rank: int | None = None,
    ) -> "SourcePosterior":
        residual, task_gram, fidelity_gram, _ = whiten(
            scores - means[:, None, None], task.gram(), fidelity_gram, task_noise, epoch_noise
        )
        tasks, config = Eigen.of(task_gram), Eigen.of(config_gram)
        fidelity = Eigen.of(fidelity_gram).largest(rank)
        rotated = kronecker_product(residual, None, config.vectors.T, fidelity.vectors.T)
        alpha = kronecker_product(
            kronecker_product(rotated, tasks.vectors.T)
            / (1 + outer(tasks.values, config.values, fidelity.values)),
            tasks.vectors,
        )
        epoch_scale = jnp.sqrt(epoch_noise)
        response = kronecker_product(
            alpha * config.values[:, None] * fidelity.values,
            None,
            config.vectors,
            fidelity.vectors * epoch_scale[:, None],
        )
        return cls(
            task=task,
            scores=scores,
            rotated=rotated,
            config=config,
            fidelity=fidelity,
            response=response / jnp.sqrt(task_noise)[:, None, None],
            source_mean=means,
            task_noise=task_noise,
            epoch_scale=epoch_scale,
        )

    @property
    def noise(self) -> Float[Array, "epoch"]:
        """The target's noise variance at each epoch."""
        return target_noise(self.task_noise) * jnp.square(self.epoch_scale)

    def condition(
        self,
        observations: Observations,
        extra: OffGrid | None = None,
        pending: Observations | None = None,
    ) -> TargetPosterior:
        """The target's posterior given the sources and its observations.

        Where the task kernel is indefinite together with the target (`AT2Task` with `psd=None`),
        a variance can be negative; the posterior is then NaN, never silently wrong.

        Args:
            extra: configurations off the grid; the posterior has them behind those of the grid.
            pending: evaluations under way, their scores unused. They count as observed at their
                posterior mean given `observations`: they lower variances and leave means as they
                are. The similarity of tasks is that of `observations` alone.

        Source: Ginsbourger, Le Riche, Carraro (2010), the kriging believer; Desautels, Krause,
        Burdick (2014), section 4.
        """
        vectors, values = self.config.vectors, self.config.values
        if extra is None:
            extra = OffGrid.empty(len(vectors), vectors.dtype)
        at, under_way = observations.with_pending(pending)
        config, epoch, told = at.config, at.epoch, slice(len(observations.score))

        mean, variance = mean_prior(self.source_mean, self.scores)
        noise = self.noise[epoch]
        fidelity = self.fidelity.vectors * self.epoch_scale[:, None]
        coordinates = extra.cross @ vectors
        rows = jnp.concatenate([vectors * values, coordinates])[config]
        known = jnp.concatenate([extra.cross.T, extra.gram])[config]
        prior = jnp.concatenate([rows @ vectors.T, known], 1)[:, config]
        prior *= (fidelity[epoch] * self.fidelity.values) @ fidelity[epoch].T
        response = self.response
        if len(coordinates):
            response = jnp.concatenate([response, self._response(coordinates)], 1)
        seen = beside_sources(
            observations,
            self.scores,
            response,
            (mean, variance),
            prior[told, told],
            noise[told],
        )
        center, scale, explained = self._target_prior(self.task.with_target(seen).gram())
        spread = scale - values[:, None] * explained
        rounding = 1e3 * jnp.finfo(spread.dtype).eps * jnp.max(scale) * jnp.max(values)
        indefinite = jnp.min(values[:, None] * spread) < -rounding
        spread = jnp.where(indefinite, jnp.nan, jnp.maximum(spread, 0))

        squared = jnp.square(vectors) * values
        own = scale * extra.variance[:, None] - jnp.square(coordinates) @ explained
        prior_mean = jnp.concatenate([vectors * values, coordinates]) @ center @ fidelity.T + mean
        prior_variance = jnp.concatenate([squared @ spread, jnp.maximum(own, 0)])
        prior_variance = prior_variance @ jnp.square(fidelity).T + variance

        # The mean's prior is one more function of the epoch, constant, the same for all
        # configurations: appended to the fidelity's eigenfunctions.
        flat = jnp.full_like(fidelity[:, :1], 1) * jnp.sqrt(variance)
        epochs = jnp.concatenate([fidelity, flat], 1)
        on_grid = jnp.einsum("cj,ij,jk->ick", vectors, rows, spread)
        off_grid = jnp.einsum("cj,ij,jk->ick", coordinates, rows, explained)
        blocks = jnp.concatenate([on_grid, scale * known[..., None] - off_grid], 1)
        blocks = jnp.concatenate([blocks, jnp.ones_like(blocks[..., :1])], 2)
        cross = blocks * epochs[epoch][:, None, :]
        prior = TargetPosterior(prior_mean, prior_variance)
        return condition_on(at, noise, prior, cross, epochs, under_way)

    def _response(
        self, coordinates: Float[Array, "extra config"]
    ) -> Float[Array, "task extra epoch"]:
        """`response` of configurations off the grid, from their v of the module docstring."""
        scale = jnp.sqrt(self.task_noise)
        tasks = Eigen.of(self.task.gram() / (scale[:, None] * scale))
        spectrum = 1 + outer(tasks.values, self.config.values, self.fidelity.values)
        alpha = kronecker_product(self.rotated, tasks.vectors.T) / spectrum
        return kronecker_product(
            alpha * self.fidelity.values,
            tasks.vectors / scale[:, None],
            coordinates,
            self.fidelity.vectors * self.epoch_scale[:, None],
        )

    def _target_prior(
        self, gram: Float[Array, "task+1 task+1"]
    ) -> tuple[Float[Array, "config rank"], Float[Array, "rank"], Float[Array, "config rank"]]:
        r"""Of the module docstring, for the Gram matrix of the sources and the target:
        \(\lambda^E_k \sum_i q_i \alpha_{ijk}\), \(s \lambda^E_k\), and \((\lambda^E_k)^2 W_{jk}\).
        """
        scale, values = jnp.sqrt(self.task_noise), self.fidelity.values
        tasks = Eigen.of(gram[:-1, :-1] / (scale[:, None] * scale))
        q = tasks.vectors.T @ (gram[:-1, -1] / scale)
        spectrum = 1 + outer(tasks.values, self.config.values, values)
        alpha = kronecker_product(self.rotated, tasks.vectors.T) / spectrum
        explained = jnp.square(values) * jnp.tensordot(jnp.square(q), 1 / spectrum, 1)
        return values * jnp.tensordot(q, alpha, 1), gram[-1, -1] * values, explained


class Ensemble(eqx.Module):
    """Several source posteriors, stacked along a leading axis: one for each draw of a sampler."""

    sources: SourcePosterior

    @property
    def noise(self) -> Float[Array, "draw epoch"]:
        """The target's noise variance at each epoch, of each draw."""
        return jax.vmap(lambda source: source.noise)(self.sources)

    def condition(
        self,
        observations: Observations,
        extra: OffGrid | None = None,
        pending: Observations | None = None,
    ) -> TargetPosterior:
        """The target's posterior for each draw; `extra` has a leading axis too."""
        return jax.vmap(lambda source, extra: source.condition(observations, extra, pending))(
            self.sources, extra
        )
