r"""Exact Gaussian processes on complete (task, config, epoch) grids.

With observations on the whole grid and separable noise, the whitened covariance
(`amt.gp.factors`) is \(K_T \otimes K_C \otimes K_E + I\). In the eigenbasis of its factors
(`amt.gp.spectral`), where residuals r have the coordinates P and the covariance the eigenvalues D,

\[ \log p(r) = -\tfrac12 \sum P^2 / D - \tfrac12 \sum \log D - \tfrac N2 \log 2 \pi \]

at a cost of \(O(T^3 + C^3 + E^3 + N (T + C + E))\) for \(N = T C E\) observations.

The derivative does not go through `eigh`, whose eigenvectors have none where eigenvalues
coincide (a smooth fidelity kernel is nearly of low rank). It is closed form in each factor: with
\(\alpha = P / D\),

\[ \frac{\partial \log p}{\partial K_T} = Q_T \Big[ \tfrac12 \sum_{jk} \alpha_{ijk}
   \alpha_{i'jk} \lambda^C_j \lambda^E_k - \tfrac12 \delta_{ii'} \sum_{jk}
   \frac{\lambda^C_j \lambda^E_k}{D_{ijk}} \Big] Q_T^\top, \qquad
   \frac{\partial \log p}{\partial r} = -(Q_T \otimes Q_C \otimes Q_E)\, \alpha. \]

Given all source scores, the f of a target with covariances \(k_*\) with the sources, variance s
and \(q = Q_T^\top k_*\) is a Gaussian process on the (config, epoch) grid, diagonal in the
eigenbasis of the grid:

\[ \mu_{jk} = \lambda^C_j \lambda^E_k \sum_i q_i \alpha_{ijk}, \qquad
   V_{jk} = s\, \lambda^C_j \lambda^E_k - (\lambda^C_j \lambda^E_k)^2 \sum_i q_i^2 / D_{ijk} . \]

Configurations off the grid have coordinates in the same eigenbasis, \(v = Q_C^\top k_C(C, x)\).
With \(W_{jk} = \sum_i q_i^2 / D_{ijk}\) and \(u = Q_E\) e's row,

\[ \mu(x, e) = \sum_{jk} v_j u_k \lambda^E_k \sum_i q_i \alpha_{ijk}, \qquad
   \mathrm{cov}\big((x, e), (x', e')\big) = \sum_k u_k u'_k \big( s\, \lambda^E_k k_C(x, x')
   - (\lambda^E_k)^2 \sum_j v_j v'_j W_{jk} \big), \]

where grid configurations are those with \(v = \lambda^C Q_C\) c's row.

Source: Saatci (2011), chapter 5; Stegle, Lippert, Mooij, Lawrence, Borgwardt (2011) for the
whitening.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.gp.factors import Factors, Grams
from amt.gp.observations import Observations
from amt.gp.posterior import AbstractSourcePosterior, Target, TargetPrior
from amt.gp.solvers.base import AbstractSolver, Solution
from amt.gp.sources import Rows, Sources
from amt.gp.spectral import Eigen, Grid, Spectral, kronecker_product, outer


class Kronecker(AbstractSolver):
    """Exact on complete grids without a nugget, by the eigendecompositions of the three factors."""

    def solve(self, factors: Factors, scores: Grid) -> Solution:
        factors.require_product("Kronecker")
        whitened, half_log_det = factors.whiten(scores)
        value, means = profile_log_likelihood(*whitened)
        return Solution(
            value - half_log_det,
            means * jnp.sqrt(factors.task_noise),
            jnp.asarray(True),
        )

    def posterior(
        self,
        sources: Sources,
        rank: int | None = None,
        means: Float[Array, "task"] | None = None,
    ) -> "KroneckerPosterior":
        """Condition on the source curves, for any target.

        Args:
            rank: eigenvalues of the fidelity's Gram matrix that are carried; None for all.
            means: of the tasks; by default at their generalized-least-squares value.
        """
        factors = sources.factors
        factors.require_product("Kronecker")
        noise_scale = jnp.sqrt(factors.task_noise)
        (grams, scores, shape), _ = factors.whiten(sources.scores)
        if means is None:
            spectral, whitened_means = _profile(Spectral.of(grams, scores), shape)
            means = whitened_means * noise_scale
        else:
            residual = scores - (means / noise_scale)[:, None, None] * shape
            spectral = Spectral.of(grams, residual)
        tasks, config, all_fidelity = spectral.eigen
        fidelity = all_fidelity.largest(rank)
        kept = slice(-len(fidelity.values), None)
        alpha = spectral.rotated[..., kept] / spectral.spectrum[..., kept]
        epoch_scale = jnp.sqrt(factors.epoch_noise)
        response = kronecker_product(
            alpha * config.values[:, None] * fidelity.values,
            tasks.vectors / noise_scale[:, None],
            config.vectors,
            fidelity.vectors * epoch_scale[:, None],
        )
        return KroneckerPosterior(
            sources=sources,
            fidelity=fidelity,
            source_mean=means,
            config=config,
            rotated=kronecker_product(spectral.rotated[..., kept], tasks.vectors),
            grid_response=response,
        )


def _profile(
    spectral: Spectral, shape: Float[Array, "epoch"]
) -> tuple[Spectral, Float[Array, "task"]]:
    """Take out the generalized-least-squares means, and return them."""
    curve = spectral.mean_curve(shape)
    weight = curve / spectral.spectrum
    means = jnp.sum(spectral.rotated * weight, (1, 2)) / jnp.sum(weight * curve, (1, 2))
    residual = spectral.rotated - means[:, None, None] * curve
    return spectral._replace(rotated=residual), spectral.eigen[0].vectors @ means


def _gradients(spectral: Spectral) -> tuple[Grams, Grid]:
    """Derivatives of `Spectral.log_density` with respect to the factors and the residual."""
    alpha, inverse = spectral.rotated / spectral.spectrum, 1 / spectral.spectrum

    def factor(axis: int) -> Float[Array, "n n"]:
        weight = spectral.without_axis(axis)
        rest = tuple(i for i in range(3) if i != axis)
        inner = jnp.tensordot(alpha * weight, alpha, (rest, rest))
        inner -= jnp.diag(jnp.sum(inverse * weight, rest))
        vectors = spectral.eigen[axis].vectors
        return vectors @ inner @ vectors.T / 2

    return Grams(factor(0), factor(1), factor(2)), -spectral.back(alpha)


@jax.custom_vjp
def log_likelihood(grams: Grams, residual: Grid) -> Float[Array, ""]:
    """Log density of `residual` under N(0, K_T x K_C x K_E + I); see the module docstring.

    Differentiable once, in reverse mode.
    """
    return Spectral.of(grams, residual).log_density()


def _log_likelihood_forward(grams, residual):
    spectral = Spectral.of(grams, residual)
    return spectral.log_density(), spectral


def _log_likelihood_backward(spectral, cotangent):
    return jax.tree.map(lambda g: cotangent * g, _gradients(spectral))


log_likelihood.defvjp(_log_likelihood_forward, _log_likelihood_backward)


@jax.custom_vjp
def profile_log_likelihood(
    grams: Grams, scores: Grid, shape: Float[Array, "epoch"]
) -> tuple[Float[Array, ""], Float[Array, "task"]]:
    r"""`log_likelihood` of `scores - means[task] * shape[epoch]`, at the best means.

    The means are the generalized-least-squares estimate
    \(\hat m = (H^\top K^{-1} H)^{-1} H^\top K^{-1} y\), \(H = I_T \otimes 1_C \otimes h\), which is
    diagonal in the eigenbasis of the tasks: with \(u = Q_C^\top 1\), \(v = Q_E^\top h\),

    \[ \hat m = Q_T \Big[ \frac{\sum_{jk} P_{ijk} u_j v_k / D_{ijk}}
       {\sum_{jk} u_j^2 v_k^2 / D_{ijk}} \Big]_i . \]

    Returns the log-likelihood, differentiable as `log_likelihood` is (the means being at their
    optimum add nothing to its gradient), and the means, which pass no gradient on.
    """
    spectral, means = _profile(Spectral.of(grams, scores), shape)
    return spectral.log_density(), means


def _profile_forward(grams, scores, shape):
    spectral, means = _profile(Spectral.of(grams, scores), shape)
    return (spectral.log_density(), means), (spectral, means)


def _profile_backward(saved, cotangent):
    spectral, means = saved
    grams, residual = _gradients(spectral)
    shape = -jnp.einsum("t,tce->e", means, residual)
    return jax.tree.map(lambda g: cotangent[0] * g, (grams, residual, shape))


profile_log_likelihood.defvjp(_profile_forward, _profile_backward)


class KroneckerPosterior(AbstractSourcePosterior):
    """The exact posterior of complete source grids.

    Attributes:
        config: eigenvalues and vectors of the configurations' Gram matrix.
        rotated: whitened residuals in the eigenbasis of configurations and epochs.
        grid_response: `response` of the grid's configurations.
    """

    config: Eigen
    rotated: Float[Array, "task config rank"]
    grid_response: Float[Array, "task config epoch"]

    def response(self, rows: Rows) -> Float[Array, "task row epoch"]:
        if rows.extra is None:
            return self.grid_response
        scale = jnp.sqrt(self.sources.factors.task_noise)
        alpha, tasks, _ = self._weights(self.sources.factors.grams.task)
        extra = kronecker_product(
            alpha * self.fidelity.values,
            tasks.vectors / scale[:, None],
            self._coordinates(rows),
            self.basis,
        )
        return jnp.concatenate([self.grid_response, extra], 1)

    def prior(
        self, target: Target, rows: Rows, at: Observations, functions: Float[Array, "epoch rank"]
    ) -> TargetPrior:
        values, vectors = self.config
        center, scale, explained = self._target(target.gram)
        spread = scale - values[:, None] * explained
        rounding = 1e3 * jnp.finfo(spread.dtype).eps * jnp.max(scale) * jnp.max(values)
        indefinite = jnp.min(values[:, None] * spread) < -rounding
        spread = jnp.where(indefinite, jnp.nan, jnp.maximum(spread, 0))

        coordinates = jnp.concatenate([vectors * values, self._coordinates(rows)])
        observed = coordinates[at.config]
        variance = (jnp.square(vectors) * values) @ spread
        cross = jnp.einsum("cj,ij,jk->ick", vectors, observed, spread)
        if rows.extra is not None:
            size = len(vectors)
            own = scale * rows.variance[size:, None]
            own -= jnp.square(coordinates[size:]) @ explained
            variance = jnp.concatenate([variance, jnp.maximum(own, 0)])
            known = scale * rows.gram[at.config, size:][..., None]
            known -= jnp.einsum("cj,ij,jk->ick", coordinates[size:], observed, explained)
            cross = jnp.concatenate([cross, known], 1)
        return TargetPrior(
            mean=coordinates @ center @ functions.T,
            variance=variance @ jnp.square(functions).T,
            cross=cross * self.basis[at.epoch][:, None, :],
        )

    def _coordinates(self, rows: Rows) -> Float[Array, "extra config"]:
        """The v of the module docstring, of configurations off the grid."""
        return rows.cross[len(self.config.values) :] @ self.config.vectors

    def _weights(
        self, gram: Float[Array, "task task"]
    ) -> tuple[Float[Array, "task config rank"], Eigen, Float[Array, "task config rank"]]:
        """Alpha, the eigenbasis of tasks with a given Gram matrix, and D."""
        scale = jnp.sqrt(self.sources.factors.task_noise)
        tasks = Eigen.of(gram / (scale[:, None] * scale))
        spectrum = 1 + outer(tasks.values, self.config.values, self.fidelity.values)
        return kronecker_product(self.rotated, tasks.vectors.T) / spectrum, tasks, spectrum

    def _target(
        self, gram: Float[Array, "task+1 task+1"]
    ) -> tuple[Float[Array, "config rank"], Float[Array, "rank"], Float[Array, "config rank"]]:
        r"""A target's moments, of the module docstring, from the Gram matrix with the sources.

        Returns \(\lambda^E_k \sum_i q_i \alpha_{ijk}\), \(s \lambda^E_k\), and
        \((\lambda^E_k)^2 W_{jk}\).
        """
        values = self.fidelity.values
        alpha, tasks, spectrum = self._weights(gram[:-1, :-1])
        q = tasks.vectors.T @ (gram[:-1, -1] / jnp.sqrt(self.sources.factors.task_noise))
        explained = jnp.square(values) * jnp.tensordot(jnp.square(q), 1 / spectrum, 1)
        return values * jnp.tensordot(q, alpha, 1), gram[-1, -1] * values, explained
