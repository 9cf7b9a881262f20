"""Learning curves as arrays of JAX: what a model is of."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from amt.curves import LearningCurves
from amt.gp.solvers import iterative
from amt.gp.solvers.iterative import Solver
from amt.gp.solvers.observed_curves import ObservedCells
from amt.precision import require_dtype


class CurveGrid(eqx.Module):
    """Learning curves as JAX arrays.

    Attributes:
        scores: score of each task and configuration after each epoch, NaN where missing.
        features: encoded configurations (`amt.space.Encoder`).
        epochs: epochs as a share of the last, in (0, 1].
        cells: of an incomplete grid, where there are scores; None of one where none is missing.
        solver: of one that is too large to be exact (`MultiTaskGP.exact_rank`), how it is solved.
    """

    scores: Float[Array, "task config epoch"]
    features: Float[Array, "config feature"]
    epochs: Float[Array, "epoch"]
    cells: ObservedCells | None = None
    solver: Solver = eqx.field(static=True, default=iterative.DEFAULT)

    @classmethod
    def of(
        cls,
        curves: LearningCurves,
        dtype: DTypeLike = jnp.float64,
        *,
        capacity: int | None = None,
        solver: Solver = iterative.DEFAULT,
    ) -> "CurveGrid":
        """The grid of learning curves, complete or not.

        Args:
            capacity: room for so many curves, so that grids which lack different scores can be
                stacked; by default there is none to spare.
            solver: see `solver`.

        Raises:
            ValueError: a task has no score at all (the message names the first one), or there are
                more curves than there is room for.
            RuntimeError: float64 while JAX's x64 mode is off.
        """
        dtype = require_dtype(dtype)
        missing = np.isnan(curves.scores)
        empty = np.flatnonzero(missing.all((1, 2)))
        if len(empty):
            raise ValueError(f"task {curves.tasks[empty[0]]!r} has no score at all")
        there, gap = ~missing.all(2), missing.any(2)
        if capacity is not None and capacity < there.sum():
            raise ValueError(f"there is room for {capacity} curves, but {there.sum()} have scores")
        # Grids to be stacked need the same numbers of each kind.
        gap |= capacity is not None
        whole, part = (np.flatnonzero(there & kind).astype(np.int32) for kind in (~gap, gap))
        padding = 0 if capacity is None else capacity - len(part)
        part = np.pad(part, (0, padding), constant_values=there.size)
        cells = ObservedCells(jnp.asarray(whole), jnp.asarray(part)) if gap.any() else None
        return cls(
            scores=jnp.asarray(curves.scores, dtype),
            features=jnp.asarray(curves.features, dtype),
            epochs=jnp.asarray(curves.epochs / curves.epochs[-1], dtype),
            cells=cells,
            solver=solver,
        )

    @property
    def complete(self) -> bool:
        """Whether no score is missing, which inference on the grid is fastest for."""
        return self.cells is None


def require_complete(grid: CurveGrid, what: str) -> None:
    """Refuse incomplete curves, which `what` has no way of dealing with.

    Raises:
        ValueError: a score is missing; the message has the position of the first, if it is known
            (not under `jax.jit`).
    """
    if grid.complete:
        return
    first = ""
    if not isinstance(grid.scores, jax.core.Tracer):
        *_, task, config, epoch = np.argwhere(np.isnan(np.asarray(grid.scores)))[0]
        first = f"; the first missing is of task {task}, configuration {config}, epoch {epoch}"
    raise ValueError(f"{what} needs complete source curves (positions count from 0){first}")
