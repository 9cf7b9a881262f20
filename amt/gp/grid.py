"""Source curves as JAX arrays on a (task, config, epoch) grid, and thinned axes of epochs."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from amt.curves import LearningCurves
from amt.precision import require_dtype


class CurveGrid(eqx.Module):
    """Learning curves as JAX arrays.

    Attributes:
        scores: score of each task and configuration after each epoch, NaN where missing.
        features: encoded configurations (`amt.space.Encoder`).
        epochs: epochs as a share of the last, in (0, 1].
        complete: whether no score is missing.
        variance: of scores that were filled in, 0 of others; None where none was.
    """

    scores: Float[Array, "task config epoch"]
    features: Float[Array, "config feature"]
    epochs: Float[Array, "epoch"]
    complete: bool = eqx.field(static=True, default=True)
    variance: Float[Array, "task config epoch"] | None = None

    @classmethod
    def of(cls, curves: LearningCurves, dtype: DTypeLike = jnp.float64) -> "CurveGrid":
        """Put learning curves, complete or not, on the grid.

        Raises:
            ValueError: a task has no score at all; the message names the first one.
            RuntimeError: float64 while JAX's x64 mode is off.
        """
        dtype = require_dtype(dtype)
        missing = np.isnan(curves.scores)
        empty = np.flatnonzero(missing.all((1, 2)))
        if len(empty):
            raise ValueError(f"task {curves.tasks[empty[0]]!r} has no score at all")
        return cls(
            scores=jnp.asarray(curves.scores, dtype),
            features=jnp.asarray(curves.features, dtype),
            epochs=jnp.asarray(curves.epochs / curves.epochs[-1], dtype),
            complete=not missing.any(),
        )


def require_complete(grid: CurveGrid, what: str) -> None:
    """Raise an error that names the first missing score, where one is missing.

    Args:
        grid: source curves.
        what: needs complete ones.

    Raises:
        ValueError: a score is missing; the message has the position of the first, if it is known
            (not under `jax.jit`).
    """
    if grid.complete:
        return
    first = ""
    if not isinstance(grid.scores, Tracer):
        *_, task, config, epoch = np.argwhere(np.isnan(np.asarray(grid.scores)))[0]
        first = f"; the first missing is of task {task}, configuration {config}, epoch {epoch}"
    raise ValueError(f"{what} needs complete source curves (positions count from 0){first}")


def thinned(size: int, count: int) -> Int[np.ndarray, "kept"]:
    """At most `count` positions among `size`, evenly on a logarithmic axis, the ends included."""
    if count >= size:
        return np.arange(size)
    return np.unique(np.round(np.geomspace(1, size, count)).astype(int)) - 1
