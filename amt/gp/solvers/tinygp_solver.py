r"""Exact inference on complete grids as a solver of tinygp."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float
from tinygp.kernels import Kernel
from tinygp.noise import Noise
from tinygp.solvers.solver import Solver

from amt.gp.factors import Factors, Grams
from amt.gp.points import GridPoints, KroneckerKernel
from amt.gp.solvers.kronecker import log_likelihood
from amt.gp.spectral import Grid, Spectral, kronecker_product, outer


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _root_product(inverse: bool, grams: Grams, grid: Grid) -> Grid:
    r"""\(K^{1/2}\) `grid` or \(K^{-1/2}\) `grid` of \(K = K_T \otimes K_C \otimes K_E + I\).

    As a spectral function its derivative is that of Daleckii-Krein: in the eigenbasis,
    \(\mathrm d (K^{1/2})_{ab} = \mathrm dK_{ab} / (\sqrt{D_a} + \sqrt{D_b})\), and
    \(\mathrm d (K^{-1/2})_{ab} = -\mathrm dK_{ab} / (\sqrt{D_a D_b} (\sqrt{D_a} + \sqrt{D_b}))\).
    """
    return _root_forward(inverse, grams, grid)[0]


def _root_forward(inverse, grams, grid):
    spectral = Spectral.of(grams, grid)
    root = jnp.sqrt(spectral.spectrum)
    scaled = spectral.rotated / root if inverse else spectral.rotated * root
    return spectral.back(scaled), spectral


def _root_backward(inverse, spectral, cotangent):
    eigen, root = spectral.eigen, jnp.sqrt(spectral.spectrum)
    output = kronecker_product(cotangent, *(e.vectors.T for e in eigen))
    left, right = output, spectral.rotated
    if inverse:
        left, right = left / root, right / root

    def factor(axis: int) -> Float[Array, "n n"]:
        weight = jnp.moveaxis(spectral.without_axis(axis), axis, 0)
        first, second, roots = (jnp.moveaxis(g, axis, 0) for g in (left, right, root))

        def row(one):
            return jnp.sum(one[0] * weight * second / (one[1] + roots), (1, 2))

        inner = jax.lax.map(row, (first, roots))
        inner = (inner + inner.T) * (-0.5 if inverse else 0.5)
        return eigen[axis].vectors @ inner @ eigen[axis].vectors.T

    back = spectral.back(output / root if inverse else output * root)
    return Grams(factor(0), factor(1), factor(2)), back


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

    X: Any  # GridPoints, for which tinygp's types have no room
    kernel: KroneckerKernel
    noise: Noise
    grams: Grams
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
        if not isinstance(diagonal, Tracer) and not jnp.allclose(diagonal, separable):
            raise ValueError("the noise of a KroneckerSolver must be a product over task and epoch")

        self.kernel, self.X, self.noise = kernel, X, noise
        self.scale = jnp.sqrt(separable)
        tasks = X.task[:: shape[1] * shape[2]]
        configs = X.config[: shape[1] * shape[2] : shape[2]]
        epochs = X.epoch[: shape[2]]
        grams = Grams(
            kernel.task(tasks, tasks),
            kernel.config(configs, configs),
            kernel.fidelity(epochs, epochs),
        )
        whitened, _ = Factors(grams, task_noise, epoch_noise).whiten(diagonal)
        self.grams = whitened.grams

    def variance(self) -> Float[Array, "point"]:
        return self.kernel(self.X) + self.noise.diagonal()

    def covariance(self) -> Float[Array, "point point"]:
        return self.kernel(self.X, self.X) + self.noise

    def normalization(self) -> Float[Array, ""]:
        at_zero = log_likelihood(self.grams, jnp.zeros_like(self.scale))
        return jnp.sum(jnp.log(self.scale)) - at_zero

    def solve_triangular(self, y: Float[Array, "point *batch"], *, transpose: bool = False):
        def solve(grid: Grid) -> Grid:
            whitened: Any = _root_product(
                True, self.grams, grid if transpose else grid / self.scale
            )
            return whitened / self.scale if transpose else whitened

        return self._columnwise(solve, y)

    def dot_triangular(self, y: Float[Array, "point *batch"]) -> Float[Array, "point *batch"]:
        def dot(grid: Grid) -> Grid:
            colored: Any = _root_product(False, self.grams, grid)
            return self.scale * colored

        return self._columnwise(dot, y)

    def condition(self, kernel: Kernel, X_test: Any | None, noise: Noise) -> Any:
        test = self.X if X_test is None else X_test
        cross = self.solve_triangular(kernel(self.X, test))
        return kernel(test, test) + noise - cross.T @ cross

    def _columnwise(self, function, y):
        columns = y.reshape(len(y), -1)
        on_column = lambda column: function(column.reshape(self.scale.shape)).ravel()  # noqa: E731
        return jax.vmap(on_column, in_axes=1, out_axes=1)(columns).reshape(y.shape)
