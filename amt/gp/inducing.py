r"""Sparse variational Gaussian processes on learning curves.

M inducing variables stand for all observations: \(u = L v\) of the covariance \(L L^\top = K_{zz}\)
of f at the inducing points (and a jitter, as a bit of independent noise in u), with
\(q(v) = N(m, S)\). Given q, f is a Gaussian process with

\[ E f(x) = m_t + a(x)^\top m, \qquad
   \mathrm{cov}(f(x), f(x')) = k(x, x') - a(x)^\top (I - S)\, a(x'), \qquad
   a(x) = L^{-1} k(z, x), \]

and the evidence lower bound of Gaussian noise of variance \(\sigma^2(x)\) is closed form,

\[ \mathrm{ELBO} = \sum_x \Big[ \log N\big(y(x);\, E f(x), \sigma^2(x)\big)
   - \frac{\mathrm{var} f(x)}{2 \sigma^2(x)} \Big]
   - \mathrm{KL}\big(N(m, S) \,\Vert\, N(0, I)\big) . \]

A sum over a batch of the observations, scaled up, estimates that without bias. On a complete grid
the whole sum costs little more than a batch: its sufficient statistics
\(\Phi = \sum_x a a^\top / \sigma^2\) and \(b = \sum_x a\, (y - m_t) / \sigma^2\) factorise over
the axes, as \(k(z, x)\) does,

\[ L\, \Phi\, L^\top = (K_T A^{-1} K_T^\top) \circ (K_C K_C^\top) \circ (K_E B^{-1} K_E^\top), \]

with the covariances \(K_T, K_C, K_E\) of the inducing points with the grid's tasks, configurations
and epochs: \(O(M^3 + M^2 (T + C + E))\) for any number of observations. Of all q, the best for
given parameters is \(S = (I + \Phi)^{-1}\), \(m = S\, b\). Both need float64: \(\Phi\) so computed
has the rounding errors of \(K_{zz}^{-1}\), and its entries are large.

A target task joins as in `amt.gp.posterior`: its f is a Gaussian process given q, and its n
observations are conditioned on exactly.

Source: Titsias (2009), equations 9 and 10; Hensman, Fusi, Lawrence (2013); Hensman, Matthews,
Ghahramani (2015), section 3.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpyro.distributions import constraints

from amt.gp.conditioning import Regression
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.observations import Observations
from amt.gp.posterior import (
    AbstractSourcePosterior,
    CurvePrediction,
    Target,
    TargetPrior,
    less_explained,
)
from amt.gp.sources import Rows
from amt.gp.spectral import Eigen, outer
from amt.linalg import cholesky, solve_lower
from amt.parameters import parameter


class InducingPoints(eqx.Module):
    """Points (task, configuration, epoch): the task fixed, the rest learned, epochs positive."""

    task: Int[Array, "point"]
    features: Float[Array, "point feature"] = parameter(constraints.real, prior=None)
    epoch: Float[Array, "point"] = parameter(constraints.positive, prior=None)

    @classmethod
    def at(cls, grid: CurveGrid, index: Int[Array, "point"]) -> "InducingPoints":
        """The grid's points of these numbers, in the order of its raveled scores."""
        task, config, epoch = jnp.unravel_index(index, grid.scores.shape)
        return cls(task, grid.features[config], grid.epochs[epoch])

    @classmethod
    def sample(cls, grid: CurveGrid, number: int, key: PRNGKeyArray) -> "InducingPoints":
        """Different points of the grid at random; all of them, if there are no more."""
        size = grid.scores.size
        return cls.at(grid, jax.random.permutation(key, size)[: min(number, size)])


class SparseGP(eqx.Module):
    """A model of learning curves, the tasks' means, and q of the module docstring.

    Attributes:
        model: kernels and noise.
        inducing: the inducing points.
        mean: of each task.
        center: m.
        root: S is `root @ root.T`; what is above the diagonal is not used.
        jitter: added to the diagonal of K_zz, relative to its mean.
    """

    model: MultiTaskGP
    inducing: InducingPoints
    mean: Float[Array, "task"] = parameter(constraints.real, prior=None)
    center: Float[Array, "point"] = parameter(constraints.real, prior=None)
    root: Float[Array, "point point"] = parameter(constraints.real, prior=None)
    jitter: float = eqx.field(static=True, kw_only=True)

    @classmethod
    def init(
        cls, model: MultiTaskGP, grid: CurveGrid, inducing: InducingPoints, *, jitter: float
    ) -> "SparseGP":
        """The prior is q, and the means are those of the scores."""
        size, dtype = len(inducing.task), grid.scores.dtype
        return cls(
            model=model,
            mean=grid.scores.mean((1, 2)),
            inducing=inducing,
            center=jnp.zeros((size,), dtype),
            root=jnp.eye(size, dtype=dtype),
            jitter=jitter,
        )

    def prior_root(self) -> Float[Array, "point point"]:
        """L of the module docstring."""
        z = self.inducing
        gram = self.model.task.gram()[z.task[:, None], z.task]
        gram *= self.model.config(z.features, z.features) * self.model.fidelity(z.epoch, z.epoch)
        jitter = self.jitter * jnp.mean(jnp.diagonal(gram))
        return cholesky(gram + jitter * jnp.eye(len(gram), dtype=gram.dtype))

    def cross(
        self, grid: CurveGrid
    ) -> tuple[
        Float[Array, "point task"], Float[Array, "point config"], Float[Array, "point epoch"]
    ]:
        """Covariances of the inducing points with each axis of a grid."""
        z = self.inducing
        return (
            self.model.task.gram()[z.task],
            self.model.config(z.features, grid.features),
            self.model.fidelity(z.epoch, grid.epochs),
        )

    def prior_variance(self, grid: CurveGrid) -> Float[Array, "task config epoch"]:
        """Prior variance of f on the grid."""
        model = self.model
        task = jnp.diagonal(model.task.gram())
        return outer(task, model.config(grid.features), model.fidelity(grid.epochs))

    def predict(
        self, features: Float[Array, "row feature"], epochs: Float[Array, "epoch"]
    ) -> CurvePrediction:
        """Predict the noise-free scores of the sources at any configurations and epochs."""
        z, model = self.inducing, self.model
        gram = model.task.gram()
        kt, kc, ke = (
            gram[z.task],
            model.config(z.features, features),
            model.fidelity(z.epoch, epochs),
        )
        products = jnp.einsum("zt,zc,ze->ztce", kt, kc, ke)
        a = solve_lower(self.prior_root(), products.reshape(len(kt), -1))
        change = jnp.sum(jnp.square(jnp.tril(self.root).T @ a), 0) - jnp.sum(jnp.square(a), 0)
        shape = products.shape[1:]
        mean = self.mean[:, None, None] + (self.center @ a).reshape(shape)
        prior = outer(jnp.diagonal(gram), model.config(features), model.fidelity(epochs))
        return CurvePrediction(mean, prior + change.reshape(shape))

    def project(
        self,
        prior_root: Float[Array, "point point"],
        config: Float[Array, "point row"],
        epoch: Float[Array, "point rank"],
    ) -> tuple[Float[Array, "task point row rank"], Float[Array, "task point row rank"]]:
        r"""The parts of \(a\) and \(S^{1/2 \top} a\) that each source contributes.

        Args:
            prior_root: L of the module docstring, which every caller needs once.
            config, epoch: covariances of the inducing points with configurations and with
                functions of the epoch.
        """
        basis = (config[:, :, None] * epoch[:, None, :]).reshape(len(config), -1)
        of_task = self.inducing.task == jnp.arange(len(self.mean))[:, None]

        def of_one(mine):
            explained: Array = solve_lower(prior_root, jnp.where(mine[:, None], basis, 0))
            return explained, jnp.tril(self.root).T @ explained

        parts = jax.lax.map(of_one, of_task)
        explained, kept = (p.reshape(*p.shape[:2], config.shape[1], -1) for p in parts)
        return explained, kept

    def response(
        self,
        prior_root: Float[Array, "point point"],
        config: Float[Array, "point row"],
        epoch: Float[Array, "point epoch"],
    ) -> Float[Array, "task row epoch"]:
        """The prediction of a target per unit of its covariance with each source.

        Args:
            prior_root: as in `project`.
            config, epoch: covariances of the inducing points with configurations and epochs.
        """
        weights = solve_lower(prior_root, self.center[:, None], True)[:, 0]
        of_task = self.inducing.task == jnp.arange(len(self.mean))[:, None]
        return jnp.einsum("tz,zc,ze->tce", of_task * weights, config, epoch)

    def divergence(self) -> Float[Array, ""]:
        """KL divergence of q from the prior."""
        root = jnp.tril(self.root)
        trace = jnp.sum(jnp.square(root)) + jnp.sum(jnp.square(self.center))
        log_det = jnp.sum(jnp.log(jnp.square(jnp.diagonal(root))))
        return (trace - log_det - len(root)) / 2

    def elbo_of_batch(self, grid: CurveGrid, index: Int[Array, "batch"]) -> Float[Array, ""]:
        """Estimate of the ELBO from the grid's observations of these numbers."""
        task, config, epoch = jnp.unravel_index(index, grid.scores.shape)
        factors = self.cross(grid)
        # Rows, which are contiguous, are quicker to gather than columns.
        kt, kc, ke = (k.T[i] for k, i in zip(factors, (task, config, epoch), strict=True))
        a: Array = solve_lower(self.prior_root(), (kt * kc * ke).T)
        variance = (
            self.prior_variance(grid)[task, config, epoch]
            - jnp.sum(jnp.square(a), 0)
            + jnp.sum(jnp.square(jnp.tril(self.root).T @ a), 0)
        )
        task_noise, epoch_noise = self.model.noise.factors(len(grid.scores), grid.epochs)
        noise = task_noise[task] * epoch_noise[epoch]
        residual = grid.scores[task, config, epoch] - self.mean[task] - self.center @ a
        expected = jnp.log(2 * math.pi * noise) + (jnp.square(residual) + variance) / noise
        share = grid.scores.size / len(index)
        return -share * jnp.sum(expected) / 2 - self.divergence()

    def elbo(self, grid: CurveGrid) -> Float[Array, ""]:
        """ELBO of all observations of the grid."""
        inner, projected = self._statistics(grid)
        weight = self._precision(grid)
        residual = jnp.square(grid.scores - self.mean[:, None, None])
        squares = jnp.sum(weight * (residual + self.prior_variance(grid)))
        squares += self.center @ (inner @ self.center - 2 * projected)
        root = jnp.tril(self.root)
        spread = jnp.sum(root * (inner @ root)) - jnp.trace(inner)
        log_det = jnp.sum(jnp.log(2 * math.pi / weight))
        return -(log_det + squares + spread) / 2 - self.divergence()

    def with_optimal(self, grid: CurveGrid) -> "SparseGP":
        """Replace q by the one that has the largest ELBO for the parameters as they are."""
        task_noise, epoch_noise = self.model.noise.factors(len(grid.scores), grid.epochs)
        kt, kc, ke = self.cross(grid)
        others = (kc[:, :, None] * (ke / jnp.sqrt(epoch_noise))[:, None, :]).reshape(len(kc), -1)
        residual = (grid.scores - self.mean[:, None, None]) / jnp.sqrt(epoch_noise)
        prior_root = self.prior_root()

        # The sums over x, one task after the other: slower than `_statistics`, and PSD for sure.
        def add(sums, task):
            similarity, residual = task
            a = solve_lower(prior_root, similarity[:, None] * others)
            return (sums[0] + a @ a.T, sums[1] + a @ residual), None

        identity = jnp.eye(len(kt), dtype=kt.dtype)
        rows = (kt / jnp.sqrt(task_noise)).T, residual.reshape(len(residual), -1)
        rows = rows[0], rows[1] / jnp.sqrt(task_noise)[:, None]
        (inner, projected), _ = jax.lax.scan(add, (identity * 0, identity[0] * 0), rows)
        # S = C^{-T} C^{-1}; of a matrix read backwards, the lower root is the upper one.
        factor = cholesky((identity + inner)[::-1, ::-1])[::-1, ::-1]
        root: Array = solve_lower(factor.T, identity)
        return eqx.tree_at(lambda gp: (gp.center, gp.root), self, (root @ root.T @ projected, root))

    def _precision(self, grid: CurveGrid) -> Float[Array, "task config epoch"]:
        task, epoch = self.model.noise.factors(len(grid.scores), grid.epochs)
        return outer(1 / task, jnp.ones(grid.scores.shape[1], grid.scores.dtype), 1 / epoch)

    def _statistics(
        self, grid: CurveGrid
    ) -> tuple[Float[Array, "point point"], Float[Array, "point"]]:
        """Phi and b of the module docstring."""
        task_noise, epoch_noise = self.model.noise.factors(len(grid.scores), grid.epochs)
        kt, kc, ke = self.cross(grid)
        gram = ((kt / task_noise) @ kt.T) * (kc @ kc.T) * ((ke / epoch_noise) @ ke.T)
        weighted = (grid.scores - self.mean[:, None, None]) * self._precision(grid)
        projected = jnp.einsum("tcz,zt,zc->z", weighted @ ke.T, kt, kc)
        root = self.prior_root()
        half: Array = solve_lower(root, gram)
        return solve_lower(root, half.T), solve_lower(root, projected[:, None])[:, 0]


class InducingPosterior(AbstractSourcePosterior):
    r"""Posterior of the source curves under q, for any target.

    The covariances of the target with the inducing points,
    \(k_*(t_z)\, k_C(c, c_z)\, k_E(e, e_z)\), are linear in its covariances \(k_*\) with the
    sources, and so is a(x): `grid_explained` and `grid_kept` hold the parts of \(a\) and
    \(S^{1/2 \top} a\) that each source contributes.

    Attributes:
        gp: q and the kernels; None where nothing off the grid is asked for.
        prior_root: L of the module docstring; None as `gp` is.
        grid_explained, grid_kept: for functions on the grid in the basis of the fidelity's vectors.
        grid_response: `response` of the grid's configurations.
    """

    gp: SparseGP | None
    prior_root: Float[Array, "point point"] | None
    grid_explained: Float[Array, "task point config rank"]
    grid_kept: Float[Array, "task point config rank"]
    grid_response: Float[Array, "task config epoch"]

    @classmethod
    def of(cls, gp: SparseGP, grid: CurveGrid, rank: int | None = None) -> "InducingPosterior":
        """Prepare the `rank` largest eigenvalues of the fidelity's Gram matrix; None keeps all."""
        sources = gp.model.sources(grid)
        scale = jnp.sqrt(sources.factors.epoch_noise)
        fidelity = Eigen.of(sources.factors.grams.fidelity).largest(rank)
        _, kc, ke = gp.cross(grid)
        prior_root = gp.prior_root()
        explained, kept = gp.project(prior_root, kc, ke @ fidelity.vectors)
        return cls(
            sources=sources,
            fidelity=Eigen(fidelity.values, fidelity.vectors / scale[:, None]),
            source_mean=gp.mean,
            gp=gp,
            prior_root=prior_root,
            grid_explained=explained,
            grid_kept=kept,
            grid_response=gp.response(prior_root, kc, ke),
        )

    def on_grid(self) -> "InducingPosterior":
        return eqx.tree_at(lambda p: (p.gp, p.prior_root), super().on_grid(), (None, None))

    def curves(
        self,
        features: Float[Array, "row feature"] | None = None,
        epochs: Float[Array, "epoch"] | None = None,
    ) -> CurvePrediction:
        """Predict the sources' own curves under q, at any configurations and epochs."""
        inputs = self.sources.off_grid()
        assert self.gp is not None
        return self.gp.predict(
            inputs.features if features is None else features,
            inputs.epochs if epochs is None else epochs,
        )

    def response(self, rows: Rows) -> Float[Array, "task row epoch"]:
        if rows.extra is None:
            return self.grid_response
        gp, root, kc, ke = self._extra(rows.extra)
        extra = gp.response(root, kc, ke)
        return jnp.concatenate([self.grid_response, extra], 1)

    def prior(
        self, target: Target, rows: Rows, at: Observations, functions: Float[Array, "epoch rank"]
    ) -> TargetPrior:
        similarity, scale, _ = Regression.of(self.sources.factors.grams.task, target.gram)
        grid, basis = (self.grid_explained, self.grid_kept), self.basis
        explained, kept = (jnp.tensordot(similarity, part, 1) for part in grid)
        if rows.extra is not None:
            gp, root, kc, ke = self._extra(rows.extra)
            parts = gp.project(root, kc, ke @ basis)
            extra = (jnp.tensordot(similarity, part, 1) for part in parts)
            explained, kept = (
                jnp.concatenate(both, 1) for both in zip((explained, kept), extra, strict=True)
            )

        def at_observations(part):
            return jnp.einsum("zik,ik->zi", part[:, at.config], basis[at.epoch])

        def between(left, right):
            flat = left.T @ right.reshape(len(right), -1)
            return flat.reshape(-1, *right.shape[1:])

        observed = between(at_observations(explained), explained)
        observed -= between(at_observations(kept), kept)
        among = jnp.einsum("zck,zcl->ckl", explained, explained)
        among -= jnp.einsum("zck,zcl->ckl", kept, kept)
        variance, cross = less_explained(
            self, scale, target, rows, at, functions, (observed, among)
        )
        mean = jnp.tensordot(similarity, self.response(rows), 1)
        return TargetPrior(mean, variance, cross)

    def _extra(
        self, features: Float[Array, "extra feature"]
    ) -> tuple[
        SparseGP,
        Float[Array, "point point"],
        Float[Array, "point extra"],
        Float[Array, "point epoch"],
    ]:
        """The GP, L, and covariances of the inducing points off the grid and with its epochs."""
        inputs = self.sources.off_grid()
        assert self.gp is not None
        assert self.prior_root is not None
        z = self.gp.inducing
        of_extra, of_epochs = (
            inputs.config(z.features, features),
            inputs.fidelity(z.epoch, inputs.epochs),
        )
        return self.gp, self.prior_root, of_extra, of_epochs
