r"""Nearest positive semi-definite Gram matrix, with a derivative that exists everywhere.

With the eigendecomposition \(K = Q \Lambda Q^\top\), eigenvalue clipping
\(\hat K = Q \max(\Lambda, 0) Q^\top\) is the nearest PSD matrix in the Frobenius norm (Higham
1988). Clipping raises the diagonal, so that \(\hat K\) is scaled back to it:
\(\tilde K = S \hat K S\), \(S = \mathrm{diag}(K_{ii} / \hat K_{ii})^{1/2}\).

JAX differentiates `eigh` through \(1 / (\lambda_i - \lambda_j)\), NaN where eigenvalues are equal.
The derivative of the clipped matrix itself has no such pole (Daleckii-Krein):
\(\mathrm{d} \hat K = Q [F \circ (Q^\top \mathrm{d}K Q)] Q^\top\) with the divided differences
\(F_{ij} = (\max(\lambda_i, 0) - \max(\lambda_j, 0)) / (\lambda_i - \lambda_j)\), or the
derivative of max where \(\lambda_i = \lambda_j\).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.linalg import eigh


@jax.custom_jvp
def _clip_eigenvalues(gram: Float[Array, "n n"]) -> Float[Array, "n n"]:
    values, vectors = eigh(gram)
    return (vectors * jnp.maximum(values, 0)) @ vectors.T


@_clip_eigenvalues.defjvp
def _(primals, tangents):
    (gram,), (tangent,) = primals, tangents
    values, vectors = eigh(gram)
    clipped = jnp.maximum(values, 0)
    gap = values[:, None] - values[None, :]
    separate = jnp.abs(gap) > jnp.finfo(gram.dtype).eps * jnp.max(jnp.abs(values))
    ratio = (clipped[:, None] - clipped[None, :]) / jnp.where(separate, gap, 1)
    divided = jnp.where(separate, ratio, (values > 0)[:, None])
    symmetric = (tangent + tangent.T) / 2
    inner = divided * (vectors.T @ symmetric @ vectors)
    return (vectors * clipped) @ vectors.T, vectors @ inner @ vectors.T


def project_psd(gram: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The symmetric matrix `gram`, its negative eigenvalues clipped to 0, its diagonal kept.

    A matrix that is PSD already comes back unchanged up to rounding. See the module docstring.
    """
    clipped = _clip_eigenvalues(gram)
    kept, diagonal = jnp.diagonal(gram), jnp.diagonal(clipped)
    scale = jnp.sqrt(kept / jnp.where(diagonal > 0, diagonal, 1))
    return clipped * scale[:, None] * scale[None, :]
