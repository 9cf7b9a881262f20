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
    optimizer = optax.lbfgs()
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

    identity = jnp.eye(len(start), dtype=start.dtype)
    width = jnp.finfo(start.dtype).eps ** 0.25

    def curvature(free):
        slope = lambda direction: jax.grad(potential)(free + width * direction)  # noqa: E731
        both = jax.lax.map(slope, jnp.concatenate([identity, -identity]))
        hessian = (both[: len(free)] - both[len(free) :]) / (2 * width)
        values, vectors = eigh((hessian + hessian.T) / 2)
        return values, vectors / jnp.sqrt(jnp.maximum(jnp.abs(values), 0.01))

    def improve(free, stay):
        value, gradient = value_and_grad(free)
        values, root = curvature(free)
        proposal = free - root @ (root.T @ gradient)
        move = (potential(proposal) < value) & ~stay
        return jnp.where(move, proposal, free), Mode(free, root, root.T @ gradient, values)

    _, modes = jax.lax.scan(improve, free, jnp.arange(newton + 1) == newton)
    return jax.tree.map(lambda x: x[-1], modes)
