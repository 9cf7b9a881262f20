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
from jaxtyping import Array, Float, PRNGKeyArray
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
    draws: int,
    *,
    thinning: int = 1,
    target_accept: float,
    max_tree_depth: int,
    mesh: Mesh | None,
) -> tuple[Float[Array, "chain draw free"], Statistics]:
    """NUTS with unit metric from each start; the step size is adapted for `warmup` iterations.

    A draw is the last of `thinning` iterations, whose leapfrog steps and divergences are its own.
    """

    def chain(start, key):
        kernel = NUTS(
            potential_fn=potential,
            adapt_mass_matrix=False,
            target_accept_prob=target_accept,
            max_tree_depth=max_tree_depth,
        )

        def step(state, _):
            state = kernel.sample(state, (), {})
            statistics = Statistics(
                diverging=state.diverging,
                num_steps=state.num_steps,
                accept_prob=state.accept_prob,
                energy=state.energy,
                step_size=state.adapt_state.step_size,
                warmup_steps=state.num_steps,
            )
            return state, (state.z, statistics)

        state = kernel.init(key, warmup, start, (), {})
        length = warmup + draws * thinning
        _, (u, statistics) = jax.lax.scan(step, state, length=length)
        of_draw = jax.tree.map(lambda x: x[warmup:].reshape(draws, thinning), statistics)
        last = jax.tree.map(lambda x: x[:, -1], of_draw)
        return u[warmup:][thinning - 1 :: thinning], last._replace(
            diverging=of_draw.diverging.any(1),
            num_steps=of_draw.num_steps.sum(1),
            warmup_steps=statistics.num_steps[:warmup],
        )

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
            run, for its draws, and to adapt the step size of the run. (Of less than 150 in a
            third, NumPyro leaves too few after its last restart of the adaptation.)
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
    sample = partial(_chains, target_accept=target_accept, max_tree_depth=max_tree_depth, mesh=mesh)
    start_key, pilot_key, final_key, mean_key = jax.random.split(key, 4)

    def along(root):
        return jax.jit(lambda u: potential(mode.location + root @ u))

    u = jax.random.normal(start_key, (chains, flat.size), flat.dtype)
    third = warmup // 3
    u, pilot = sample(along(mode.root), u, pilot_key, third, third)
    metric = cholesky(_shrunk_covariance(u.reshape(-1, flat.size)))
    u = jnp.asarray(solve_lower(metric, u[:, -1].T)).T
    root = mode.root @ metric
    u, statistics = sample(along(root), u, final_key, warmup - 2 * third, draws, thinning=thinning)
    warmup_steps = [pilot.warmup_steps, pilot.num_steps, statistics.warmup_steps]
    statistics = statistics._replace(warmup_steps=jnp.concatenate(warmup_steps, axis=1))

    def natural(u):
        free = unravel(mode.location + root @ u)
        return tied(model, grid, constrain_fn(hierarchical_model, args, {}, free))

    sites = jax.vmap(jax.vmap(natural))(u)
    models, means = draw_models(model, grid, sites, mean_key)
    return Draws(models, means, sites, statistics=statistics)
