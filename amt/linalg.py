r"""Dense factorisations that are safe to batch on a CPU.

`jaxlib` spreads a batched LAPACK call over XLA's thread pool and waits for it on a thread of that
same pool: as soon as as many such calls are under way as there are threads, all wait for ever.
(Seen with jaxlib 0.10.2, two cores, and three independent `eigh` under `vmap`.) Here a batch on a
CPU is a loop over single calls, which run where they are called; on other devices it is the
batched call.

The price is that JAX cannot see through them: derivatives are given here, in reverse mode, and
`eigh` has none, as its eigenvectors have none where eigenvalues coincide.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def _one_at_a_time_on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    single = jax.custom_batching.custom_vmap(function)

    @single.def_vmap
    def _(size, batched, *args):
        if size == 1:
            args = (a[0] if b else a for a, b in zip(args, batched, strict=True))
            out = jax.tree.map(lambda leaf: leaf[None], single(*args))
            return out, jax.tree.map(lambda _: True, out)
        batch = tuple(
            a if b else jnp.broadcast_to(a, (size, *a.shape))
            for a, b in zip(args, batched, strict=True)
        )
        loop = lambda *batch: jax.lax.map(lambda one: single(*one), batch)  # noqa: E731
        out = jax.lax.platform_dependent(*batch, cpu=loop, default=jax.vmap(function))
        return out, jax.tree.map(lambda _: True, out)

    return single


@_one_at_a_time_on_cpu
def _eigh(gram):
    return tuple(jnp.linalg.eigh(gram))


@_one_at_a_time_on_cpu
def _cholesky(gram):
    return jnp.linalg.cholesky(gram, symmetrize_input=False)


@_one_at_a_time_on_cpu
def _solve_lower(factor, right):
    return jax.scipy.linalg.solve_triangular(factor, right, lower=True)


@_one_at_a_time_on_cpu
def _solve_lower_transposed(factor, right):
    return jax.scipy.linalg.solve_triangular(factor, right, lower=True, trans=1)


@jax.custom_jvp
def eigh(gram: Float[Array, "n n"]) -> tuple[Float[Array, "n"], Float[Array, "n n"]]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix.

    Raises:
        TypeError: it is differentiated.
    """
    return _eigh(gram)


@eigh.defjvp
def _(primals, tangents):
    raise TypeError(
        "a posterior has no derivative with respect to kernels, nor to what they depend on; the "
        "marginal likelihood has one (amt.gp.solvers.kronecker)"
    )


def cholesky(gram: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Lower Cholesky factor; NaN where `gram` is not positive definite."""
    factor: Any = _differentiable_cholesky(gram)
    return factor


@jax.custom_vjp
def _differentiable_cholesky(gram: Float[Array, "n n"]) -> Float[Array, "n n"]:
    return _cholesky(gram)


def _cholesky_backward(factor, cotangent):
    # Murray (2016), equation 9.
    inner = jnp.tril(factor.T @ cotangent)
    inner -= jnp.diag(jnp.diagonal(inner)) / 2
    right = solve_lower(factor, inner.T, True).T
    gradient = solve_lower(factor, right, True)
    return ((gradient + gradient.T) / 2,)


_differentiable_cholesky.defvjp(lambda gram: (_cholesky(gram),) * 2, _cholesky_backward)


def solve_lower(
    factor: Float[Array, "n n"], right: Float[Array, "n m"], transposed: bool = False
) -> Float[Array, "n m"]:
    r"""\(L^{-1} B\) of a lower triangular L, or \(L^{-\top} B\)."""
    solution: Any = _differentiable_solve(factor, right, transposed)
    return solution


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _differentiable_solve(
    factor: Float[Array, "n n"], right: Float[Array, "n m"], transposed: bool
) -> Float[Array, "n m"]:
    return (_solve_lower_transposed if transposed else _solve_lower)(factor, right)


def _solve_forward(factor, right, transposed):
    solution = solve_lower(factor, right, transposed)
    return solution, (factor, solution)


def _solve_backward(transposed, saved, cotangent):
    factor, solution = saved
    right = solve_lower(factor, cotangent, not transposed)
    outer = solution @ right.T if transposed else right @ solution.T
    return -jnp.tril(outer), right


_differentiable_solve.defvjp(_solve_forward, _solve_backward)


def solve_cholesky(factor: Float[Array, "n n"], right: Float[Array, "n m"]) -> Float[Array, "n m"]:
    r"""\((L L^\top)^{-1} B\)."""
    return solve_lower(factor, solve_lower(factor, right), True)
