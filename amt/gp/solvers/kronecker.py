r"""Exact Gaussian processes on complete (task, config, epoch) grids.

With observations on the whole grid and separable noise the covariance is

\[ K = K_T \otimes K_C \otimes K_E + A \otimes I \otimes B, \qquad A = \mathrm{diag}(a_t),\
   B = \mathrm{diag}(b_e). \]

Whitening, \(K_T \to A^{-1/2} K_T A^{-1/2}\), \(K_E \to B^{-1/2} K_E B^{-1/2}\),
\(r \to (A \otimes I \otimes B)^{-1/2} r\), leaves unit noise and adds
\(\frac12 \log\det (A \otimes I \otimes B)\) to the negative log-likelihood. With the
eigendecompositions \(K_T = Q_T \Lambda_T Q_T^\top\), and so on,
\(D_{ijk} = \lambda^T_i \lambda^C_j \lambda^E_k + 1\) and
\(P = (Q_T \otimes Q_C \otimes Q_E)^\top r\),

\[ \log p(r) = -\tfrac12 \sum P^2 / D - \tfrac12 \sum \log D - \tfrac N2 \log 2 \pi \]

at a cost of \(O(T^3 + C^3 + E^3 + N (T + C + E))\) for \(N = T C E\) observations.

The derivative does not go through `eigh`, whose eigenvectors have none where eigenvalues
coincide (a smooth fidelity kernel is nearly of low rank). It is closed form in each factor: with
\(\alpha = P / D\),

\[ \frac{\partial \log p}{\partial K_T} = Q_T \Big[ \tfrac12 \sum_{jk} \alpha_{ijk}
   \alpha_{i'jk} \lambda^C_j \lambda^E_k - \tfrac12 \delta_{ii'} \sum_{jk}
   \frac{\lambda^C_j \lambda^E_k}{D_{ijk}} \Big] Q_T^\top, \qquad
   \frac{\partial \log p}{\partial r} = -(Q_T \otimes Q_C \otimes Q_E)\, \alpha. \]

Source: Saatci (2011), chapter 5; Stegle, Lippert, Mooij, Lawrence, Borgwardt (2011) for the
whitening.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from tinygp.kernels import Kernel
from tinygp.noise import Noise
from tinygp.solvers.solver import Solver

from amt.linalg import eigh

Grid = Float[Array, "task config epoch"]


class Eigen(NamedTuple):
    r"""\(K = Q \Lambda Q^\top\) with negative eigenvalues, which are rounding errors, at 0."""

    values: Float[Array, "rank"]
    vectors: Float[Array, "n rank"]

    @classmethod
    def of(cls, gram: Float[Array, "n n"]) -> "Eigen":
        values, vectors = eigh(gram)
        return cls(jnp.maximum(values, 0), vectors)

    def largest(self, rank: int | None) -> "Eigen":
        """The `rank` largest eigenvalues and their eigenvectors; None keeps all."""
        return self if rank is None else Eigen(self.values[-rank:], self.vectors[:, -rank:])


def kronecker_product(
    grid: Grid,
    task: Float[Array, "i task"] | None = None,
    config: Float[Array, "j config"] | None = None,
    epoch: Float[Array, "k epoch"] | None = None,
) -> Float[Array, "i j k"]:
    r"""\((M_T \otimes M_C \otimes M_E)\) `grid`, a factor that is None being the identity."""
    if epoch is not None:
        grid = grid @ epoch.T
    if config is not None:
        grid = config @ grid
    if task is not None:
        grid = jnp.tensordot(task, grid, 1)
    return grid


def outer(
    task: Float[Array, "task"], config: Float[Array, "config"], epoch: Float[Array, "epoch"]
) -> Grid:
    """The grid of products of three vectors."""
    return task[:, None, None] * config[:, None] * epoch


def whiten(
    residual: Grid,
    task: Float[Array, "task task"],
    fidelity: Float[Array, "epoch epoch"],
    task_noise: Float[Array, "task"],
    epoch_noise: Float[Array, "epoch"],
) -> tuple[Grid, Float[Array, "task task"], Float[Array, "epoch epoch"], Float[Array, ""]]:
    """Residuals and factors in units of the noise, and the log-determinant that this leaves.

    Returns the whitened residual, task and fidelity Gram matrices, and
    (1/2) log det(A x I x B), to be subtracted from the log-likelihood of the whitened residual.
    """
    a, b = jnp.sqrt(task_noise), jnp.sqrt(epoch_noise)
    num_tasks, num_configs, num_epochs = residual.shape
    half_log_det = num_configs * (
        num_epochs * jnp.sum(jnp.log(a)) + num_tasks * jnp.sum(jnp.log(b))
    )
    return (
        residual / (a[:, None, None] * b),
        task / (a[:, None] * a),
        fidelity / (b[:, None] * b),
        half_log_det,
    )


def without_axis(eigen: tuple[Eigen, Eigen, Eigen], axis: int) -> Grid:
    """The grid of products of eigenvalues, those of one axis left out."""
    return outer(*(jnp.ones_like(e.values) if i == axis else e.values for i, e in enumerate(eigen)))


class _Spectral(NamedTuple):
    """A residual in the eigenbasis: `rotated` is P, `spectrum` D of the module docstring."""

    eigen: tuple[Eigen, Eigen, Eigen]
    spectrum: Grid
    rotated: Grid

    @classmethod
    def of(cls, task, config, fidelity, residual) -> "_Spectral":
        eigen = Eigen.of(task), Eigen.of(config), Eigen.of(fidelity)
        spectrum = 1 + outer(*(e.values for e in eigen))
        return cls(eigen, spectrum, kronecker_product(residual, *(e.vectors.T for e in eigen)))

    def profile(self, shape: Float[Array, "epoch"]) -> tuple["_Spectral", Float[Array, "task"]]:
        """Without the generalized-least-squares means, and these means."""
        tasks, configs, fidelities = self.eigen
        u, v = configs.vectors.sum(0), fidelities.vectors.T @ shape
        curve = u[:, None] * v
        weight = curve / self.spectrum
        means = jnp.sum(self.rotated * weight, (1, 2)) / jnp.sum(weight * curve, (1, 2))
        residual = self.rotated - means[:, None, None] * curve
        return self._replace(rotated=residual), tasks.vectors @ means

    def log_density(self) -> Float[Array, ""]:
        return -0.5 * (
            jnp.sum(jnp.square(self.rotated) / self.spectrum)
            + jnp.sum(jnp.log(self.spectrum))
            + self.rotated.size * math.log(2 * math.pi)
        )

    def gradients(self) -> tuple[Array, Array, Array, Grid]:
        """Of `log_density` with respect to the three factors and the residual."""
        alpha, inverse = self.rotated / self.spectrum, 1 / self.spectrum

        def factor(axis: int) -> Float[Array, "n n"]:
            weight = without_axis(self.eigen, axis)
            rest = tuple(i for i in range(3) if i != axis)
            inner = jnp.tensordot(alpha * weight, alpha, (rest, rest))
            inner -= jnp.diag(jnp.sum(inverse * weight, rest))
            vectors = self.eigen[axis].vectors
            return vectors @ inner @ vectors.T / 2

        residual = -kronecker_product(alpha, *(e.vectors for e in self.eigen))
        return factor(0), factor(1), factor(2), residual


@jax.custom_vjp
def log_likelihood(
    task: Float[Array, "task task"],
    config: Float[Array, "config config"],
    fidelity: Float[Array, "epoch epoch"],
    residual: Grid,
) -> Float[Array, ""]:
    """Log density of `residual` under N(0, K_T x K_C x K_E + I); see the module docstring.

    Differentiable once, in reverse mode.
    """
    return _Spectral.of(task, config, fidelity, residual).log_density()


def _log_likelihood_forward(task, config, fidelity, residual):
    spectral = _Spectral.of(task, config, fidelity, residual)
    return spectral.log_density(), spectral


def _log_likelihood_backward(spectral, cotangent):
    return jax.tree.map(lambda g: cotangent * g, spectral.gradients())


log_likelihood.defvjp(_log_likelihood_forward, _log_likelihood_backward)


@jax.custom_vjp
def profile_log_likelihood(
    task: Float[Array, "task task"],
    config: Float[Array, "config config"],
    fidelity: Float[Array, "epoch epoch"],
    scores: Grid,
    shape: Float[Array, "epoch"],
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
    spectral, means = _Spectral.of(task, config, fidelity, scores).profile(shape)
    return spectral.log_density(), means


def _profile_forward(task, config, fidelity, scores, shape):
    spectral, means = _Spectral.of(task, config, fidelity, scores).profile(shape)
    return (spectral.log_density(), means), (spectral, means)


def _profile_backward(saved, cotangent):
    spectral, means = saved
    *factors, residual = spectral.gradients()
    shape = -jnp.einsum("t,tce->e", means, residual)
    return jax.tree.map(lambda g: cotangent[0] * g, (*factors, residual, shape))


profile_log_likelihood.defvjp(_profile_forward, _profile_backward)


class GridPoints(NamedTuple):
    """Coordinates of grid points, in the order of a raveled (task, config, epoch) array.

    `grid_points` makes them; they are the `X` of a `tinygp.GaussianProcess`.
    """

    task: Float[Array, "point"]
    config: Float[Array, "point feature"]
    epoch: Float[Array, "point"]


def grid_points(
    task: Float[Array, "task"], config: Float[Array, "config feature"], epoch: Float[Array, "epoch"]
) -> GridPoints:
    """All combinations of the coordinates on the three axes."""
    t, c, e = (
        i.ravel()
        for i in jnp.meshgrid(
            jnp.arange(len(task)), jnp.arange(len(config)), jnp.arange(len(epoch)), indexing="ij"
        )
    )
    return GridPoints(task[t], config[c], epoch[e])


class KroneckerKernel(Kernel):
    r"""\(k_T(t, t')\, k_C(c, c')\, k_E(e, e')\) on `GridPoints`."""

    task: Kernel
    config: Kernel
    fidelity: Kernel

    def evaluate(self, X1: GridPoints, X2: GridPoints) -> Float[Array, ""]:
        return (
            self.task.evaluate(X1.task, X2.task)
            * self.config.evaluate(X1.config, X2.config)
            * self.fidelity.evaluate(X1.epoch, X2.epoch)
        )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _root_product(inverse: bool, task, config, fidelity, grid: Grid) -> Grid:
    r"""\(K^{1/2}\) `grid` or \(K^{-1/2}\) `grid` of \(K = K_T \otimes K_C \otimes K_E + I\).

    As a spectral function its derivative is that of Daleckii-Krein: in the eigenbasis,
    \(\mathrm d (K^{1/2})_{ab} = \mathrm dK_{ab} / (\sqrt{D_a} + \sqrt{D_b})\), and
    \(\mathrm d (K^{-1/2})_{ab} = -\mathrm dK_{ab} / (\sqrt{D_a D_b} (\sqrt{D_a} + \sqrt{D_b}))\).
    """
    return _root_forward(inverse, task, config, fidelity, grid)[0]


def _root_forward(inverse, task, config, fidelity, grid):
    spectral = _Spectral.of(task, config, fidelity, grid)
    root = jnp.sqrt(spectral.spectrum)
    scaled = spectral.rotated / root if inverse else spectral.rotated * root
    return kronecker_product(scaled, *(e.vectors for e in spectral.eigen)), spectral


def _root_backward(inverse, spectral, cotangent):
    eigen, root = spectral.eigen, jnp.sqrt(spectral.spectrum)
    output = kronecker_product(cotangent, *(e.vectors.T for e in eigen))
    left, right = output, spectral.rotated
    if inverse:
        left, right = left / root, right / root

    def factor(axis: int) -> Float[Array, "n n"]:
        weight = jnp.moveaxis(without_axis(eigen, axis), axis, 0)
        first, second, roots = (jnp.moveaxis(g, axis, 0) for g in (left, right, root))

        def row(one):
            return jnp.sum(one[0] * weight * second / (one[1] + roots), (1, 2))

        inner = jax.lax.map(row, (first, roots))
        inner = (inner + inner.T) * (-0.5 if inverse else 0.5)
        return eigen[axis].vectors @ inner @ eigen[axis].vectors.T

    back = kronecker_product(
        output / root if inverse else output * root, *(e.vectors for e in eigen)
    )
    return factor(0), factor(1), factor(2), back


_root_product.defvjp(_root_forward, _root_backward)


class KroneckerSolver(Solver):
    r"""A `tinygp` solver for complete grids.

    ```python
    X = grid_points(tasks, features, epochs)
    kernel = KroneckerKernel(task, config, fidelity)
    gp = tinygp.GaussianProcess(kernel, X, diag=0.01, solver=KroneckerSolver, shape=(T, C, E))
    ```

    The diagonal noise must be separable, \(\sigma^2_{tce} = a_t b_e\); what is used is the noise
    of the first configuration. In place of the Cholesky factor stands \(L = W S\),
    \(K = L L^\top\), with W the noise's standard deviations and S the symmetric square root of the
    whitened covariance: not triangular, yet all that tinygp asks for. Derivatives are closed
    form; for a marginal likelihood alone, `log_likelihood` is faster.

    Raises:
        ValueError: the points are not as many as `shape` says, the kernel is no
            `KroneckerKernel`, or (outside of jit) the noise is not separable.
    """

    X: GridPoints
    kernel: KroneckerKernel
    noise: Noise
    grams: tuple[Array, Array, Array]
    scale: Grid

    def __init__(
        self,
        kernel: Kernel,
        X: GridPoints,
        noise: Noise,
        *,
        covariance: Any | None = None,
        shape: tuple[int, int, int],
    ):
        del covariance
        if not isinstance(kernel, KroneckerKernel):
            kind = type(kernel).__name__
            raise ValueError(f"KroneckerSolver needs a KroneckerKernel, not {kind}")
        if len(X.task) != math.prod(shape):
            raise ValueError(f"{len(X.task)} points are no {shape} grid of {math.prod(shape)}")
        diagonal = noise.diagonal().reshape(shape)
        task_noise, epoch_noise = diagonal[:, 0, 0], diagonal[0, 0] / diagonal[0, 0, 0]
        separable = outer(task_noise, jnp.ones_like(diagonal[0, :, 0]), epoch_noise)
        if not isinstance(diagonal, jax.core.Tracer) and not jnp.allclose(diagonal, separable):
            raise ValueError("the noise of a KroneckerSolver must be a product over task and epoch")

        self.kernel, self.X, self.noise = kernel, X, noise
        self.scale = jnp.sqrt(separable)
        tasks = X.task[:: shape[1] * shape[2]]
        configs = X.config[: shape[1] * shape[2] : shape[2]]
        epochs = X.epoch[: shape[2]]
        _, task, fidelity, _ = whiten(
            diagonal,
            kernel.task(tasks, tasks),
            kernel.fidelity(epochs, epochs),
            task_noise,
            epoch_noise,
        )
        self.grams = (task, kernel.config(configs, configs), fidelity)

    def variance(self) -> Float[Array, "point"]:
        return self.kernel(self.X) + self.noise.diagonal()

    def covariance(self) -> Float[Array, "point point"]:
        return self.kernel(self.X, self.X) + self.noise

    def normalization(self) -> Float[Array, ""]:
        at_zero = log_likelihood(*self.grams, jnp.zeros_like(self.scale))
        return jnp.sum(jnp.log(self.scale)) - at_zero

    def solve_triangular(self, y: Float[Array, "point *batch"], *, transpose: bool = False):
        def solve(grid: Grid) -> Grid:
            if transpose:
                return _root_product(True, *self.grams, grid) / self.scale
            return _root_product(True, *self.grams, grid / self.scale)

        return self._columnwise(solve, y)

    def dot_triangular(self, y: Float[Array, "point *batch"]) -> Float[Array, "point *batch"]:
        def dot(grid: Grid) -> Grid:
            return self.scale * _root_product(False, *self.grams, grid)

        return self._columnwise(dot, y)

    def condition(self, kernel: Kernel, X_test: Any | None, noise: Noise) -> Any:
        test = self.X if X_test is None else X_test
        cross = self.solve_triangular(kernel(self.X, test))
        return kernel(test, test) + noise - cross.T @ cross

    def _columnwise(self, function, y):
        columns = y.reshape(len(y), -1)
        on_column = lambda column: function(column.reshape(self.scale.shape)).ravel()  # noqa: E731
        return jax.vmap(on_column, in_axes=1, out_axes=1)(columns).reshape(y.shape)
