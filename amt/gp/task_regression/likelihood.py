r"""The likelihood of every task given all others, from one Gram matrix.

In the model of `amt.gp.task_regression.model` the residual of task s from its prior mean is, like
that mean, a combination \(k_s\) of a few features: the rows F of a stack of a constant, functions
of the epoch and the curves \(Z_t\) of all tasks, each a (config, epoch) grid. With the
covariance of everything that other tasks do not show,

\[ S_0 = K_C \otimes K_E + I \otimes B, \]

and the prior covariance \(S = R R^\top\) of the features' weights, task s has the covariance
\(S_0 + F_s^\top S_{ss} F_s\), \(F_s\) and \(S_{ss}\) without its own row. Whiten the epochs,
\(B = L L^\top\), and decompose \(K_C = Q_C \Lambda_C Q_C^\top\),
\(L^{-1} K_E L^{-\top} = Q_E \Lambda_E Q_E^\top\). With
\(D_{jk} = \lambda^C_j \lambda^E_k + 1\), \(M = L^{-\top} Q_E\) and \(P_i = Q_C^\top F_i M\),

\[ G = F S_0^{-1} F^\top = \sum_{jk} P_{\cdot jk} P_{\cdot jk}^\top / D_{jk}, \qquad
   \log |S_0| = C \log |B| + \sum_{jk} \log D_{jk} . \]

All that is left is of the size of G. Without the row s, \(R^\top G R\) changes by a matrix of rank
two: with \(\rho = R^\top e_s\), \(\gamma = R^\top G e_s\) and \(H = I + R^\top G R\),

\[ H_s = H - \rho \gamma^\top - \gamma \rho^\top + G_{ss}\, \rho \rho^\top, \qquad
   x_s = R^\top G k_s - \rho\, (G k_s)_s, \]
\[ -2 \log p_s = k_s^\top G k_s - x_s^\top H_s^{-1} x_s + \log |S_0| + \log |H_s| + n \log 2 \pi, \]

so that one factorisation of H serves all tasks. Weights of variance 0 are allowed.

The derivative of G does not go through `eigh`. It is closed form: with the cotangent
\(\bar G\) of G, \(A = P / D\) and \(V = \bar G A\), all in the eigenbasis,

\[ \bar K_C = -\sum_k V \lambda^E A^\top, \qquad \bar K_E = -\sum_j V \lambda^C A^\top, \qquad
   \bar B = -\sum_j V A^\top, \qquad \bar F = 2 V, \]

rotated back, plus the diagonal terms of the log-determinant.

Over devices the rows of F are spread, those of the tasks among them (`jax.sharding`). A device
projects its own rows, \(P_i\) and \(A_i\), and computes their rows of G, for which it needs the
P of all others: each task is a regressor of every other one, so that P is gathered once, and A,
that of the task whose likelihood it is, stays where it is. Backward, \(V_i\) needs all of A in
the same way, and \(\bar K_C\), \(\bar K_E\) and \(\bar B\) are sums over rows. The
decompositions, and what is of the size of G, are computed by every device.

Source: Rasmussen and Williams (2006), appendix A.3, for the matrix inversion lemma.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from amt.gp.spectral import Eigen
from amt.linalg import cholesky, solve_lower


class Residual(NamedTuple):
    """Covariance of the curves of one task that no other task shows, by its factors.

    Attributes:
        config, fidelity: K_C and K_E of the module docstring.
        own: B, which is independent over configurations.
    """

    config: Float[Array, "config config"]
    fidelity: Float[Array, "epoch epoch"]
    own: Float[Array, "epoch epoch"]


class _Projected(NamedTuple):
    """Features in the eigenbasis: L, the eigendecompositions, M, D and P / D."""

    root: Float[Array, "epoch epoch"]
    config: Eigen
    fidelity: Eigen
    back: Float[Array, "epoch epoch"]
    spectrum: Float[Array, "config epoch"]
    alpha: Float[Array, "row config epoch"]

    @classmethod
    def of(
        cls, residual: Residual, features: Float[Array, "row config epoch"], mesh: Mesh | None
    ) -> tuple["_Projected", Float[Array, "row row"], Float[Array, ""]]:
        """Project, and return G and the log-determinant too."""
        rows = len(features)
        if mesh is not None:
            features = _spread(features, mesh)
        root = cholesky(residual.own)
        whitened = solve_lower(root, solve_lower(root, residual.fidelity).T)
        config, fidelity = Eigen.of(residual.config), Eigen.of((whitened + whitened.T) / 2)
        back = solve_lower(root, fidelity.vectors, True)
        spectrum = 1 + config.values[:, None] * fidelity.values
        rotated = config.vectors.T @ (features @ back)
        alpha = rotated / spectrum
        gram = jnp.tensordot(alpha, rotated, ((1, 2), (1, 2)))
        log_det = 2 * len(config.values) * jnp.sum(jnp.log(jnp.diagonal(root)))
        log_det += jnp.sum(jnp.log(spectrum))
        if mesh is not None:
            by_row = _placed(gram, mesh, PartitionSpec(mesh.axis_names))
            gram = _placed(by_row, mesh, PartitionSpec())
        return cls(root, config, fidelity, back, spectrum, alpha), gram[:rows, :rows], log_det


def _placed(array: Array, mesh: Mesh, spec: PartitionSpec) -> Array:
    """Constrain how an array is placed on the devices of a mesh."""
    mesh = Mesh(mesh.devices, mesh.axis_names)  # no axis of explicit placement
    return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, spec))


def _spread(array: Float[Array, "row ..."], mesh: Mesh) -> Float[Array, "padded ..."]:
    """Spread the rows of an array over devices, padded by zeros to as many for each."""
    array = _placed(array, mesh, PartitionSpec())  # what it is made of is not spread
    missing = -len(array) % mesh.size
    padded = jnp.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
    return _placed(padded, mesh, PartitionSpec(mesh.axis_names))


def feature_gram(
    residual: Residual, features: Float[Array, "row config epoch"], mesh: Mesh | None = None
) -> tuple[Float[Array, "row row"], Float[Array, ""]]:
    """G and log |S_0| of the module docstring.

    Differentiable once, in reverse mode, at the cost of a few more products.

    Args:
        mesh: devices that the rows are spread over, any number of rows; by default one.
    """
    found: Any = _differentiable_gram(residual, features, mesh)
    return found


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _differentiable_gram(residual, features, mesh):
    return _Projected.of(residual, features, mesh)[1:]


def _gram_forward(residual, features, mesh):
    projected, gram, log_det = _Projected.of(residual, features, mesh)
    return (gram, log_det), projected


def _gram_backward(mesh, projected, cotangent):
    by_gram, by_log_det = cotangent
    rows = len(by_gram)
    config, fidelity, spectrum, alpha = projected[1], projected[2], projected[4], projected[5]
    back = projected.back
    weights = (by_gram + by_gram.T) / 2
    if mesh is not None:
        weights = _spread(jnp.pad(weights, ((0, 0), (0, len(alpha) - rows))), mesh)
    values = jnp.tensordot(weights, alpha, 1)

    def of_config() -> Float[Array, "config config"]:
        product = jnp.einsum("rjk,rlk->jl", values * fidelity.values, alpha)
        return by_log_det * jnp.diag(jnp.sum(fidelity.values / spectrum, 1)) - product

    def of_epochs(weight: Float[Array, "config"]) -> Float[Array, "epoch epoch"]:
        product = jnp.einsum("rjk,rjl->kl", values * weight[:, None], alpha)
        return by_log_det * jnp.diag(jnp.sum(weight[:, None] / spectrum, 0)) - product

    def turned(vectors: Float[Array, "n n"], inner: Float[Array, "n n"]) -> Float[Array, "n n"]:
        return vectors @ ((inner + inner.T) / 2) @ vectors.T

    gradient = Residual(
        config=turned(config.vectors, of_config()),
        fidelity=turned(back, of_epochs(config.values)),
        own=turned(back, of_epochs(jnp.ones_like(config.values))),
    )
    if mesh is not None:
        gradient = jax.tree.map(lambda leaf: _placed(leaf, mesh, PartitionSpec()), gradient)
    return gradient, 2 * (config.vectors @ values[:rows]) @ back.T


_differentiable_gram.defvjp(_gram_forward, _gram_backward)


def leave_one_out(
    gram: Float[Array, "row row"],
    log_det: Float[Array, ""],
    root: Float[Array, "row row"],
    coefficients: Float[Array, "row task"],
    size: int,
) -> Float[Array, "task"]:
    r"""Log density of every task given all others; see the module docstring.

    Args:
        gram: G, the tasks' own curves being its last rows.
        log_det: log |S_0|.
        root: R, with \(R R^\top = S\) the prior covariance of the features' weights.
        coefficients: k_s of each task s.
        size: number of scores of a task.
    """
    first = len(gram) - coefficients.shape[1]
    through = gram @ coefficients
    factor = cholesky(jnp.eye(len(gram), dtype=gram.dtype) + root.T @ gram @ root)
    own = root[first:].T
    other = root.T @ gram[:, first:]
    diagonal = jnp.diagonal(gram)[first:]
    moved = root.T @ through - own * jnp.diagonal(through[first:])

    # In the basis of the factor of H, the change of rank two has the columns [rho, gamma].
    rho, gamma, x = (solve_lower(factor, part) for part in (own, other, moved))
    rr, rg, gg = (jnp.sum(a * b, 0) for a, b in ((rho, rho), (rho, gamma), (gamma, gamma)))
    rx, gx = jnp.sum(rho * x, 0), jnp.sum(gamma * x, 0)
    # I + C U' H^-1 U of the matrix inversion lemma, C = [[G_ss, -1], [-1, 0]], and its inverse.
    a, b = 1 + diagonal * rr - rg, diagonal * rg - gg
    c, d = -rr, 1 - rg
    determinant = a * d - b * c
    u, v = diagonal * rx - gx, -rx
    change = (rx * (d * u - b * v) + gx * (a * v - c * u)) / determinant

    squares = jnp.sum(coefficients * through, 0) - (jnp.sum(jnp.square(x), 0) - change)
    log_dets = log_det + 2 * jnp.sum(jnp.log(jnp.diagonal(factor))) + jnp.log(determinant)
    return -0.5 * (squares + log_dets + size * math.log(2 * math.pi))
