"""Maximum marginal likelihood.

All restarts are optimised side by side in one compiled scan, and the best is kept.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.posterior import SourcePosterior
from amt.gp.solvers.observed_curves import IncompleteSourcePosterior
from amt.parameters import unconstrain

Optimizer = Literal["adam", "lbfgs"]


class Fit(NamedTuple):
    """A fitted model and how the optimisation went.

    Attributes:
        model: the model of the best restart, at its best step.
        log_likelihood: log marginal likelihood at every step.
        gradient_norm: norm of the gradient per observation with respect to the unconstrained
            parameters, at every step.
        converged: whether the last tenth of the steps gained less than 1e-3 nats per
            observation, and the likelihood of the best model is as accurate as it is meant to be
            (`MultiTaskGP.is_solved`).
        best: the restart that was kept.
    """

    model: MultiTaskGP
    log_likelihood: Float[Array, "restart step"]
    gradient_norm: Float[Array, "restart step"]
    converged: Bool[Array, "restart"]
    best: Int[Array, ""]

    def diagnostics(self) -> dict[str, float]:
        """Whether the restart that was kept has `converged` (1, else 0); not for `jax.jit`."""
        return {"converged": float(self.converged[self.best])}

    def posterior(
        self, grid: CurveGrid, rank: int | None = None
    ) -> SourcePosterior | IncompleteSourcePosterior:
        """What the sources say of any target; `rank` as in `amt.gp.posterior`."""
        return self.model.source_posterior(grid, rank=rank)


def fit_mle(
    starts: MultiTaskGP,
    grid: CurveGrid,
    key: PRNGKeyArray | None = None,
    *,
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
        optimizer: "adam", its learning rate warmed up over the first twentieth of the steps and
            then decayed to a hundredth along a cosine; or "lbfgs" with a zoom line search.
        learning_rate: Adam's largest.
    """
    log_likelihood = lambda model: model.log_likelihood(grid)[0]  # noqa: E731
    return maximize(starts, log_likelihood, grid, optimizer, steps, learning_rate)


def maximize(
    starts: MultiTaskGP,
    log_density: Callable[[MultiTaskGP], Float[Array, ""]],
    grid: CurveGrid,
    optimizer: Optimizer,
    steps: int,
    learning_rate: float,
) -> Fit:
    """As `fit_mle`, for any log density of a model."""
    if optimizer not in ("adam", "lbfgs"):
        raise ValueError(f"the optimizer is adam or lbfgs, not {optimizer!r}")
    size = jnp.sum(jnp.isfinite(grid.scores))

    def from_start(start: MultiTaskGP):
        free, constrain = unconstrain(start)

        def loss(free):
            return -log_density(constrain(free)) / size

        if optimizer == "adam":
            schedule = optax.warmup_cosine_decay_schedule(
                learning_rate / 10, learning_rate, max(steps // 20, 1), steps, learning_rate / 100
            )
            transformation = optax.adam(schedule)
            value_and_grad = jax.value_and_grad(loss)
        else:
            transformation = optax.lbfgs()
            from_state = optax.value_and_grad_from_state(loss)

        def step(carry, _):
            free, state, best_free, best_value = carry
            if optimizer == "adam":
                value, gradient = value_and_grad(free)
                updates, state_next = transformation.update(gradient, state)
            else:
                value, gradient = from_state(free, state=state)
                updates, state_next = transformation.update(
                    gradient, state, free, value=value, grad=gradient, value_fn=loss
                )
            improved = jnp.isfinite(value) & (value < best_value)
            best_free = jax.tree.map(lambda b, f: jnp.where(improved, f, b), best_free, free)
            best_value = jnp.where(improved, value, best_value)
            free = optax.apply_updates(free, updates)
            norm = optax.tree.norm(gradient)
            return (free, state_next, best_free, best_value), (value, norm)

        infinity = jnp.asarray(jnp.inf, grid.scores.dtype)
        start_carry = (free, transformation.init(free), free, infinity)
        (_, _, best_free, best_value), (values, norms) = jax.lax.scan(
            step, start_carry, length=steps
        )
        gain = values[max(steps - 1 - max(steps // 10, 1), 0)] - best_value
        converged = jnp.isfinite(gain) & (gain < 1e-3)
        return constrain(best_free), best_value, -values * size, norms, converged

    models, values, log_likelihood, gradient_norm, converged = jax.vmap(from_start)(starts)
    best = jnp.argmin(jnp.where(jnp.isfinite(values), values, jnp.inf))
    model = jax.tree.map(lambda leaf: leaf[best], models)
    converged &= model.is_solved(grid) | (jnp.arange(len(values)) != best)
    return Fit(model, log_likelihood, gradient_norm, converged, best)
