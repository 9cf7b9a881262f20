r"""Exact Gaussian processes on incomplete grids, at the cost of the curves that were observed.

In units of the noise (`amt.gp.kronecker.whiten`), curve z is of task \(t_z\) and configuration
\(c_z\) and has scores at the epochs of a diagonal mask \(M_z\). Few eigenvalues of the fidelity's
Gram matrix are above the noise: with the r largest, \(K_E \approx V \Lambda V^\top\), the curve is
\(y_z = M_z V w_z + \varepsilon\) of r weights, whose covariance is
\(\mathrm{cov}(w_z, w_{z'}) = W_{zz'} \Lambda\), \(W_{zz'} = K_T[t_z, t_{z'}] K_C[c_z, c_{z'}]\).
Orthonormal bases of the observed parts, \(M_z V \Lambda^{1/2} = \Phi_z R_z\), leave a matrix of r
dimensions for each of the n curves that have scores, for any number of epochs and of empty cells:

\[ K = I - \Phi \Phi^\top + \Phi A \Phi^\top, \qquad
   A_{zz'} = \delta_{zz'} I + W_{zz'} R_z R_{z'}^\top, \]
\[ K^{-1} = I - \Phi \Phi^\top + \Phi A^{-1} \Phi^\top, \qquad \log\det K = \log\det A . \]

One Cholesky factorisation of A gives the likelihood, its inverse the gradient: with \(G = \frac12
(\alpha \alpha^\top - K^{-1})\), \(\alpha = K^{-1} (y - \mu)\),

\[ \frac{\partial \log p}{\partial W_{zz'}} = \tfrac12 \beta_z^\top \beta_{z'} - \tfrac12
   \mathrm{tr}(R_z^\top [A^{-1}]_{zz'} R_{z'}), \qquad
   \beta_z = \Lambda^{1/2} V^\top \alpha_z, \]

and with respect to the fidelity's Gram matrix, \(G_E = \sum_{zz'} W_{zz'} G_{zz'}\). As \(K_E\) has
rank r, so does what it can change by: only \(G_E V\) is needed, and \(G_E V V^\top + V V^\top G_E
- V V^\top G_E V V^\top\) stands for \(G_E\). Nothing is differentiated through `eigh`.

Source: Rasmussen and Williams (2006), appendix A.3, for the matrix inversion lemma.
"""

import math
from abc import abstractmethod
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from amt.gp._linalg import cholesky, solve_cholesky, solve_lower
from amt.gp.conditional import (
    Observations,
    OffGrid,
    TargetPosterior,
    beside_sources,
    condition_on,
    mean_prior,
    target_noise,
)
from amt.gp.kronecker import Eigen, whiten
from amt.kernels.task import TaskKernel

MAX_DIMENSIONS = 4096


def orthonormal(columns: Float[Array, "curve epoch rank"]) -> Float[Array, "curve epoch rank"]:
    """Orthonormal bases of the columns' spans, by Gram-Schmidt; 0 where one depends on others.

    Source: Giraud, Langou, Rozloznik (2005), on why twice is enough.
    """
    negligible = 1e3 * jnp.finfo(columns.dtype).eps

    def step(basis, index):
        column = rest = columns[:, :, index]
        for _ in range(2):
            rest -= jnp.einsum("zer,zr->ze", basis, jnp.einsum("zer,ze->zr", basis, rest))
        norm, before = (jnp.sqrt(jnp.sum(jnp.square(c), 1, keepdims=True)) for c in (rest, column))
        new = norm > negligible * before
        return basis.at[:, :, index].set(jnp.where(new, rest / jnp.where(new, norm, 1), 0)), None

    return jax.lax.scan(step, jnp.zeros_like(columns), jnp.arange(columns.shape[2]))[0]


class _Solved(NamedTuple):
    r"""The module docstring's matrices, and what the scores say.

    Attributes:
        fidelity: V and the square root of Lambda, largest first.
        basis: Phi.
        reduced: R / Lambda^(1/2).
        factor: Cholesky factor of A, (curve, rank) raveled.
        means: generalized-least-squares means of the tasks.
        solved: A^-1 Phi^T r of the residuals r.
        alpha: K^-1 r.
        value: the log-likelihood.
    """

    fidelity: Eigen
    basis: Float[Array, "curve epoch rank"]
    reduced: Float[Array, "curve rank rank"]
    factor: Float[Array, "curve*rank curve*rank"]
    means: Float[Array, "task"]
    solved: Float[Array, "curve rank"]
    alpha: Float[Array, "curve epoch"]
    value: Float[Array, ""]

    @classmethod
    def of(cls, between, fidelity, scores, shape, mask, member, rank: int) -> "_Solved":
        values, vectors = Eigen.of(fidelity).largest(rank)
        eigen = Eigen(jnp.sqrt(values[::-1]), vectors[:, ::-1])
        observed = jnp.where(mask[:, :, None], eigen.vectors, 0)
        basis = orthonormal(observed)
        reduced = jnp.einsum("zea,zek->zak", basis, observed)
        product = _product(reduced * eigen.values, between)
        jitter = 10 * jnp.finfo(product.dtype).eps * jnp.diagonal(product)
        factor = cholesky(product + jnp.diag(1 + jitter))

        # Scores, and what each task's mean adds to them: in the basis, and beside it.
        design = jnp.where(mask[:, :, None], shape[:, None] * member[:, None, :], 0)
        both = jnp.concatenate([jnp.where(mask, scores, 0)[:, :, None], design], 2)
        inside = jnp.einsum("zea,zei->zai", basis, both)
        beside = (both - jnp.einsum("zea,zai->zei", basis, inside)).reshape(-1, both.shape[2])
        half: Array = solve_lower(factor, inside.reshape(len(factor), -1))
        gram = beside.T @ beside + half.T @ half
        means: Array = solve_cholesky(cholesky(gram[1:, 1:]), gram[1:, :1])[:, 0]

        without = jnp.concatenate([jnp.ones_like(means[:1]), -means])
        squares = jnp.sum(jnp.square(beside @ without)) + jnp.sum(jnp.square(half @ without))
        log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(factor)))
        value = -0.5 * (squares + log_det + jnp.sum(mask) * math.log(2 * math.pi))
        solved = solve_lower(factor, (half @ without)[:, None], True).reshape(inside.shape[:2])
        alpha = (beside @ without).reshape(scores.shape)
        alpha += jnp.einsum("zea,za->ze", basis, solved)
        return cls(eigen, basis, reduced, factor, means, solved, alpha, value)

    @property
    def roots(self) -> Float[Array, "curve rank rank"]:
        """R."""
        return self.reduced * self.fidelity.values

    def inverse(self) -> Float[Array, "curve*rank curve*rank"]:
        """The inverse of A."""
        return solve_cholesky(self.factor, jnp.eye(len(self.factor), dtype=self.factor.dtype))


def _product(roots, between):
    r"""\(W_{zz'} R_z R_{z'}^\top\)."""
    flat, rank = roots.reshape(-1, roots.shape[2]), roots.shape[1]
    return (flat @ flat.T) * _repeat(between, rank)


def _repeat(between, rank):
    return jnp.repeat(jnp.repeat(between, rank, 0), rank, 1)


@partial(jax.custom_vjp, nondiff_argnums=(6,))
def profile_log_likelihood(
    between: Float[Array, "curve curve"],
    fidelity: Float[Array, "epoch epoch"],
    scores: Float[Array, "curve epoch"],
    shape: Float[Array, "epoch"],
    mask: Bool[Array, "curve epoch"],
    member: Float[Array, "curve task"],
    rank: int,
) -> tuple[Float[Array, ""], Float[Array, "task"]]:
    """`amt.gp.kronecker.profile_log_likelihood` of the scores where `mask` says so.

    Args:
        between: W of the module docstring.
        member: 1 where a curve is of a task, else 0; each task needs a score.
    """
    solved = _Solved.of(between, fidelity, scores, shape, mask, member, rank)
    return solved.value, solved.means


def _forward(between, fidelity, scores, shape, mask, member, rank):
    solved = _Solved.of(between, fidelity, scores, shape, mask, member, rank)
    return (solved.value, solved.means), (between, member, solved)


def _backward(rank, saved, cotangent):
    between, member, solved = saved
    alpha, (root, vectors) = solved.alpha, solved.fidelity
    curves, inverse, roots = len(between), solved.inverse(), solved.roots
    flat = roots.reshape(-1, rank)
    traces = (inverse * (flat @ flat.T)).reshape(curves, rank, curves, rank).sum((1, 3))
    projected = alpha @ vectors
    beta = projected * root
    explained = (inverse * _repeat(between, rank)) @ solved.reduced.reshape(-1, rank)
    on_basis = alpha.T @ (between @ projected)
    on_basis -= solved.basis.swapaxes(1, 2).reshape(-1, alpha.shape[1]).T @ explained
    half = on_basis @ vectors.T / 2
    gradients = (
        (beta @ beta.T - traces) / 2,
        half + half.T - vectors @ (vectors.T @ half),
        -alpha,
        (member @ solved.means) @ alpha,
    )
    return (*(cotangent[0] * gradient for gradient in gradients), None, None)


profile_log_likelihood.defvjp(_forward, _backward)


class _Curves(NamedTuple):
    """The curves that have scores, in units of the noise; see `profile_log_likelihood`.

    Attributes:
        task, config: of each curve.
    """

    task: Int[Array, "curve"]
    config: Int[Array, "curve"]
    between: Float[Array, "curve curve"]
    fidelity: Float[Array, "epoch epoch"]
    scores: Float[Array, "curve epoch"]
    shape: Float[Array, "epoch"]
    mask: Bool[Array, "curve epoch"]
    member: Float[Array, "curve task"]

    @classmethod
    def of(cls, task, config, fidelity, scores, task_noise, epoch_noise, cells) -> "_Curves":
        there = jnp.isfinite(scores)
        whitened, task, fidelity, _ = whiten(
            jnp.where(there, scores, 0), task, fidelity, task_noise, epoch_noise
        )
        num_tasks, num_configs, num_epochs = scores.shape
        at_task, at_config = jnp.divmod(cells, num_configs)
        at = jnp.minimum(at_task, num_tasks - 1)
        between = task[at[:, None], at] * config[at_config[:, None], at_config]
        rows = (a.reshape(-1, num_epochs).at[cells] for a in (whitened, there))
        own, mask = (row.get(mode="fill", fill_value=0) for row in rows)
        member = (at_task[:, None] == jnp.arange(num_tasks)).astype(own.dtype)
        shape = 1 / jnp.sqrt(epoch_noise)
        return cls(at, at_config, between, fidelity, own, shape, mask, member)


def log_likelihood(
    task: Float[Array, "task task"],
    config: Float[Array, "config config"],
    fidelity: Float[Array, "epoch epoch"],
    scores: Float[Array, "task config epoch"],
    task_noise: Float[Array, "task"],
    epoch_noise: Float[Array, "epoch"],
    cells: Int[Array, "curve"],
    rank: int,
) -> tuple[Float[Array, ""], Float[Array, "task"]]:
    """Log marginal likelihood of the scores that are not NaN, and the task means.

    Args:
        cells: where they are, as positions in the raveled (task, config) grid; positions beyond
            its end are padding.
        rank: eigenvalues of the fidelity's Gram matrix that are kept.
    """
    curves = _Curves.of(task, config, fidelity, scores, task_noise, epoch_noise, cells)
    solved: Any = profile_log_likelihood(*curves[2:], rank)
    value, means = solved
    log_noise = (curves.member @ jnp.log(task_noise))[:, None] + jnp.log(epoch_noise)
    return value - jnp.sum(curves.mask * log_noise) / 2, means * jnp.sqrt(task_noise)


class IncompleteSourcePosterior(eqx.Module):
    r"""What incomplete sources say of any target: everything independent of its observations.

    The interface is that of `amt.gp.conditional.SourcePosterior`. In the basis V of the epochs, the
    target has the covariance \(s\, k_C(x, x') \Lambda\), less what the sources explain of it.

    Attributes:
        task: kernel of the sources.
        scores: source scores, NaN where missing.
        config: Gram matrix of the grid's configurations.
        fidelity: eigenvalues and vectors of the epochs', only the largest, in units of the noise.
        weights: `TargetObservations.response` is linear in the covariances with the grid's
            configurations: these are the coefficients, in the basis of the epochs.
        source_mean, task_noise, epoch_scale: as in `SourcePosterior`.
    """

    task: TaskKernel
    scores: Float[Array, "task config epoch"]
    config: Float[Array, "config config"]
    fidelity: Eigen
    weights: Float[Array, "task config rank"]
    source_mean: Float[Array, "task"]
    task_noise: Float[Array, "task"]
    epoch_scale: Float[Array, "epoch"]

    @abstractmethod
    def explained(
        self,
        similarity: Float[Array, "task"],
        regression: Float[Array, "task"],
        cross: Float[Array, "row config"],
        at: Int[Array, "obs"],
        basis: Float[Array, "obs rank"],
    ) -> tuple[Float[Array, "obs row rank"], Float[Array, "row rank rank"]]:
        """What the sources explain of the target's covariances.

        Args:
            similarity: covariances of the target with the sources.
            regression: its regression coefficients on them.
            cross: covariances of configurations with those of the grid.
            at: row of each observation.
            basis: the epochs' vectors at each observation.

        Returns:
            Of the observations with each row and vector; and of each row's vectors among them.
        """

    @property
    def noise(self) -> Float[Array, "epoch"]:
        """The target's noise variance at each epoch."""
        return target_noise(self.task_noise) * jnp.square(self.epoch_scale)

    def response(self, cross: Float[Array, "row config"]) -> Float[Array, "task row epoch"]:
        """See `TargetObservations.response`."""
        basis = self.fidelity.vectors * self.epoch_scale[:, None]
        return cross @ self.weights @ basis.T

    def condition(
        self,
        observations: Observations,
        extra: OffGrid | None = None,
        pending: Observations | None = None,
    ) -> TargetPosterior:
        """The target's posterior given the sources and its observations.

        Where the task kernel, once it has seen the target, changes covariances among the sources
        (a projection to the nearest PSD matrix), only the target's regression on them is taken
        from it. NaN, never silently wrong, where the kernel is indefinite together with the
        target.

        Args:
            extra, pending: as in `SourcePosterior.condition`.
        """
        if extra is None:
            nothing = self.config[:0]
            extra = OffGrid(nothing, nothing[:, :0], nothing[:, 0])
        at, under_way = observations, None
        if pending is not None:
            both = zip(observations[:3], pending[:3], strict=True)
            at = Observations(*map(jnp.concatenate, both), observations.count)
            under_way = jnp.append(jnp.zeros_like(observations.mask), pending.mask)
        config, epoch, told = at.config, at.epoch, slice(len(observations.score))

        mean, mean_variance = mean_prior(self.source_mean, self.scores)
        noise = self.noise[epoch]
        cross = jnp.concatenate([self.config, extra.cross])
        known = jnp.concatenate(
            [cross.T, jnp.concatenate([extra.cross[: len(extra.gram)], extra.gram], 1)]
        )[config]
        own = jnp.concatenate([jnp.diagonal(self.config), extra.variance])
        basis = self.fidelity.vectors * self.epoch_scale[:, None]
        on_epochs = basis[epoch] * self.fidelity.values
        prior = known[:, config] * (on_epochs @ basis[epoch].T)
        response = self.response(cross)
        seen = beside_sources(
            observations,
            self.scores,
            response,
            (mean, mean_variance),
            prior[told, told],
            noise[told],
        )
        gram = self.task.with_target(seen).gram()
        similarity, scale, regression = _regression(self.task.gram(), gram)
        at_observations, among = self.explained(similarity, regression, cross, config, basis[epoch])

        # Functions of the epoch are the vectors, and as one more the constant of the unknown mean.
        blocks = scale * known[:, :, None] * on_epochs[:, None, :] - at_observations
        flat = jnp.full((*blocks.shape[:2], 1), jnp.sqrt(mean_variance))
        constant = jnp.full((len(basis), 1), jnp.sqrt(mean_variance))
        variance = scale * own[:, None] * (jnp.square(basis) @ self.fidelity.values)
        rounding = 1e3 * jnp.finfo(variance.dtype).eps * jnp.max(variance)
        variance -= jnp.einsum("xkl,ek,el->xe", among, basis, basis)
        variance = jnp.where(jnp.min(variance) < -rounding, jnp.nan, jnp.maximum(variance, 0))
        prior_mean = mean + jnp.tensordot(similarity, response, 1)
        return condition_on(
            at,
            noise,
            TargetPosterior(prior_mean, variance + mean_variance),
            jnp.concatenate([blocks, flat], -1),
            jnp.concatenate([basis, constant], 1),
            under_way,
        )


def _regression(
    sources: Float[Array, "task task"], gram: Float[Array, "task+1 task+1"]
) -> tuple[Float[Array, "task"], Float[Array, ""], Float[Array, "task"]]:
    r"""The target's covariances with the sources, its variance, and its regression coefficients.

    The coefficients \(w = \tilde K^{-1} \tilde k\) and the variance left over are those of the Gram
    matrix with the target, whose sources \(\tilde K\) may differ from K: so \(k_* = K w\). The
    variance is NaN where none is left over.
    """
    row = gram[:-1, -1]
    ridge = jnp.finfo(row.dtype).eps ** 0.5 * jnp.mean(jnp.diagonal(gram)[:-1])
    factor = cholesky(gram[:-1, :-1] + ridge * jnp.eye(len(row), dtype=row.dtype))
    weights: Array = solve_cholesky(factor, row[:, None])[:, 0]
    changed = (sources - gram[:-1, :-1]) @ weights
    left = gram[-1, -1] - row @ weights
    variance = jnp.where(left < -10 * ridge, jnp.nan, gram[-1, -1] + weights @ changed)
    return row + changed, variance, weights


class ObservedCurvesPosterior(IncompleteSourcePosterior):
    r"""The exact one.

    Attributes:
        curve_task, curve_config: of each curve.
        precision: \(\Lambda M_z V^\top [K^{-1}]_{zz'} V M_{z'} \Lambda\) of the curves.
    """

    curve_task: Int[Array, "curve"]
    curve_config: Int[Array, "curve"]
    precision: Float[Array, "curve rank curve rank"]

    @classmethod
    def of(
        cls,
        task: TaskKernel,
        config_gram: Float[Array, "config config"],
        fidelity_gram: Float[Array, "epoch epoch"],
        scores: Float[Array, "task config epoch"],
        task_noise: Float[Array, "task"],
        epoch_noise: Float[Array, "epoch"],
        cells: Int[Array, "curve"],
        rank: int,
    ) -> "ObservedCurvesPosterior":
        """Of the scores that are not NaN; arguments as for `log_likelihood`."""
        curves = _Curves.of(
            task.gram(), config_gram, fidelity_gram, scores, task_noise, epoch_noise, cells
        )
        solved = _Solved.of(*curves[2:], rank)
        task_scale, values = jnp.sqrt(task_noise), jnp.square(solved.fidelity.values)
        scaled = solved.reduced * values
        shape = len(cells), rank, len(cells), rank
        half = jnp.einsum("zak,zaxb->zkxb", scaled, solved.inverse().reshape(shape))
        on_basis = solved.alpha @ solved.fidelity.vectors * values
        weights = jnp.zeros((scores[..., 0].size, rank), scores.dtype)
        weights = weights.at[cells].set(on_basis, mode="drop").reshape(*scores.shape[:2], rank)
        return cls(
            task=task,
            scores=scores,
            config=config_gram,
            fidelity=Eigen(values, solved.fidelity.vectors),
            weights=weights / task_scale[:, None, None],
            source_mean=solved.means * task_scale,
            task_noise=task_noise,
            epoch_scale=jnp.sqrt(epoch_noise),
            curve_task=curves.task,
            curve_config=curves.config,
            precision=jnp.einsum("zkxb,xbl->zkxl", half, scaled),
        )

    def explained(self, similarity, regression, cross, at, basis):
        scale = similarity / jnp.sqrt(self.task_noise)
        rows = cross[:, self.curve_config] * scale[self.curve_task]
        curves, rank = self.precision.shape[:2]
        flat = self.precision.reshape(curves * rank, -1)
        points = (rows[at][:, :, None] * basis[:, None, :]).reshape(len(at), -1)
        half = (points @ flat).reshape(len(at), curves, rank)
        at_observations = jnp.einsum("izl,xz->ixl", half, rows)
        half = (rows @ flat.reshape(curves, -1)).reshape(len(rows), rank, curves, rank)
        return at_observations, jnp.einsum("xkzl,xz->xkl", half, rows)
