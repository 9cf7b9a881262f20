r"""Exact Gaussian processes on incomplete grids, at the cost of the curves that were observed.

In units of the noise (`amt.gp.factors`), curve z is of task \(t_z\) and configuration
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
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from amt.gp.factors import Factors
from amt.gp.observations import Observations
from amt.gp.solvers.base import AbstractSolver, Solution
from amt.gp.solvers.incomplete import Explained, IncompletePosterior, Regressed
from amt.gp.sources import Rows, Sources
from amt.gp.spectral import Eigen
from amt.linalg import cholesky, solve_cholesky, solve_lower


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


class _Curves(NamedTuple):
    """The curves that have scores, the whole ones first, in units of the noise.

    Attributes:
        between: W of the module docstring.
        fidelity: Gram matrix of the epochs.
        shape: the mean's course over the epochs.
        scores: 0 where there is none.
    """

    between: Float[Array, "curve curve"]
    fidelity: Float[Array, "epoch epoch"]
    shape: Float[Array, "epoch"]
    scores: Float[Array, "curve epoch"]


class _Cells(NamedTuple):
    """Where the curves are on the grid, and where they have scores.

    Attributes:
        at: task and configuration of each curve.
        member: 1 where a curve is of a task, else 0.
        mask: where there is a score.
    """

    at: tuple[Int[Array, "curve"], Int[Array, "curve"]]
    member: Float[Array, "curve task"]
    mask: Bool[Array, "curve epoch"]


def _gather(
    factors: Factors, scores: Float[Array, "task config epoch"], index: Int[Array, "curve"]
) -> tuple[_Curves, _Cells]:
    """Gather the curves at positions of the raveled (task, config) grid."""
    there = jnp.isfinite(scores)
    ((task, config, fidelity), whitened, shape), _ = factors.whiten(jnp.where(there, scores, 0))
    num_tasks, num_configs, num_epochs = scores.shape
    at_task, at_config = jnp.divmod(index, num_configs)
    at = jnp.minimum(at_task, num_tasks - 1)
    between = task[at[:, None], at] * config[at_config[:, None], at_config]
    if factors.nugget is not None:
        between += jnp.diag((factors.nugget / factors.task_noise)[at])
    rows = (a.reshape(-1, num_epochs).at[index] for a in (whitened, there))
    own, mask = (row.get(mode="fill", fill_value=0) for row in rows)
    member = (at_task[:, None] == jnp.arange(num_tasks)).astype(own.dtype)
    return _Curves(between, fidelity, shape, own), _Cells((at, at_config), member, mask)


class _Whole(NamedTuple):
    r"""The curves without a gap, conditioned on one eigenvalue at a time.

    Attributes:
        factor: Cholesky factors of \(B_k\).
        gain: \(B_k^{-1} W_{wo}\).
        left: \(C_k\).
    """

    factor: Float[Array, "rank whole whole"]
    gain: Float[Array, "rank whole part"]
    left: Float[Array, "rank part part"]

    @classmethod
    def of(
        cls, between: Float[Array, "curve curve"], values: Float[Array, "rank"], number: int
    ) -> "_Whole":
        """Condition on the first curves, so many as `number` says, of the covariance W."""
        values = values[:, None, None]
        across = between[:number, number:]
        across = jnp.broadcast_to(across, (len(values), *across.shape))
        factor = jax.vmap(_factor)(values * between[:number, :number])
        half = jax.vmap(solve_lower)(factor, across)
        gain = jax.vmap(_solve_transposed)(factor, half)
        left = between[number:, number:] - values * (half.swapaxes(1, 2) @ half)
        return cls(factor, gain, left)


class _Solved(NamedTuple):
    r"""The module docstring's matrices, and what the scores say.

    Attributes:
        eigen: Lambda and V, the largest first.
        basis: Phi of the curves that are not whole.
        reduced: their \(R \Lambda^{-1/2}\).
        whole: the curves that are.
        factor: Cholesky factor of the Schur complement, (curve, rank) raveled.
        means: generalized-least-squares means of the tasks.
        alpha: K^-1 r of the residuals r.
        value: the log-likelihood.
    """

    eigen: Eigen
    basis: Float[Array, "part epoch rank"]
    reduced: Float[Array, "part rank rank"]
    whole: _Whole
    factor: Float[Array, "part*rank part*rank"]
    means: Float[Array, "task"]
    alpha: Float[Array, "curve epoch"]
    value: Float[Array, ""]

    @classmethod
    def of(cls, curves: _Curves, cells: _Cells, rank: int, number: int) -> "_Solved":
        between, fidelity, shape, scores = curves
        mask = cells.mask
        eigen = Eigen.of(fidelity).largest(rank)
        values, vectors = eigen.values[::-1], eigen.vectors[:, ::-1]
        observed = jnp.where(mask[number:, :, None], vectors, 0)
        basis = orthonormal(observed)
        reduced = jnp.einsum("zea,zek->zak", basis, observed)

        whole = _Whole.of(between, values, number)
        scaled = jnp.einsum("zak,kzx->zaxk", reduced, values[:, None, None] * whole.left)
        product = jnp.einsum("zaxk,xbk->zaxb", scaled, reduced)
        factor = _factor(product.reshape((len(observed) * rank,) * 2))

        # Scores, and what each task's mean adds to them: in the bases, and beside them.
        design = jnp.where(mask[:, :, None], shape[:, None] * cells.member[:, None, :], 0)
        both = jnp.concatenate([jnp.where(mask, scores, 0)[:, :, None], design], 2)
        on_whole = jnp.einsum("ek,zei->kzi", vectors, both[:number])
        on_part = jnp.einsum("zea,zei->zai", basis, both[number:])
        beside = both.at[:number].add(-jnp.einsum("ek,kzi->zei", vectors, on_whole))
        beside = beside.at[number:].add(-jnp.einsum("zea,zai->zei", basis, on_part))
        beside = beside.reshape(-1, both.shape[2])
        half_whole = jax.vmap(solve_lower)(whole.factor, on_whole)
        known = values[:, None, None] * (whole.gain.swapaxes(1, 2) @ on_whole)
        on_part -= jnp.einsum("zak,kzi->zai", reduced, known)
        half_part: Array = solve_lower(factor, on_part.reshape(len(factor), -1))
        rows = jnp.concatenate([beside, half_whole.reshape(-1, both.shape[2]), half_part])
        gram = rows.T @ rows
        means: Array = solve_cholesky(cholesky(gram[1:, 1:]), gram[1:, :1])[:, 0]

        without = jnp.concatenate([jnp.ones_like(means[:1]), -means])
        diagonals = jnp.diagonal(whole.factor, axis1=1, axis2=2).ravel(), jnp.diagonal(factor)
        log_det = 2 * jnp.sum(jnp.log(jnp.concatenate(diagonals)))
        squares = jnp.sum(jnp.square(rows @ without))
        value = -0.5 * (squares + log_det + jnp.sum(mask) * math.log(2 * math.pi))
        solved = solve_lower(factor, (half_part @ without)[:, None], True).reshape(-1, rank)
        weights = jnp.einsum("zak,za->kz", reduced, solved)
        of_whole = jax.vmap(_solve_transposed)(whole.factor, (half_whole @ without)[:, :, None])
        of_whole = of_whole[:, :, 0] - values[:, None] * (whole.gain @ weights[:, :, None])[:, :, 0]
        on_bases = of_whole.T @ vectors.T, jnp.einsum("zea,za->ze", basis, solved)
        alpha = (beside @ without).reshape(scores.shape) + jnp.concatenate(on_bases)
        return cls(Eigen(values, vectors), basis, reduced, whole, factor, means, alpha, value)

    def inverses(
        self,
    ) -> tuple[Float[Array, "rank whole whole"], Float[Array, "part rank part rank"]]:
        r"""Inverses of \(B_k\), and of the Schur complement times \(R \Lambda^{-1/2}\)."""
        curves, rank, _ = self.reduced.shape
        identity = jnp.eye(self.whole.factor.shape[1], dtype=self.factor.dtype)
        of_whole = jax.vmap(lambda factor: solve_cholesky(factor, identity))(self.whole.factor)
        inverse = solve_cholesky(self.factor, jnp.eye(len(self.factor), dtype=self.factor.dtype))
        inverse = inverse.reshape(curves, rank, curves, rank)
        return of_whole, jnp.einsum("zak,zaxb->zkxb", self.reduced, inverse)


def _factor(product: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Cholesky factor of the product and the identity, rounding errors aside."""
    rounding = 10 * jnp.finfo(product.dtype).eps * jnp.diagonal(product)
    return cholesky(product + jnp.diag(1 + rounding))


def _solve_transposed(factor, right):
    return solve_lower(factor, right, True)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def profile_log_likelihood(
    curves: _Curves, cells: _Cells, rank: int, whole: int
) -> tuple[Float[Array, ""], Float[Array, "task"]]:
    """Log likelihood of the scores of the observed curves at the best task means.

    Args:
        curves: in units of the noise.
        cells: where they are; each task needs a score.
        rank: eigenvalues of the fidelity's Gram matrix that are kept.
        whole: so many curves, the first ones, have no gap.
    """
    solved = _Solved.of(curves, cells, rank, whole)
    return solved.value, solved.means


def _forward(curves, cells, rank, whole):
    solved = _Solved.of(curves, cells, rank, whole)
    return (solved.value, solved.means), (curves.between, cells.member, solved)


def _backward(rank, whole, saved, cotangent):
    between, member, solved = saved
    alpha, (values, vectors), gain = solved.alpha, solved.eigen, solved.whole.gain
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
        "zea,zal->el", solved.basis, jnp.einsum("lzx,xlza->zal", solved.whole.left, half)
    )

    projected = alpha @ vectors
    beta = projected * jnp.sqrt(values)
    on_basis = (alpha.T @ (between @ projected) - summed) @ vectors.T / 2
    gradients = _Curves(
        between=(beta @ beta.T - traces) / 2,
        fidelity=on_basis + on_basis.T - vectors @ (vectors.T @ on_basis),
        shape=(member @ solved.means) @ alpha,
        scores=-alpha,
    )
    return jax.tree.map(lambda gradient: cotangent[0] * gradient, gradients), None


profile_log_likelihood.defvjp(_forward, _backward)


class ObservedCurves(AbstractSolver):
    """Exact on incomplete grids and with a nugget, while the observed curves are few.

    Attributes:
        whole: curves without a gap, as positions in the raveled (task, config) grid.
        part: the others that have scores; positions beyond the grid's end are padding.
        rank: eigenvalues of the fidelity's Gram matrix that are kept: those that count
            (`amt.kernels.fidelity.FidelityKernel`).
    """

    whole: Int[Array, "whole"]
    part: Int[Array, "part"]
    rank: int = eqx.field(static=True)

    @classmethod
    def of(cls, scores: Float[Array, "task config epoch"], rank: int) -> "ObservedCurves":
        """Find the curves that have scores; `scores` are concrete (not for `jax.jit`)."""
        missing = np.isnan(np.asarray(scores))
        there, gap = ~missing.all(2), missing.any(2)
        whole, part = (np.flatnonzero(there & kind).astype(np.int32) for kind in (~gap, gap))
        return cls(jnp.asarray(whole), jnp.asarray(part), rank)

    @classmethod
    def of_complete(cls, num_curves: int, rank: int) -> "ObservedCurves":
        """Take all curves of a complete grid."""
        return cls(jnp.arange(num_curves), jnp.arange(0), rank)

    def solve(self, factors: Factors, scores: Float[Array, "task config epoch"]) -> Solution:
        curves, cells = _gather(factors, scores, self._index(scores))
        solved: Any = profile_log_likelihood(curves, cells, self.rank, len(self.whole))
        value, means = solved
        noise = factors.half_log_det_noise(jnp.isfinite(scores))
        return Solution(value - noise, means * jnp.sqrt(factors.task_noise), jnp.asarray(True))

    def posterior(self, sources: Sources, rank: int | None = None) -> "ObservedCurvesPosterior":
        factors, scores = sources.factors, sources.scores
        rank = self.rank if rank is None else min(rank, self.rank)
        curves, cells = _gather(factors, scores, self._index(scores))
        solved = _Solved.of(curves, cells, rank, len(self.whole))
        of_whole, half = solved.inverses()
        task_scale, values = jnp.sqrt(factors.task_noise), solved.eigen.values
        part = jnp.einsum("zkxb,xbl->zkxl", half * values[:, None, None], solved.reduced * values)
        weights = jnp.zeros((scores[..., 0].size, rank), scores.dtype)
        on_basis = solved.alpha @ solved.eigen.vectors * values
        weights = weights.at[self._index(scores)].set(on_basis, mode="drop")
        return ObservedCurvesPosterior(
            sources=sources,
            fidelity=solved.eigen,
            source_mean=solved.means * task_scale,
            weights=weights.reshape(*scores.shape[:2], rank) / task_scale[:, None, None],
            curve_task=cells.at[0],
            curve_config=cells.at[1],
            whole=jnp.square(values)[:, None, None] * of_whole,
            gain=values[:, None, None] * solved.whole.gain,
            part=part,
        )

    def _index(self, scores: Float[Array, "task config epoch"]) -> Int[Array, "curve"]:
        """Positions of all curves; one of the others, by padding, where there is none."""
        padding = [] if len(self.part) else [jnp.full((1,), scores[..., 0].size)]
        return jnp.concatenate([self.whole, self.part, *padding])


class ObservedCurvesPosterior(IncompletePosterior):
    r"""The exact posterior of incomplete grids, or of any with a nugget.

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

    def explained(self, target: Regressed, rows: Rows, at: Observations) -> Explained:
        basis = self.basis[at.epoch]
        noise = jnp.sqrt(self.sources.factors.task_noise)[self.curve_task]
        covariance = rows.cross[:, self.curve_config] * target.similarity[self.curve_task]
        if target.shared is not None:
            same = self.curve_config == jnp.arange(len(covariance))[:, None]
            covariance += jnp.where(same, target.shared[self.curve_task], 0)
        to_whole, to_part = jnp.split(covariance / noise, [self.whole.shape[1]], 1)
        # What the whole curves explain, and then the others of what is left.
        half = to_whole @ self.whole
        left = to_part - to_whole @ self.gain
        others = jnp.einsum("kxz,zkyl->xkyl", left, self.part)
        first = jnp.einsum("kic,ik,xc->ixk", half[:, at.config], basis, to_whole)
        second = jnp.einsum("ikyl,ik->iyl", others[at.config], basis)
        among = jax.vmap(jnp.diag)(jnp.einsum("kxc,xc->xk", half, to_whole))
        return Explained(
            first + jnp.einsum("iyl,lxy->ixl", second, left),
            among + jnp.einsum("xkyl,lxy->xkl", others, left),
        )
