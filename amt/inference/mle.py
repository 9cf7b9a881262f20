"""Maximum marginal likelihood, and maximum a posteriori.

All restarts are optimised side by side in one compiled scan, and the best is kept.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from amt.compilation import quick_vmap
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP, select_solver
from amt.gp.posterior import AbstractSourcePosterior
from amt.gp.solvers import AbstractSolver, Dense
from amt.inference.priors import log_prior
from amt.parameters import unconstrain

Optimizer = Literal["adam", "lbfgs"]


class Fit(NamedTuple):
    """A fitted model and how the optimisation went.

    Attributes:
        model: the model of the best restart, at its best step.
        log_likelihood: log marginal likelihood at every step (of `fit_map`, with the log prior).
        gradient_norm: norm of the gradient per observation with respect to the unconstrained
            parameters, at every step.
        converged: whether the last tenth of the steps gained less than 1e-3 nats per
            observation, and the likelihood of the best model is as accurate as it is meant to be
            (`Solution.converged`).
        best: the restart that was kept.
        solver: how likelihoods were computed.
    """

    model: MultiTaskGP
    log_likelihood: Float[Array, "restart step"]
    gradient_norm: Float[Array, "restart step"]
    converged: Bool[Array, "restart"]
    best: Int[Array, ""]
    solver: AbstractSolver

    def diagnostics(self) -> dict[str, float]:
        """Whether the restart that was kept has `converged` (1, else 0); not for `jax.jit`."""
        return {"converged": float(self.converged[self.best])}

    def posterior(self, grid: CurveGrid, rank: int | None = None) -> AbstractSourcePosterior:
        """Condition on the source curves, for any target; `rank` as in `amt.gp.posterior`."""
        return self.model.source_posterior(grid, solver=self.solver, rank=rank)


def fit_mle(
    starts: MultiTaskGP,
    grid: CurveGrid,
    key: PRNGKeyArray | None = None,
    *,
    solver: AbstractSolver | None = None,
    optimizer: Optimizer = "adam",
    steps: int = 300,
    learning_rate: float = 0.05,
) -> Fit:
    """Maximise the log marginal likelihood of `grid` from each of the `starts`.

    Pure, for use under `jax.jit` and `jax.vmap`. A step to a non-finite likelihood never becomes
    the best one.

    Args:
        starts: models stacked along a leading axis, one entry a restart (`stack`).
        key: not used, as nothing is random; other ways of inference have one.
        solver: how to compute likelihoods; by default as `select_solver` says.
        optimizer: "adam", its learning rate warmed up over the first twentieth of the steps and
            then decayed to a hundredth along a cosine; or "lbfgs" with a zoom line search.
        learning_rate: Adam's largest.
    """
    solver = select_solver(starts, grid).solver if solver is None else solver
    log_likelihood = lambda model: model.log_likelihood(grid, solver).value  # noqa: E731
    options = {"optimizer": optimizer, "steps": steps, "learning_rate": learning_rate}
    return _fit(log_likelihood, starts, grid, solver, **options)


def fit_map(
    starts: MultiTaskGP,
    grid: CurveGrid,
    key: PRNGKeyArray | None = None,
    *,
    solver: AbstractSolver | None = None,
    optimizer: Optimizer = "adam",
    steps: int = 300,
    learning_rate: float = 0.05,
) -> Fit:
    """Maximise the sum of log marginal likelihood and log prior from each of the `starts`.

    The mode is that of the density of unconstrained values (`amt.inference.priors.log_prior`).
    Arguments are those of `fit_mle`.
    """
    solver = select_solver(starts, grid).solver if solver is None else solver

    def log_posterior(model: MultiTaskGP) -> Float[Array, ""]:
        return model.log_likelihood(grid, solver).value + log_prior(model)

    options = {"optimizer": optimizer, "steps": steps, "learning_rate": learning_rate}
    return _fit(log_posterior, starts, grid, solver, **options)


def fit_dense(
    starts: MultiTaskGP,
    grid: CurveGrid,
    key: PRNGKeyArray | None = None,
    *,
    optimizer: Optimizer = "adam",
    steps: int = 300,
    learning_rate: float = 0.05,
    largest: int = Dense().largest,
) -> Fit:
    """Maximise the log marginal likelihood by dense algebra, for small complete grids.

    Arguments are those of `fit_mle`, and `largest` of `amt.gp.solvers.dense.Dense`.

    Raises:
        ValueError: scores are missing, there is a nugget, or there are too many scores.
    """
    starts.require_product(grid, "dense inference")
    solver = Dense(largest)
    return fit_mle(
        starts, grid, solver=solver, optimizer=optimizer, steps=steps, learning_rate=learning_rate
    )


class Maximum(NamedTuple):
    """A maximum of a log density, and how the optimisation went; attributes as those of `Fit`."""

    model: Any
    log_density: Float[Array, "restart step"]
    gradient_norm: Float[Array, "restart step"]
    converged: Bool[Array, "restart"]
    best: Int[Array, ""]


def maximize(
    log_density: Callable[[Any], Float[Array, ""]],
    starts: Any,
    size: Float[Array, ""] | int,
    *,
    optimizer: Optimizer = "adam",
    steps: int = 300,
    learning_rate: float = 0.05,
) -> Maximum:
    """Maximise a log density of a model from each of the `starts`; arguments as of `fit_mle`.

    Args:
        size: the number of observations, which the density is divided by.
    """
    if optimizer not in ("adam", "lbfgs"):
        raise ValueError(f"the optimizer is adam or lbfgs, not {optimizer!r}")

    def from_start(start: Any):
        free, constrain = unconstrain(start)
        # As one vector: an update for each array of its own makes a large program.
        free, arrays = ravel_pytree(free)

        def loss(free: Float[Array, "parameter"]) -> Float[Array, ""]:
            return -log_density(constrain(arrays(free))) / size

        if optimizer == "adam":
            schedule = optax.warmup_cosine_decay_schedule(
                learning_rate / 10,
                learning_rate,
                min(max(steps // 20, 1), steps - 1),  # shorter than all
                steps,
                learning_rate / 100,
            )
            transformation = optax.with_extra_args_support(optax.adam(schedule))
            value_and_grad = lambda free, state: jax.value_and_grad(loss)(free)  # noqa: E731
        else:
            transformation = optax.lbfgs()
            from_state = optax.value_and_grad_from_state(loss)
            value_and_grad = lambda free, state: from_state(free, state=state)  # noqa: E731

        def step(carry: Any, _: None) -> Any:
            free, state, best_free, best_value = carry
            value, gradient = value_and_grad(free, state)
            updates, state = transformation.update(
                gradient, state, free, value=value, grad=gradient, value_fn=loss
            )
            improved = jnp.isfinite(value) & (value < best_value)
            best_free = jnp.where(improved, free, best_free)
            best_value = jnp.where(improved, value, best_value)
            free = optax.apply_updates(free, updates)
            return (free, state, best_free, best_value), (value, jnp.linalg.norm(gradient))

        infinity = jnp.asarray(jnp.inf, free.dtype)
        start_carry: Any = free, transformation.init(free), free, infinity
        carry, (values, norms) = jax.lax.scan(step, start_carry, length=steps)
        _, _, best_free, best_value = carry
        gain = values[max(steps - 1 - max(steps // 10, 1), 0)] - best_value
        converged = jnp.isfinite(gain) & (gain < 1e-3)
        return constrain(arrays(best_free)), best_value, -size * values, norms, converged

    models, values, densities, norms, converged = quick_vmap(from_start)(starts)
    best = jnp.argmin(jnp.where(jnp.isfinite(values), values, jnp.inf))
    model = jax.tree.map(lambda leaf: leaf[best], models)
    return Maximum(model, densities, norms, converged, best)


def _fit(
    log_density: Callable[[MultiTaskGP], Float[Array, ""]],
    starts: MultiTaskGP,
    grid: CurveGrid,
    solver: AbstractSolver,
    **options: Any,
) -> Fit:
    """Maximise a log density of a model whose likelihood `solver` computes."""
    found = maximize(log_density, starts, jnp.sum(jnp.isfinite(grid.scores)), **options)
    accurate = found.model.log_likelihood(grid, solver).converged
    converged = found.converged & (accurate | (jnp.arange(len(found.converged)) != found.best))
    return Fit(*found._replace(converged=converged), solver)
