r"""NUTS on the hierarchical model.

All on unconstrained values z, whitened: \(z = \hat z + R u\), with the mode \(\hat z\) found by
L-BFGS and Newton steps, and \(R R^\top\) the inverse Hessian there (`amt.inference.laplace`). NUTS
on u gives pilot draws; their covariance over all chains, its correlations shrunk, replaces the
metric for the draws that count. (The covariance that a chain estimates by itself in a warm-up of
some hundred iterations is too noisy in fifty dimensions: it takes two to three times as many
leapfrog steps as no adaptation at all.)

Source: Hoffman and Gelman (2014); Phan, Pradhan, Jankowiak (2019) for NumPyro.
"""

from collections.abc import Callable, Iterable
from functools import partial

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpyro.infer import NUTS
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.inference.draws import Draws, Statistics
from amt.inference.hierarchical import (
    draw_models,
    encoder_weights,
    hierarchical_model,
    pooled,
    redundant,
    start_sites,
    tied,
)
from amt.inference.laplace import find_mode
from amt.linalg import cholesky, solve_lower


def _shrunk_covariance(u: Float[Array, "draw free"]) -> Float[Array, "free free"]:
    """Covariance of draws, its correlations shrunk by what 2 draws a dimension are worth."""
    draws, size = u.shape
    covariance = jnp.cov(u.T, bias=True).reshape(size, size)
    keep = draws / (draws + 2 * size)
    return keep * covariance + (1 - keep) * jnp.diag(jnp.diagonal(covariance))


def _chains(
    potential: Callable[[Float[Array, "free"]], Float[Array, ""]],
    starts: Float[Array, "chain free"],
    key: PRNGKeyArray,
    warmup: int,
    length: Int[Array, ""],
    *,
    largest: int,
    target_accept: float,
    max_tree_depth: int,
    mesh: Mesh | None,
) -> tuple[Float[Array, "chain iteration free"], Statistics]:
    """`length` iterations of NUTS with unit metric from each start, in arrays of the `largest`.

    The step size is adapted for the first `warmup` of them.
    """

    def recorded(state):
        statistics = Statistics(
            diverging=state.diverging,
            num_steps=state.num_steps,
            accept_prob=state.accept_prob,
            energy=state.energy,
            step_size=state.adapt_state.step_size,
            warmup_steps=state.num_steps,
        )
        return state.z, statistics

    def chain(start, key):
        kernel = NUTS(
            potential_fn=potential,
            adapt_mass_matrix=False,
            target_accept_prob=target_accept,
            max_tree_depth=max_tree_depth,
        )

        def step(index, carry):
            state, records = carry
            state = kernel.sample(state, (), {})
            return state, jax.tree.map(lambda a, x: a.at[index].set(x), records, recorded(state))

        state = kernel.init(key, warmup, start, (), {})
        empty = lambda x: jnp.zeros((largest, *x.shape), x.dtype)  # noqa: E731
        records = jax.tree.map(empty, recorded(state))
        return jax.lax.fori_loop(0, length, step, (state, records))[1]

    run, keys = jax.vmap(chain), jax.random.split(key, len(starts))
    if mesh is not None:
        by_chain = PartitionSpec(mesh.axis_names)
        run = jax.shard_map(run, mesh=mesh, in_specs=by_chain, out_specs=by_chain, check_vma=False)
    return run(starts, keys)


def sample_nuts(
    model: MultiTaskGP,
    grid: CurveGrid,
    key: PRNGKeyArray,
    *,
    fixed: Iterable[str] | None = None,
    chains: int = 4,
    warmup: int = 450,
    draws: int = 500,
    thinning: int = 1,
    target_accept: float = 0.9,
    max_tree_depth: int = 8,
    mesh: Mesh | None = None,
) -> Draws:
    """Draw from the posterior with NUTS, from starts spread as the normal at the mode is.

    Pure, for use under `jax.jit` (`fixed` as a tuple, marked static, as are the numbers).

    Args:
        model: fitted, of any noise, such as that of `fit_map`.
        fixed: names of what is not sampled, of the `pooled` model; by default those of `redundant`
            and `encoder_weights`.
        warmup: iterations before the first draw: a third each to adapt the step size of the pilot
            run, for its draws (and what is left over), and to adapt the step size of the run. (Of
            less than 150 in a third, NumPyro leaves too few after its last restart of the
            adaptation.)
        thinning: iterations for each draw.
        mesh: devices to spread the chains over, evenly; else all are on one.
    """
    model.require_product(grid, "the hierarchical model")
    model = pooled(model)
    fixed = redundant(model) | encoder_weights(model) if fixed is None else frozenset(fixed)
    args = model, grid, fixed
    start = unconstrain_fn(hierarchical_model, args, {}, start_sites(*args))
    flat, unravel = ravel_pytree(start)

    @jax.jit
    def potential(free: Float[Array, "free"]) -> Float[Array, ""]:
        return jnp.asarray(potential_energy(hierarchical_model, args, {}, unravel(free)))

    mode = find_mode(potential, flat)
    start_key, pilot_key, final_key, mean_key = jax.random.split(key, 4)

    third = warmup // 3
    lengths = warmup - third, third + draws * thinning
    sample = partial(
        _chains,
        warmup=third,
        largest=max(lengths),
        target_accept=target_accept,
        max_tree_depth=max_tree_depth,
        mesh=mesh,
    )

    # Two runs of one program, which takes long to compile: each starts where the last one ended.
    def run(start, keys_and_length):
        u, root = start
        key, length = keys_and_length
        along = jax.jit(lambda u: potential(mode.location + root @ u))
        u, statistics = sample(along, u, key, length=length)
        pilot = u[:, third : lengths[0]]
        metric = cholesky(_shrunk_covariance(pilot.reshape(-1, flat.size)))
        last = jnp.asarray(solve_lower(metric, pilot[:, -1].T)).T
        return (last, mode.root @ metric), (u, statistics, root)

    u = jax.random.normal(start_key, (chains, flat.size), flat.dtype)
    runs = jnp.stack([pilot_key, final_key]), jnp.asarray(lengths)
    _, of_runs = jax.lax.scan(run, (u, mode.root), runs)
    (_, pilot, _), (u, statistics, root) = (
        jax.tree.map(lambda x, i=i: x[i], of_runs) for i in (0, 1)
    )
    # A draw is the last of `thinning` iterations, whose leapfrog steps and divergences are its own.
    kept = slice(third, lengths[1])
    steps = [pilot.num_steps[:, : lengths[0]], statistics.num_steps[:, :third]]
    of_draw = jax.tree.map(lambda x: x[:, kept].reshape(chains, draws, thinning), statistics)
    statistics = jax.tree.map(lambda x: x[..., -1], of_draw)._replace(
        diverging=of_draw.diverging.any(2),
        num_steps=of_draw.num_steps.sum(2),
        warmup_steps=jnp.concatenate(steps, axis=1),
    )
    u = u[:, kept][:, thinning - 1 :: thinning]

    def natural(u):
        free = unravel(mode.location + root @ u)
        return tied(model, grid, constrain_fn(hierarchical_model, args, {}, free))

    sites = jax.vmap(jax.vmap(natural))(u)
    models, means = draw_models(model, grid, sites, mean_key)
    return Draws(models, means, sites, statistics=statistics)
