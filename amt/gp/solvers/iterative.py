r"""Gaussian processes on incomplete (task, config, epoch) grids, estimated for any size.

Where few curves are observed, `amt.gp.solvers.observed_curves` is exact, and faster.

In units of the noise (`amt.gp.factors`), the n observed scores have the covariance
\(S (K_T \otimes K_C \otimes K_E) S^\top + I\), S their selection from the grid: no Kronecker
product. But each factor has a root \(Q \Lambda^{1/2}\), so that with \(B = S (Q_T \otimes Q_C
\otimes Q_E) \Lambda^{1/2}\), \(\Lambda = \Lambda_T \otimes \Lambda_C \otimes \Lambda_E\), the
scores are \(y = B w + \varepsilon\) of independent standard normal weights w and noise, and

\[ A = I + B^\top B, \qquad K^{-1} = I - B A^{-1} B^\top, \qquad \log\det K = \log\det A . \]

If a share p of the grid is observed, \(B^\top B \approx p \Lambda\): P = I + p \Lambda is a
preconditioner that is diagonal, exact on complete grids, and whose determinant is known. Conjugate
gradients on \(\tilde A = P^{-1/2} A P^{-1/2}\) apply A through the factors, at
\(O(N (T + C + E))\) a step for a grid of size N. (Measured on HyperRec, half of it missing: 40 to
800 steps, where the covariance of the observations itself needs thousands. Other P were no better:
the inverse of the complete grid's covariance, and separable observed shares instead of one.)

The task means are unknowns of the same linear system, with a flat prior: their solution is the
generalized-least-squares estimate.

Everything random comes from *probes* \(c = \omega - B^\top \eta\) of standard normal \(\omega\)
and of signs \(\eta\), whose covariance is A. With one solution \(A^{-1} c\) each,

- \(B A^{-1} c\) is a sample of the posterior of f minus its mean (Matheron's rule; its extension
  to the grid is one of f there);
- \(u = \eta + B A^{-1} c\) has the covariance \(K^{-1}\), so that
  \(\mathrm{tr}(K^{-1} \mathrm dK) = E[u^\top \mathrm dK\, u]\);
- \(\log\det A = \log\det P + E[\tilde c^\top \tilde A^{-1} \log(\tilde A)\, \tilde c]\),
  \(\tilde c = P^{-1/2} c\), which stochastic Lanczos quadrature computes from the coefficients of
  the same conjugate gradients.

A target joins by its regression on the sources, \(f_* = \sum_t w_t f_t + h\) with
\(w = K_T^{-1} k_*\) and h, of variance \(s - k_*^\top w\), independent of all sources. So its
covariance given their scores is \(\sum_{tt'} w_t w_{t'} \mathrm{cov}(f_t, f_{t'} \mid y) +
(s - k_*^\top w)\, K_C \otimes K_E\): only the first term is estimated from samples, whatever the
query, and n observations of the target cost one n x n Cholesky factorisation.

Source: Lin, Ament, Balandat, Bakshy (2024), "Scaling Gaussian processes for learning curve
prediction via latent Kronecker structure"; Wilson, Borovitskiy, Terenin, Mostowsky, Deisenroth
(2021), pathwise conditioning; Ubaru, Chen, Saad (2017), stochastic Lanczos quadrature; Golub and
Van Loan (2013), section 10.2.6 for Lanczos coefficients from conjugate gradients.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from amt.gp.factors import Factors, Grams, Whitened
from amt.gp.observations import Observations
from amt.gp.solvers.base import AbstractSolver, Solution
from amt.gp.solvers.incomplete import Explained, IncompletePosterior, Regressed
from amt.gp.sources import Rows, Sources
from amt.gp.spectral import Eigen, Grid, kronecker_product, outer
from amt.linalg import cholesky, eigh, solve_lower


class Settings(NamedTuple):
    """Settings of the conjugate gradients and of what is estimated with them.

    Measured on four tasks of HyperRec, 295 curves of 17,234 scores after 40 steps of a fit,
    against `amt.gp.solvers.observed_curves`: errors of the gradient were 15 to 24 % of its norm
    with 8 probes, and those of four seeds averaged 8 %. With a tolerance of 0.1 it had a bias of
    15 %, too. Errors of the log-likelihood of 40,315 were -4 to 22; -30 to -8 with 128 steps of
    Lanczos quadrature, -88 to -61 with 64.

    Attributes:
        tolerance: norm of the residual of the weights, relative to the square root of the
            number of weights that the scores determine. Errors of the gradient are of this order,
            those of the likelihood of second order.
        max_steps: at most. What is not solved by then stays as it is: `Solution.converged` and
            `IterativePosterior.solved` tell, and a fit has not `converged`.
        rank: eigenvalues of the fidelity's Gram matrix that are kept; None keeps all. Those of
            the fidelity kernels fall fast, and the first 24 leave out rounding errors, or with
            Matern-5/2 what is far below the noise.
        probes: number of them in a likelihood.
        lanczos: steps of Lanczos quadrature, which the value needs, and not its gradient.
        samples: of the sources' posterior, rounded up to a multiple of 16. Their part of a variance
            has a relative standard error of (2 / samples)^(1/2). The mean is exact before the
            target has observations, and has sampling errors after: where the noise is small, 256
            samples leave up to 0.4 posterior standard deviations on problems of the tests, 8192 up
            to 0.15. None is exact, by dense algebra of as many dimensions as there are tasks x
            configurations x rank: for small problems.
        seed: of probes and samples, which are the same at every call.
    """

    tolerance: float = 0.01
    max_steps: int = 2000
    rank: int | None = 24
    probes: int = 8
    lanczos: int = 256
    samples: int | None = 256
    seed: int = 0


class Weights(NamedTuple):
    r"""\(P^{1/2} w\), and the task means in units of their preconditioner; one row a system."""

    function: Float[Array, "row task config rank"]
    mean: Float[Array, "row task"]


class CGResult(NamedTuple):
    """Solutions, whether they are, and the Lanczos matrices (diagonal, and beside it) of them."""

    solution: Weights
    solved: Bool[Array, "row"]
    diagonal: Float[Array, "row lanczos"]
    beside: Float[Array, "row lanczos"]


def _dot(left: Weights, right: Weights) -> Float[Array, "row"]:
    products = jax.tree.map(lambda a, b: jnp.sum(a * b, tuple(range(1, a.ndim))), left, right)
    return products.function + products.mean


def _add(left: Weights, scale: Float[Array, "row"], right: Weights) -> Weights:
    def add(a, b):
        return a + scale.reshape(-1, *(1,) * (a.ndim - 1)) * b

    return jax.tree.map(add, left, right)


def conjugate_gradients(
    product: Callable[[Weights], Weights],
    right: Weights,
    error: Callable[[Weights], Float[Array, "row"]],
    goal: Float[Array, "row"],
    max_steps: int,
    lanczos: int,
) -> CGResult:
    """Solve symmetric positive definite systems side by side, each until `error` of its residual
    is no more than its `goal`.

    The Lanczos matrices are those of the first `lanczos` steps; after convergence they continue
    as the identity.
    """
    norm = _dot(right, right)
    rows = jnp.ones((len(norm), lanczos), norm.dtype)

    def unfinished(carry):
        step, active, *_ = carry
        return (step < max_steps) & jnp.any(active)

    def advance(carry):
        step, active, solution, residual, direction, squared, last, diagonal, beside = carry
        image = product(direction)
        length = jnp.where(active, squared / jnp.where(active, _dot(direction, image), 1), 0)
        solution = _add(solution, length, direction)
        residual = _add(residual, -length, image)
        new = jnp.where(active, _dot(residual, residual), squared)
        ratio = jnp.where(active, new / jnp.where(active, squared, 1), 0)
        direction = _add(residual, ratio, direction)
        inverse = 1 / jnp.where(active, length, 1)
        diagonal = diagonal.at[:, step].set(inverse + last, mode="drop")
        beside = beside.at[:, step].set(jnp.sqrt(ratio) * inverse, mode="drop")
        # One that has just converged is cut off from the identity that follows.
        more = active & (error(residual) > goal)
        last = jnp.where(more, ratio * inverse, 0)
        beside = jnp.where(more[:, None] | (jnp.arange(lanczos) < step), beside, 0)
        return step + 1, more, solution, residual, direction, new, last, diagonal, beside

    zero = jax.tree.map(jnp.zeros_like, right)
    active = error(right) > goal
    last, beside = jnp.zeros_like(norm), jnp.zeros_like(rows)
    start = (0, active, zero, right, right, norm, last, rows, beside)
    _, active, solution, *_, diagonal, beside = jax.lax.while_loop(unfinished, advance, start)
    return CGResult(solution, ~active, diagonal, beside)


def lanczos_quadrature(function: Callable[[Array], Array], result: CGResult) -> Float[Array, "row"]:
    r"""\(b^\top f(\tilde A)\, b / b^\top b\) for the right-hand sides b of conjugate gradients."""

    def quadrature(diagonal, beside):
        matrix = jnp.diag(diagonal) + jnp.diag(beside[:-1], 1) + jnp.diag(beside[:-1], -1)
        values, vectors = eigh(matrix)
        # In exact arithmetic they are positive.
        values = jnp.maximum(values, jnp.finfo(values.dtype).tiny)
        return jnp.sum(jnp.square(vectors[0]) * function(values))

    return jax.lax.map(lambda pair: quadrature(*pair), (result.diagonal, result.beside))


class Latent(NamedTuple):
    r"""The linear system of the module docstring.

    Attributes:
        basis: eigendecompositions of the three factors.
        mask: 1 where there is a score, else 0.
        precision: P.
        root: \(\Lambda^{1/2} P^{-1/2}\).
        curve: the mean's course over the epochs h, for each task in units of its preconditioner.
        mean_scale: what to multiply the weights of the means by.
    """

    basis: tuple[Eigen, Eigen, Eigen]
    mask: Grid
    precision: Grid
    root: Grid
    curve: Float[Array, "task epoch"]
    mean_scale: Float[Array, "task"]

    @classmethod
    def of(
        cls,
        grams: Grams,
        mask: Bool[Array, "task config epoch"],
        shape: Float[Array, "epoch"],
        rank: int | None = None,
    ) -> "Latent":
        """Set the system up for Gram matrices in units of the noise.

        Args:
            mask: where there is a score.
            shape: the course over the epochs of a task's mean.
            rank: eigenvalues of the fidelity's Gram matrix that are kept; None keeps all.
        """
        task, config, all_fidelity = map(Eigen.of, grams)
        basis = task, config, all_fidelity.largest(rank)
        eigenvalues = outer(*(e.values for e in basis))
        observed = mask.astype(eigenvalues.dtype)
        precision = 1 + jnp.mean(observed) * eigenvalues
        norm = jnp.sqrt(jnp.sum(observed * jnp.square(shape), (1, 2)))
        root = jnp.sqrt(eigenvalues / precision)
        return cls(basis, observed, precision, root, shape / norm[:, None], 1 / norm)

    def function(self, weights: Float[Array, "row task config rank"]) -> Float[Array, "row ..."]:
        """The noise-free scores on the whole grid, less their means."""
        task, config, fidelity = (e.vectors for e in self.basis)
        few = jax.vmap(lambda w: kronecker_product(self.root * w, task, config))(weights)
        return few @ fidelity.T

    def scores(self, weights: Weights) -> Float[Array, "row task config epoch"]:
        """Observed scores without noise, 0 where there is none."""
        mean = weights.mean[:, :, None, None] * self.curve[:, None]
        return self.mask * (self.function(weights.function) + mean)

    def transposed(self, scores: Float[Array, "row task config epoch"]) -> Weights:
        """The transposed of `scores`."""
        vectors = [e.vectors.T for e in self.basis]
        scores = self.mask * scores
        function = self.root * jax.vmap(lambda s: kronecker_product(s, *vectors))(scores)
        return Weights(function, jnp.einsum("rtce,te->rt", scores, self.curve))

    def solve(self, right: Weights, free: Float[Array, "row 1"], settings: Settings) -> CGResult:
        """Solve the system; in rows that are not `free` (0, not 1) the means are 0."""

        def product(weights: Weights) -> Weights:
            function, mean = self.transposed(self.scores(weights))
            return Weights(weights.function / self.precision + function, free * mean)

        def error(residual: Weights) -> Float[Array, "row"]:
            return _dot(residual, residual._replace(function=self.precision * residual.function))

        right = right._replace(mean=free * right.mean)
        determined = jnp.sum((self.precision - 1) / self.precision)
        rounding = 10 * jnp.finfo(determined.dtype).eps
        goal = settings.tolerance**2 * determined + rounding**2 * error(right)
        return conjugate_gradients(
            product, right, error, goal, settings.max_steps, settings.lanczos
        )

    def inverse_root(self) -> Float[Array, "row task config rank"]:
        r"""Rows whose products with themselves sum to \(\tilde A^{-1}\), by dense algebra."""
        size = self.root.size
        identity = jnp.eye(size, dtype=self.root.dtype)
        unit = identity.reshape(-1, *self.root.shape)
        image = self.transposed(self.mask * self.function(unit)).function
        gram = image.reshape(size, size) + jnp.diag(1 / self.precision.ravel())
        return solve_lower(cholesky((gram + gram.T) / 2), identity).reshape(unit.shape)

    def probes(
        self, number: int, key: PRNGKeyArray
    ) -> tuple[Weights, Float[Array, "row task config epoch"]]:
        r"""\(P^{-1/2} c\), and \(\eta\)."""
        keys = jax.random.split(key)
        dtype = self.mask.dtype
        eta = jax.random.rademacher(keys[0], (number, *self.mask.shape), dtype) * self.mask
        omega = jax.random.normal(keys[1], (number, *self.root.shape), dtype)
        function = omega / jnp.sqrt(self.precision) - self.transposed(eta).function
        return Weights(function, jnp.zeros((number, len(self.mask)), dtype)), eta


class _Solved(NamedTuple):
    """The profile likelihood, and what its gradient is made of.

    Attributes:
        value: the log-likelihood.
        means: of the tasks.
        inverse: the residual times the inverse covariance, and u of each probe.
        solved: whether the conjugate gradients reached their tolerance.
    """

    value: Float[Array, ""]
    means: Float[Array, "task"]
    inverse: Float[Array, "row task config epoch"]
    solved: Bool[Array, ""]

    @classmethod
    def of(cls, whitened: Whitened, mask: Bool[Array, "..."], settings: Settings) -> "_Solved":
        grams, scores, shape = whitened
        latent = Latent.of(grams, mask, shape, settings.rank)
        scores = jnp.where(mask, scores, 0)
        probes, eta = latent.probes(settings.probes, jax.random.key(settings.seed))
        right = jax.tree.map(
            lambda a, b: jnp.concatenate([a, b]), latent.transposed(scores[None]), probes
        )
        free = (jnp.arange(settings.probes + 1) == 0).astype(scores.dtype)[:, None]
        result = latent.solve(right, free, settings)

        fitted = latent.scores(result.solution)
        inverse = jnp.concatenate([scores[None] - fitted[:1], eta + fitted[1:]])
        # The squares at their minimum, so that errors of the solution are of second order.
        weights = jnp.square(result.solution.function[0]) / latent.precision
        squares = jnp.sum(jnp.square(inverse[0])) + jnp.sum(weights)
        quadrature = lanczos_quadrature(lambda x: jnp.log(x) / x, result)[1:]
        log_det = jnp.sum(jnp.log(latent.precision))
        log_det += jnp.mean(_dot(probes, probes) * quadrature)
        size = jnp.sum(latent.mask)
        value = -0.5 * (squares + log_det + size * math.log(2 * math.pi))
        means = result.solution.mean[0] * latent.mean_scale
        return cls(value, means, inverse, jnp.all(result.solved))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def profile_log_likelihood(
    whitened: Whitened, mask: Bool[Array, "task config epoch"], settings: Settings
) -> tuple[Float[Array, ""], Float[Array, "task"], Bool[Array, ""]]:
    """Estimate the log likelihood of the scores in `mask` at the best task means.

    The log-determinant and its gradient are unbiased estimates (but for what Lanczos quadrature
    and the tolerance leave), the same at every call. Each task needs a score.

    Returns the log-likelihood, the task means, and whether the conjugate gradients reached their
    tolerance.
    """
    solved = _Solved.of(whitened, mask, settings)
    return solved.value, solved.means, solved.solved


def _forward(whitened, mask, settings):
    solved = _Solved.of(whitened, mask, settings)
    return (solved.value, solved.means, solved.solved), (whitened.grams, solved)


def _backward(settings, saved, cotangent):
    (task, config, fidelity), solved = saved
    weight = jnp.full(len(solved.inverse), -1 / settings.probes, task.dtype).at[0].set(1) / 2
    g = solved.inverse
    over_epochs = g @ fidelity
    over_configs = config @ g
    weighted = g * weight[:, None, None, None]
    grams = Grams(
        jnp.einsum("rtce,rsce->ts", weighted, config @ over_epochs),
        jnp.einsum("rtce,rtde->cd", weighted, jnp.einsum("ts,rsce->rtce", task, over_epochs)),
        jnp.einsum("rtce,rtcf->ef", weighted, jnp.einsum("ts,rsce->rtce", task, over_configs)),
    )
    shape = jnp.einsum("t,tce->e", solved.means, g[0])
    gradients = Whitened(grams, -g[0], shape)
    return jax.tree.map(lambda gradient: cotangent[0] * gradient, gradients), None


profile_log_likelihood.defvjp(_forward, _backward)


class Iterative(AbstractSolver):
    """Estimates of any number of incomplete curves, by conjugate gradients.

    ```python
    solver = Iterative(Settings(samples=1024))
    ```
    """

    settings: Settings = eqx.field(static=True, default=Settings())

    def solve(self, factors: Factors, scores: Grid) -> Solution:
        factors.require_product("Iterative")
        mask = jnp.isfinite(scores)
        whitened, _ = factors.whiten(jnp.where(mask, scores, 0))
        solved: Any = profile_log_likelihood(whitened, mask, self.settings)
        value, means, converged = solved
        noise = factors.half_log_det_noise(mask)
        return Solution(value - noise, means * jnp.sqrt(factors.task_noise), converged)

    def posterior(self, sources: Sources, rank: int | None = None) -> "IterativePosterior":
        """Condition on the source curves, for any target.

        The sources' means and what is linear in the scores are solved for to a hundredth of the
        tolerance.

        Args:
            rank: eigenvalues of the fidelity's Gram matrix that are carried; None for those of
                the settings.
        """
        settings, task_noise = self.settings, sources.factors.task_noise
        sources.factors.require_product("Iterative")
        mask = jnp.isfinite(sources.scores)
        known = jnp.where(mask, sources.scores, 0)
        (grams, whitened, shape), _ = sources.factors.whiten(known)
        latent = Latent.of(grams, mask, shape, settings.rank if rank is None else rank)
        tight = settings._replace(
            tolerance=1e-2 * settings.tolerance, max_steps=10 * settings.max_steps, lanczos=1
        )
        free = jnp.ones((1, 1), whitened.dtype)
        solution, solved, *_ = latent.solve(latent.transposed(whitened[None]), free, tight)
        alpha = whitened - latent.scores(solution)[0]
        task_scale = jnp.sqrt(task_noise)
        tasks, configs, fidelity = latent.basis
        # Of eigenvalues that are rounding errors there is nothing to divide by.
        floor = len(configs.values) * jnp.finfo(whitened.dtype).eps * configs.values[-1]
        above = configs.values > floor
        inverse = jnp.where(above, 1 / jnp.sqrt(jnp.where(above, configs.values, 1)), 0)
        root = configs.vectors * inverse

        def deviations(weights: Float[Array, "row task config rank"]):
            scaled = latent.root * weights * jnp.square(inverse)[:, None]
            turn = lambda w: kronecker_product(w, tasks.vectors, configs.vectors)  # noqa: E731
            return jax.vmap(turn)(scaled) * task_scale[:, None, None]

        def draw(key: PRNGKeyArray):
            right, _ = latent.probes(_CHUNK, key)
            loose = settings._replace(lanczos=1)
            result = latent.solve(right, jnp.zeros((_CHUNK, 1), whitened.dtype), loose)
            return deviations(result.solution.function), result.solved

        if settings.samples is None:
            spread = deviations(latent.inverse_root())
        else:
            chunks = -(-settings.samples // _CHUNK)
            keys = jax.random.split(jax.random.key(settings.seed), chunks)
            drawn, each = jax.lax.map(draw, keys)
            solved = jnp.append(solved, each)
            spread = drawn.reshape(-1, *drawn.shape[2:]) / math.sqrt(chunks * _CHUNK)
        return IterativePosterior(
            sources=sources,
            fidelity=fidelity,
            source_mean=solution.mean[0] * latent.mean_scale * task_scale,
            weights=alpha @ fidelity.vectors * fidelity.values / task_scale[:, None, None],
            deviations=spread,
            root=root,
            solved=jnp.all(solved),
        )


_CHUNK = 16


class IterativePosterior(IncompletePosterior):
    r"""The estimated posterior of any number of incomplete curves.

    Attributes:
        deviations: the sources' posterior covariance is the sum of their products with
            themselves, and \(k_C(x, C)\) times these is that of any configurations x, less what
            the grid leaves of their covariance. In the basis of the epochs' vectors.
        root: \(K_C^{-1}\) is its product with itself.
        solved: whether all conjugate gradients reached their tolerance.
    """

    deviations: Float[Array, "deviation task config rank"]
    root: Float[Array, "config config"]
    solved: Bool[Array, ""]

    def explained(self, target: Regressed, rows: Rows, at: Observations) -> Explained:
        basis = self.basis[at.epoch]
        functions = rows.cross @ jnp.tensordot(target.weights, self.deviations, ((0,), (1,)))
        at_observations = jnp.einsum("zik,ik->iz", functions[:, at.config], basis)
        coordinates, scale = rows.cross @ self.root, target.similarity @ target.weights
        between = coordinates[at.config] @ coordinates.T
        of_sources = scale * between[:, :, None] * (basis * self.fidelity.values)[:, None, :]
        among = scale * jnp.sum(jnp.square(coordinates), 1)[:, None] * self.fidelity.values
        products = jnp.einsum("zxk,zxl->xkl", functions, functions)
        return Explained(
            of_sources - jnp.tensordot(at_observations, functions, 1),
            jax.vmap(jnp.diag)(among) - products,
        )
