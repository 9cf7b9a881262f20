"""Grids of learning curves as lists of points, for tinygp."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float
from tinygp.kernels import Kernel


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
