r"""Exact Gaussian processes on incomplete grids, at the cost of the curves that were observed.

In units of the noise (`amt.gp.solvers.kronecker.whiten`), curve z is of task \(t_z\) and configuration
\(c_z\) and has scores at the epochs of a diagonal mask \(M_z\). Few eigenvalues of the fidelity's
Gram matrix are above the noise: with the r largest, \(K_E \approx V \Lambda V^\top\), the curve is
\(y_z = M_z V w_z + \varepsilon\) of r weights, whose covariance is
\(\mathrm{cov}(w_z, w_{z'}) = W_{zz'} \Lambda\), \(W_{zz'} = K_T[t_z, t_{z'}] K_C[c_z, c_{z'}]
+ \delta_{zz'} \nu_{t_z}\), the nugget \(\nu_t\) being what a curve has to itself.
Orthonormal bases of the observed parts, \(M_z V \Lambda^{1/2} = \Phi_z R_z\), leave a matrix of r
dimensions for each of the n curves that have scores, for any number of epochs and of empty cells:

\[ K = I - \Phi \Phi^\top + \Phi A \Phi^\top, \qquad
   A_{zz'} = \delta_{zz'} I + W_{zz'} R_z R_{z'}^\top, \]
\[ K^{-1} = I - \Phi \Phi^\top + \Phi A^{-1} \Phi^\top, \qquad \log\det K = \log\det A . \]

Of curves without a gap \(\Phi_z = V\), and their part of A is one n x n matrix for each
eigenvalue, \(B_k = I + \lambda_k W\): they are conditioned on first, one eigenvalue at a time.
What is left to factorise is the Schur complement of the others, to which they are observations of
weights with the covariance

\[ C_k = W_{oo} - \lambda_k W_{ow} B_k^{-1} W_{wo} \]

in place of W (o: others, w: whole curves). The gradient comes from the inverse of A: with
\(G = \frac12 (\alpha \alpha^\top - K^{-1})\), \(\alpha = K^{-1} (y - \mu)\),

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

from amt.gp.posterior import (
    Observations,
    OffGrid,
    Regression,
    TargetPosterior,
    beside_sources,
    condition_on,
    mean_prior,
    target_noise,
)
from amt.gp.solvers.kronecker import Eigen, whiten
from amt.kernels.task import TaskKernel
from amt.linalg import cholesky, solve_cholesky, solve_lower

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


class ObservedCells(NamedTuple):
    """Curves that have scores, as positions in the raveled (task, config) grid.

    Positions beyond its end are padding.

    Attributes:
        whole: of curves without a gap.
        part: of the others; any may be among them.
    """

    whole: Int[Array, "whole"]
    part: Int[Array, "part"]

    @staticmethod
    def most(rank: int) -> tuple[int, int]:
        """How many of either the factorisations can take in seconds."""
        return MAX_DIMENSIONS // 2, MAX_DIMENSIONS // rank

    def affordable(self, rank: int) -> bool:
        """Whether they are no more than `most`."""
        return all(len(cells) <= most for cells, most in zip(self, self.most(rank), strict=True))


class _Curves(NamedTuple):
    """The curves that have scores, the whole ones first, in units of the noise.

    Attributes:
        task, config: of each curve.
        between: W of the module docstring.
        shape: the mean's course over the epochs.
        member: 1 where a curve is of a task, else 0.
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
    def of(
        cls, task, config, fidelity, scores, task_noise, epoch_noise, nugget, cells: ObservedCells
    ) -> "_Curves":
        there = jnp.isfinite(scores)
        whitened, task, fidelity, _ = whiten(
            jnp.where(there, scores, 0), task, fidelity, task_noise, epoch_noise
        )
        num_tasks, num_configs, num_epochs = scores.shape
        index = jnp.concatenate(cells)
        at_task, at_config = jnp.divmod(index, num_configs)
        at = jnp.minimum(at_task, num_tasks - 1)
        between = task[at[:, None], at] * config[at_config[:, None], at_config]
        between += jnp.diag((nugget / task_noise)[at])
        rows = (a.reshape(-1, num_epochs).at[index] for a in (whitened, there))
        own, mask = (row.get(mode="fill", fill_value=0) for row in rows)
        member = (at_task[:, None] == jnp.arange(num_tasks)).astype(own.dtype)
        shape = 1 / jnp.sqrt(epoch_noise)
        return cls(at, at_config, between, fidelity, own, shape, mask, member)


class _Solved(NamedTuple):
    r"""The module docstring's matrices, and what the scores say.

    Attributes:
        values, vectors: Lambda and V, the largest first.
        basis: Phi of the curves that are not whole.
        reduced: their \(R \Lambda^{-1/2}\).
        whole_factor: Cholesky factors of \(B_k\).
        gain: \(B_k^{-1} W_{wo}\).
        left: \(C_k\).
        factor: Cholesky factor of the Schur complement, (curve, rank) raveled.
        means: generalized-least-squares means of the tasks.
        alpha: K^-1 r of the residuals r.
        value: the log-likelihood.
    """

    values: Float[Array, "rank"]
    vectors: Float[Array, "epoch rank"]
    basis: Float[Array, "part epoch rank"]
    reduced: Float[Array, "part rank rank"]
    whole_factor: Float[Array, "rank whole whole"]
    gain: Float[Array, "rank whole part"]
    left: Float[Array, "rank part part"]
    factor: Float[Array, "part*rank part*rank"]
    means: Float[Array, "task"]
    alpha: Float[Array, "curve epoch"]
    value: Float[Array, ""]

    @classmethod
    def of(cls, between, fidelity, scores, shape, mask, member, rank: int, whole: int):
        eigen = Eigen.of(fidelity).largest(rank)
        values, vectors = eigen.values[::-1], eigen.vectors[:, ::-1]
        observed = jnp.where(mask[whole:, :, None], vectors, 0)
        basis = orthonormal(observed)
        reduced = jnp.einsum("zea,zek->zak", basis, observed)

        across = jnp.broadcast_to(between[:whole, whole:], (rank, whole, len(observed)))
        whole_factor = jax.vmap(_factor)(values[:, None, None] * between[:whole, :whole])
        half = jax.vmap(solve_lower)(whole_factor, across)
        gain = jax.vmap(_solve_transposed)(whole_factor, half)
        left = between[whole:, whole:] - values[:, None, None] * (half.swapaxes(1, 2) @ half)
        scaled = jnp.einsum("zak,kzx->zaxk", reduced, values[:, None, None] * left)
        product = jnp.einsum("zaxk,xbk->zaxb", scaled, reduced)
        factor = _factor(product.reshape((len(observed) * rank,) * 2))

        # Scores, and what each task's mean adds to them: in the bases, and beside them.
        design = jnp.where(mask[:, :, None], shape[:, None] * member[:, None, :], 0)
        both = jnp.concatenate([jnp.where(mask, scores, 0)[:, :, None], design], 2)
        on_whole = jnp.einsum("ek,zei->kzi", vectors, both[:whole])
        on_part = jnp.einsum("zea,zei->zai", basis, both[whole:])
        beside = both.at[:whole].add(-jnp.einsum("ek,kzi->zei", vectors, on_whole))
        beside = beside.at[whole:].add(-jnp.einsum("zea,zai->zei", basis, on_part))
        beside = beside.reshape(-1, both.shape[2])
        half_whole = jax.vmap(solve_lower)(whole_factor, on_whole)
        known = values[:, None, None] * (gain.swapaxes(1, 2) @ on_whole)
        on_part -= jnp.einsum("zak,kzi->zai", reduced, known)
        half_part: Array = solve_lower(factor, on_part.reshape(len(factor), -1))
        rows = jnp.concatenate([beside, half_whole.reshape(-1, both.shape[2]), half_part])
        gram = rows.T @ rows
        means: Array = solve_cholesky(cholesky(gram[1:, 1:]), gram[1:, :1])[:, 0]

        without = jnp.concatenate([jnp.ones_like(means[:1]), -means])
        diagonals = jnp.diagonal(whole_factor, axis1=1, axis2=2).ravel(), jnp.diagonal(factor)
        log_det = 2 * jnp.sum(jnp.log(jnp.concatenate(diagonals)))
        squares = jnp.sum(jnp.square(rows @ without))
        value = -0.5 * (squares + log_det + jnp.sum(mask) * math.log(2 * math.pi))
        solved = solve_lower(factor, (half_part @ without)[:, None], True).reshape(-1, rank)
        weights = jnp.einsum("zak,za->kz", reduced, solved)
        of_whole = jax.vmap(_solve_transposed)(whole_factor, (half_whole @ without)[:, :, None])
        of_whole = of_whole[:, :, 0] - values[:, None] * (gain @ weights[:, :, None])[:, :, 0]
        on_bases = of_whole.T @ vectors.T, jnp.einsum("zea,za->ze", basis, solved)
        alpha = (beside @ without).reshape(scores.shape) + jnp.concatenate(on_bases)
        return cls(
            values,
            vectors,
            basis,
            reduced,
            whole_factor,
            gain,
            left,
            factor,
            means,
            alpha,
            value,
        )

    def inverses(
        self,
    ) -> tuple[Float[Array, "rank whole whole"], Float[Array, "part rank part rank"]]:
        r"""Of \(B_k\); and of the Schur complement, times \(R \Lambda^{-1/2}\) from the left."""
        curves, rank, _ = self.reduced.shape
        identity = jnp.eye(self.whole_factor.shape[1], dtype=self.values.dtype)
        of_whole = jax.vmap(lambda factor: solve_cholesky(factor, identity))(self.whole_factor)
        inverse = solve_cholesky(self.factor, jnp.eye(len(self.factor), dtype=self.values.dtype))
        inverse = inverse.reshape(curves, rank, curves, rank)
        return of_whole, jnp.einsum("zak,zaxb->zkxb", self.reduced, inverse)


def _factor(product: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Cholesky factor of the product and the identity, rounding errors aside."""
    rounding = 10 * jnp.finfo(product.dtype).eps * jnp.diagonal(product)
    return cholesky(product + jnp.diag(1 + rounding))


def _solve_transposed(factor, right):
    return solve_lower(factor, right, True)


@partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def profile_log_likelihood(
    between: Float[Array, "curve curve"],
    fidelity: Float[Array, "epoch epoch"],
    scores: Float[Array, "curve epoch"],
    shape: Float[Array, "epoch"],
    mask: Bool[Array, "curve epoch"],
    member: Float[Array, "curve task"],
    rank: int,
    whole: int,
) -> tuple[Float[Array, ""], Float[Array, "task"]]:
    """`amt.gp.solvers.kronecker.profile_log_likelihood` of the scores where `mask` says so.

    Args:
        between: W of the module docstring.
        member: 1 where a curve is of a task, else 0; each task needs a score.
        rank: eigenvalues of the fidelity's Gram matrix that are kept.
        whole: so many curves, the first ones, have no gap.
    """
    solved = _Solved.of(between, fidelity, scores, shape, mask, member, rank, whole)
    return solved.value, solved.means


def _forward(between, fidelity, scores, shape, mask, member, rank, whole):
    solved = _Solved.of(between, fidelity, scores, shape, mask, member, rank, whole)
    return (solved.value, solved.means), (between, member, solved)


def _backward(rank, whole, saved, cotangent):
    between, member, solved = saved
    alpha, values, vectors, gain = solved.alpha, solved.values, solved.vectors, solved.gain
    of_whole, half = solved.inverses()
    inverse = jnp.einsum("zkxb,xbl->zkxl", half, solved.reduced)

    # tr(R' A^-1 R), of whole curves and others.
    on_diagonal = jnp.einsum("zkxk->kzx", inverse)
    across = jnp.square(values)[:, None, None] * (gain @ on_diagonal)
    among_whole = jnp.einsum("k,kcd->cd", values, of_whole)
    among_whole += jnp.einsum("k,kcz,kdz->cd", values, across, gain)
    to_part, among_part = -across.sum(0), jnp.einsum("k,kzx->zx", values, on_diagonal)
    traces = jnp.block([[among_whole, to_part], [to_part.T, among_part]])

    # K^-1 V, summed over pairs of curves.
    flat = gain.transpose(1, 2, 0).reshape(whole, half.shape[0] * rank)
    both = jnp.einsum("zkxl,zkxl->kl", inverse, (flat.T @ flat).reshape(inverse.shape))
    summed = jnp.diag(jnp.einsum("cd,kcd->k", between[:whole, :whole], of_whole))
    summed = vectors @ (summed - values[:, None] * both)
    summed += jnp.einsum(
        "zea,zal->el", solved.basis, jnp.einsum("lzx,xlza->zal", solved.left, half)
    )

    projected = alpha @ vectors
    beta = projected * jnp.sqrt(values)
    on_basis = (alpha.T @ (between @ projected) - summed) @ vectors.T / 2
    gradients = (
        (beta @ beta.T - traces) / 2,
        on_basis + on_basis.T - vectors @ (vectors.T @ on_basis),
        -alpha,
        (member @ solved.means) @ alpha,
    )
    return (*(cotangent[0] * gradient for gradient in gradients), None, None)


profile_log_likelihood.defvjp(_forward, _backward)


def log_likelihood(
    task: Float[Array, "task task"],
    config: Float[Array, "config config"],
    fidelity: Float[Array, "epoch epoch"],
    scores: Float[Array, "task config epoch"],
    task_noise: Float[Array, "task"],
    epoch_noise: Float[Array, "epoch"],
    nugget: Float[Array, "task"],
    cells: ObservedCells,
    rank: int,
) -> tuple[Float[Array, ""], Float[Array, "task"]]:
    """Log marginal likelihood of the scores that are not NaN, and the task means."""
    curves = _Curves.of(task, config, fidelity, scores, task_noise, epoch_noise, nugget, cells)
    solved: Any = profile_log_likelihood(*curves[2:], rank, len(cells.whole))
    value, means = solved
    log_noise = (curves.member @ jnp.log(task_noise))[:, None] + jnp.log(epoch_noise)
    return value - jnp.sum(curves.mask * log_noise) / 2, means * jnp.sqrt(task_noise)


class IncompleteSourcePosterior(eqx.Module):
    r"""What incomplete sources say of any target: everything independent of its observations.

    The interface is that of `amt.gp.posterior.SourcePosterior`. In the basis V of the epochs, the
    target has the covariance \(s\, k_C(x, x') \Lambda\), less what the sources explain of it.

    Attributes:
        task: kernel of the sources.
        scores: source scores, NaN where missing.
        config: Gram matrix of the grid's configurations.
        fidelity: eigenvalues and vectors of the epochs', only the largest, in units of the noise.
        weights: `TargetObservations.response` is linear in the covariances with the grid's
            configurations: these are the coefficients, in the basis of the epochs.
        source_mean, task_noise, epoch_scale: as in `SourcePosterior`.
        nugget: of the sources; the target's is their mean.
        shared: covariance of the target's nugget with that of each source: 0 but for a target that
            is one of the sources (`amt.gp.curve_prediction`).
    """

    task: TaskKernel
    scores: Float[Array, "task config epoch"]
    config: Float[Array, "config config"]
    fidelity: Eigen
    weights: Float[Array, "task config rank"]
    source_mean: Float[Array, "task"]
    task_noise: Float[Array, "task"]
    epoch_scale: Float[Array, "epoch"]
    nugget: Float[Array, "task"]
    shared: Float[Array, "task"]

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
            extra = OffGrid.empty(len(self.config), self.config.dtype)
        at, under_way = observations.with_pending(pending)
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
        between_epochs = on_epochs @ basis[epoch].T
        prior = known[:, config] * between_epochs
        alone = jnp.mean(self.nugget)
        itself = jnp.where(config[:, None] == jnp.arange(len(cross)), alone, 0)
        response = self.response(cross)
        seen = beside_sources(
            observations,
            self.scores,
            response,
            (mean, mean_variance),
            prior[told, told],
            noise[told],
            (itself[:, config] * between_epochs)[told, told],
        )
        gram = self.task.with_target(seen).gram()
        similarity, scale, regression, indefinite = Regression.of(self.task.gram(), gram)
        scale = jnp.where(indefinite, jnp.nan, scale)
        at_observations, among = self.explained(similarity, regression, cross, config, basis[epoch])

        # Functions of the epoch are the vectors, and as one more the constant of the unknown mean.
        blocks = (scale * known + itself)[:, :, None] * on_epochs[:, None, :] - at_observations
        flat = jnp.full((*blocks.shape[:2], 1), jnp.sqrt(mean_variance))
        constant = jnp.full((len(basis), 1), jnp.sqrt(mean_variance))
        variance = (scale * own + alone)[:, None] * (jnp.square(basis) @ self.fidelity.values)
        rounding = 1e3 * jnp.finfo(variance.dtype).eps * jnp.max(variance)
        variance -= jnp.einsum("xkl,ek,el->xe", among, basis, basis)
        variance = jnp.where(jnp.min(variance) < -rounding, jnp.nan, jnp.maximum(variance, 0))
        prior_mean = mean + jnp.tensordot(similarity, response, 1)
        on_grid = jnp.tensordot(self.shared, self.weights, 1) @ basis.T
        prior_mean = prior_mean.at[: len(on_grid)].add(on_grid)
        return condition_on(
            at,
            noise,
            TargetPosterior(prior_mean, variance + mean_variance),
            jnp.concatenate([blocks, flat], -1),
            jnp.concatenate([basis, constant], 1),
            under_way,
        )


class ObservedCurvesPosterior(IncompleteSourcePosterior):
    r"""The exact one.

    Attributes:
        curve_task, curve_config: of each curve, whole ones first.
        whole: \(\Lambda^2 B_k^{-1}\) of the module docstring.
        gain: \(\Lambda B_k^{-1} W_{wo}\).
        part: \(\Lambda M_z V^\top [K^{-1}]_{zz'} V M_{z'} \Lambda\) of curves that are not whole.
    """

    curve_task: Int[Array, "curve"]
    curve_config: Int[Array, "curve"]
    whole: Float[Array, "rank whole whole"]
    gain: Float[Array, "rank whole part"]
    part: Float[Array, "part rank part rank"]

    @classmethod
    def of(
        cls,
        task: TaskKernel,
        config_gram: Float[Array, "config config"],
        fidelity_gram: Float[Array, "epoch epoch"],
        scores: Float[Array, "task config epoch"],
        task_noise: Float[Array, "task"],
        epoch_noise: Float[Array, "epoch"],
        nugget: Float[Array, "task"],
        cells: ObservedCells,
        rank: int,
    ) -> "ObservedCurvesPosterior":
        """Of the scores that are not NaN, and the `rank` largest eigenvalues of the fidelity."""
        curves = _Curves.of(
            task.gram(), config_gram, fidelity_gram, scores, task_noise, epoch_noise, nugget, cells
        )
        solved = _Solved.of(*curves[2:], rank, len(cells.whole))
        of_whole, half = solved.inverses()
        task_scale, values = jnp.sqrt(task_noise), solved.values
        part = jnp.einsum("zkxb,xbl->zkxl", half * values[:, None, None], solved.reduced * values)
        weights = jnp.zeros((scores[..., 0].size, rank), scores.dtype)
        on_basis = solved.alpha @ solved.vectors * values
        weights = weights.at[jnp.concatenate(cells)].set(on_basis, mode="drop")
        return cls(
            task=task,
            scores=scores,
            config=config_gram,
            fidelity=Eigen(values, solved.vectors),
            weights=weights.reshape(*scores.shape[:2], rank) / task_scale[:, None, None],
            source_mean=solved.means * task_scale,
            task_noise=task_noise,
            epoch_scale=jnp.sqrt(epoch_noise),
            nugget=nugget,
            shared=jnp.zeros_like(nugget),
            curve_task=curves.task,
            curve_config=curves.config,
            whole=jnp.square(values)[:, None, None] * of_whole,
            gain=values[:, None, None] * solved.gain,
            part=part,
        )

    def explained(self, similarity, regression, cross, at, basis):
        noise = jnp.sqrt(self.task_noise)[self.curve_task]
        same = self.curve_config == jnp.arange(len(cross))[:, None]
        rows = cross[:, self.curve_config] * similarity[self.curve_task]
        rows = (rows + jnp.where(same, self.shared[self.curve_task], 0)) / noise
        to_whole, to_part = jnp.split(rows, [self.whole.shape[1]], 1)
        # What the whole curves explain, and then the others of what is left.
        half = to_whole @ self.whole
        left = to_part - to_whole @ self.gain
        others = jnp.einsum("kxz,zkyl->xkyl", left, self.part)
        first = jnp.einsum("kic,ik,xc->ixk", half[:, at], basis, to_whole)
        second = jnp.einsum("ikyl,ik->iyl", others[at], basis)
        among = jax.vmap(jnp.diag)(jnp.einsum("kxc,xc->xk", half, to_whole))
        return (
            first + jnp.einsum("iyl,lxy->ixl", second, left),
            among + jnp.einsum("xkyl,lxy->xkl", others, left),
        )
