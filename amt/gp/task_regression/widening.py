"""A factor of the standard deviations of a target's scores, by how many scores there are."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

COUNTS = (4, 16, 64)


def no_widening(dtype: DTypeLike) -> Float[Array, "count"]:
    """Factors of 1."""
    return jnp.ones(len(COUNTS), dtype)


def widening_after(factors: Float[Array, "count"], count: Int[Array, ""]) -> Float[Array, ""]:
    r"""The factor after n scores: \(\log a\) is linear in \(\log n\) between those of `COUNTS`.

    Args:
        factors: after each number of scores of `COUNTS` (`amt.inference.widening`).
        count: n.
    """
    at = jnp.log(jnp.maximum(count, 1).astype(factors.dtype))
    counts = jnp.log(jnp.asarray(COUNTS, factors.dtype))
    return jnp.exp(jnp.interp(at, counts, jnp.log(factors)))
