r"""Kronecker products on (task, config, epoch) grids, in the eigenbases of their factors.

With the eigendecompositions \(K_T = Q_T \Lambda_T Q_T^\top\), and so on, the covariance
\(K_T \otimes K_C \otimes K_E + I\) has the eigenvalues
\(D_{ijk} = \lambda^T_i \lambda^C_j \lambda^E_k + 1\), and a grid of residuals r the coordinates
\(P = (Q_T \otimes Q_C \otimes Q_E)^\top r\).

Source: Saatci (2011), chapter 5.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from amt.gp.factors import Grams
from amt.linalg import eigh

Grid = Float[Array, "task config epoch"]


class Eigen(NamedTuple):
    r"""\(K = Q \Lambda Q^\top\) with negative eigenvalues, which are rounding errors, at 0."""

    values: Float[Array, "rank"]
    vectors: Float[Array, "n rank"]

    @classmethod
    def of(cls, gram: Float[Array, "n n"]) -> "Eigen":
        """Decompose a Gram matrix; eigenvalues ascend."""
        values, vectors = eigh(gram)
        return cls(jnp.maximum(values, 0), vectors)

    def largest(self, rank: int | None) -> "Eigen":
        """Keep the `rank` largest eigenvalues and their eigenvectors; None keeps all."""
        return self if rank is None else Eigen(self.values[-rank:], self.vectors[:, -rank:])


def numerical_rank(gram: Float[np.ndarray, "*batch n n"]) -> int:
    """Count eigenvalues above n * eps * the largest, at most over the batch (not for jit)."""
    values = np.linalg.eigvalsh(gram)
    floor = values.shape[-1] * np.finfo(values.dtype).eps * values[..., -1:]
    return max(int((values > floor).sum(-1).max()), 1)


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


class Spectral(NamedTuple):
    """A grid of residuals in the eigenbasis: `rotated` is P, `spectrum` D of the module docstring.

    Attributes:
        eigen: eigendecompositions of the task, config and fidelity Gram matrices.
    """

    eigen: tuple[Eigen, Eigen, Eigen]
    spectrum: Grid
    rotated: Grid

    @classmethod
    def of(cls, grams: Grams, residual: Grid) -> "Spectral":
        """Decompose the Gram matrices, and rotate residuals in units of the noise."""
        task, config, fidelity = map(Eigen.of, grams)
        spectrum = 1 + outer(task.values, config.values, fidelity.values)
        rotated = kronecker_product(residual, task.vectors.T, config.vectors.T, fidelity.vectors.T)
        return cls((task, config, fidelity), spectrum, rotated)

    def back(self, grid: Grid) -> Grid:
        """Rotate a grid from the eigenbasis back to tasks, configurations and epochs."""
        return kronecker_product(grid, *(e.vectors for e in self.eigen))

    def without_axis(self, axis: int) -> Grid:
        """The grid of products of eigenvalues, those of one axis left out."""
        values = (e.values for e in self.eigen)
        return outer(*(jnp.ones_like(v) if i == axis else v for i, v in enumerate(values)))

    def mean_curve(self, shape: Float[Array, "epoch"]) -> Float[Array, "config epoch"]:
        r"""\(u_j v_k\), \(u = Q_C^\top 1\), \(v = Q_E^\top h\): a task's mean in the eigenbasis."""
        _, config, fidelity = self.eigen
        return config.vectors.sum(0)[:, None] * (fidelity.vectors.T @ shape)

    def log_density(self) -> Float[Array, ""]:
        r"""\(\log N(r; 0, K) = -\tfrac12 \sum (P^2 / D + \log D) - \tfrac N2 \log 2 \pi\)."""
        return -0.5 * (
            jnp.sum(jnp.square(self.rotated) / self.spectrum)
            + jnp.sum(jnp.log(self.spectrum))
            + self.rotated.size * math.log(2 * math.pi)
        )
