"""Coordinates of parameters that say the same thing twice, without what the data do not tell.

Contrasts of numbers whose mean is fixed, matrices up to a rotation of their rows, lengthscales of
columns that differ alike.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from amt.linalg import cholesky, solve_lower
from amt.parameters import Learned

Sites = dict[str, Array]
"""Values of the sites of a NumPyro model."""


def sample(name: str, prior: dist.Distribution) -> Array:
    """`numpyro.sample` of a site."""
    return jnp.asarray(numpyro.sample(name, prior))


def contrasts(num_tasks: int, dtype: DTypeLike) -> Float[Array, "task task-1"]:
    """An orthonormal basis of the vectors whose sum is 0 (Helmert)."""
    row = np.arange(1, num_tasks)
    below = np.tri(num_tasks - 1, num_tasks) - row[:, None] * np.eye(num_tasks - 1, num_tasks, 1)
    return jnp.asarray((below / np.sqrt(row * (row + 1.0))[:, None]).T, dtype)


def alike(features: Float[Array, "config feature"]) -> Bool[Array, "feature feature"]:
    """Pairs of columns that are equal, but for a shift and a sign: they differ alike between all
    configurations.
    """
    shifted = (features - features[0]).T
    difference = jnp.minimum(
        jnp.abs(shifted[:, None] - shifted).max(-1), jnp.abs(shifted[:, None] + shifted).max(-1)
    )
    return difference < 1e-6


def triangular(name: str, matrix: Float[Array, "task rank"], shift: bool) -> Sites:
    """Coordinates of `matrix` that a rotation (and a shift) of its rows leaves as they are."""
    if shift:
        matrix = contrasts(len(matrix), matrix.dtype).T @ matrix
    size = min(matrix.shape)
    top = matrix[:size]
    jitter = jnp.finfo(matrix.dtype).eps * jnp.square(matrix).sum() * jnp.eye(size)
    factor = cholesky((top @ top.T + jitter).astype(matrix.dtype))
    lower = jnp.asarray(solve_lower(factor, top @ matrix.T)).T
    return {
        f"{name}.diagonal": jnp.diagonal(lower),
        f"{name}.below": lower[np.tril_indices(len(lower), -1, size)],
    }


def from_triangular(
    name: str, sites: Sites, like: Float[Array, "task rank"], shift: bool
) -> Float[Array, "task rank"]:
    """The matrix with the coordinates of `triangular`, of the shape of `like`."""
    diagonal, below = sites[f"{name}.diagonal"], sites[f"{name}.below"]
    rows, size = len(like) - shift, len(diagonal)
    lower = jnp.zeros((rows, like.shape[1]), below.dtype)
    lower = lower.at[jnp.diag_indices(size)].set(diagonal)
    lower = lower.at[np.tril_indices(rows, -1, size)].set(below)
    return contrasts(len(like), below.dtype) @ lower if shift else lower


def sample_triangular(leaf: Learned, shift: bool) -> Sites:
    """Sample the coordinates of a matrix whose elements have the prior of the leaf, N(0, s^2)."""
    rows, rank = leaf.value.shape
    rows -= shift
    size = min(rows, rank)
    degrees = jnp.arange(rank, rank - size, -1) / 2
    root: Any = dist.transforms.PowerTransform(0.5)
    chi = dist.TransformedDistribution(dist.Gamma(degrees, 0.5 / leaf.prior.variance), root)
    below = leaf.prior.expand([len(np.tril_indices(rows, -1, size)[0])]).to_event(1)
    priors = {f"{leaf.name}.diagonal": chi.to_event(1), f"{leaf.name}.below": below}
    return {name: sample(name, prior) for name, prior in priors.items()}
