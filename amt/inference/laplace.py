"""The mode of a density and the normal distribution around it (Laplace).

The Hessian is by central differences of the gradient, for densities that are differentiable once.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from amt.linalg import eigh


class Mode(NamedTuple):
    """The mode of a density on unconstrained values, and the normal distribution around it.

    Attributes:
        location: the mode.
        root: R, R R' being the inverse Hessian of minus the log density there.
        gradient: gradient left, in the whitened space: 0 at the mode.
        curvature: eigenvalues of the Hessian; one that is not positive is replaced for `root`.
    """

    location: Float[Array, "free"]
    root: Float[Array, "free free"]
    gradient: Float[Array, "free"]
    curvature: Float[Array, "free"]


def find_mode(
    potential: Callable[[Float[Array, "free"]], Float[Array, ""]],
    start: Float[Array, "free"],
    *,
    steps: int = 200,
    newton: int = 3,
) -> Mode:
    """Minimise `potential` by L-BFGS, then Newton steps with a Hessian by differences.

    Where the Hessian is not positive definite, or flatter than a standard deviation of 10, the
    magnitude of its eigenvalues, at least 0.01, stands for them.
    """
    value_and_grad = jax.value_and_grad(potential)
    # Backtracking has the potential in fewer places than the zoom line search.
    search = optax.scale_by_backtracking_linesearch(20, store_grad=True)
    optimizer = optax.lbfgs(linesearch=search)
    from_state = optax.value_and_grad_from_state(potential)

    def descend(carry, _):
        free, state = carry
        value, gradient = from_state(free, state=state)
        update, state = optimizer.update(
            gradient, state, free, value=value, grad=gradient, value_fn=potential
        )
        return (free + update, state), None

    (free, _), _ = jax.lax.scan(descend, (start, optimizer.init(start)), length=steps)
    free = jnp.where(jnp.isfinite(free).all(), free, start)

    size = len(start)
    width = jnp.finfo(start.dtype).eps ** 0.25
    apart = width * jnp.eye(size, dtype=start.dtype)
    around = jnp.concatenate([jnp.zeros_like(start)[None], apart, -apart])

    # Whether a step is an improvement is found where the next one starts, so that the potential is
    # in one place of the program.
    def improve(best, _):
        value, mode, proposal = best
        values, gradients = jax.lax.map(value_and_grad, proposal + around)
        hessian = (gradients[1 : size + 1] - gradients[size + 1 :]) / (2 * width)
        curvature, vectors = eigh((hessian + hessian.T) / 2)
        root = vectors / jnp.sqrt(jnp.maximum(jnp.abs(curvature), 0.01))
        better = (values[0] < value) | jnp.isinf(value)
        found = values[0], Mode(proposal, root, root.T @ gradients[0], curvature)
        keep = lambda new, old: jnp.where(better, new, old)  # noqa: E731
        value, mode = jax.tree.map(keep, found, (value, mode))
        return (value, mode, mode.location - mode.root @ mode.gradient), None

    unknown = Mode(free, jnp.zeros_like(apart), jnp.zeros_like(free), jnp.zeros_like(free))
    infinity = jnp.asarray(jnp.inf, start.dtype)
    (_, mode, _), _ = jax.lax.scan(improve, (infinity, unknown, free), length=newton + 1)
    return mode
