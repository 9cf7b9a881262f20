r"""Freeze-thaw Bayesian optimization of the target alone.

Curves of the target are

\[ y(c, e) = o + f(c) + d_c(e) + \varepsilon, \qquad f \sim GP(0, s^2 k), \qquad
   d_c \sim GP\Big(0, s_d^2 \Big(\frac{b}{e + e' + b}\Big)^a\Big), \]

with an asymptote f that configurations share by a Matern-5/2 kernel, and a decay of each by itself.
Where the original draws hyperparameters by slice sampling, a grid of them is averaged by the
predictive density of the scores so far (`amt.gp.task_regression.mixture`). The configuration whose
last epoch has the largest expected improvement over the best that is expected of those observed is
trained for one more epoch, in place of the original's entropy search among such candidates. Of
those observed, the one whose expected scores are largest is recommended.

Source: Swersky, Snoek, Adams (2014), Freeze-Thaw Bayesian Optimization, sections 3 and 4.
"""

from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from amt.gp.observations import TargetPosterior
from amt.gp.task_regression.mixture import Components
from amt.gp.task_regression.target import Product, TargetPrior, TargetState
from amt.gp.task_regression.widening import no_widening
from amt.kernels import FreezeThaw
from amt.search.acquisition import log_expected_improvement
from amt.search.replay import Decision, Feedback, Prediction
from amt.tuners.record import Problem, Pure, Record

LENGTHSCALES = (0.5, 1.0)
"""As multiples of the median distance of configurations."""

SIGNALS, NOISES = (0.05, 0.2), (0.01, 0.04)
"""Standard deviations of f and of the noise; those of o and d are 0.3 and twice that of f."""


class State(eqx.Module):
    """Priors and posteriors, one for each lengthscale, and a configuration to start with."""

    prior: TargetPrior
    target: TargetState
    observed: Bool[Array, "config"]
    start: Array


def priors(problem: Problem) -> TargetPrior:
    """The prior of the target for each lengthscale, in which no score of a source is."""
    features, epochs = problem.features, problem.epochs / problem.epochs[-1]
    dtype, count = features.dtype, len(features)
    squared = jnp.sum(jnp.square(features[:, None] - features), 2)
    apart = jnp.median(jnp.sqrt(squared[np.triu_indices(count, 1)]))
    decay = FreezeThaw(jnp.ones((), dtype), jnp.full((), 0.2, dtype))(epochs, epochs)
    everywhere = jnp.ones_like(decay)
    ones, zeros = jnp.ones(count, dtype), jnp.zeros((count, count), dtype)
    nothing = Product(zeros, zeros[0], 0 * decay)
    scales = jnp.asarray(list(product(SIGNALS, NOISES)), dtype) ** 2
    each = jnp.ones(len(scales), dtype)
    components = Components(
        log_weight=-jnp.log(len(scales) * each),
        noise=scales[:, 1],
        shared=0 * each,
        transfer=0 * each,
        strength=0 * each,
        residual=scales[:, 0],
        surface=0 * each,
        steady=0 * each,
        growing=0 * each,
    )

    def of_lengthscale(lengthscale: Array) -> TargetPrior:
        r = jnp.sqrt(5 * squared) / (lengthscale * apart)
        return TargetPrior(
            mean=jnp.full((count, len(epochs)), 0.5, dtype),
            typical=jnp.full(len(epochs), 0.5, dtype),
            weighted=jnp.zeros((1, count, len(epochs)), dtype),
            course=0.3**2 * everywhere,
            error=nothing,
            residual=Product((1 + r + jnp.square(r) / 3) * jnp.exp(-r), ones, everywhere),
            own=2**2 * decay,
            surface=nothing,
            steady=nothing,
            growing=nothing,
            noise=jnp.ones(len(epochs), dtype),
            components=components,
            widening=no_widening(dtype),
        )

    return jax.vmap(of_lengthscale)(jnp.asarray(LENGTHSCALES, dtype))


def init(key: PRNGKeyArray, problem: Problem) -> State:
    """Start with a random configuration."""
    count, prior = len(problem.features), priors(problem)
    target = jax.vmap(lambda one: TargetState.init(one, problem.budget + 1))(prior)
    start = jax.random.randint(key, (), 0, count)
    return State(prior, target, jnp.zeros(count, bool), start)


def step(state: State, feedback: Feedback) -> tuple[State, Decision]:
    """Condition on the latest score, and train what may still become the best."""
    arrays = feedback.config, feedback.epoch, feedback.score, feedback.observed
    target = jax.vmap(lambda one, prior: one.update(prior, *arrays))(state.target, state.prior)
    observed = state.observed.at[feedback.config].max(feedback.observed)
    log_weights = state.prior.components.log_weight + target.log_density
    shape = -1, *target.mean.shape[2:]
    posterior = TargetPosterior(
        target.mean.reshape(shape),
        target.variance.reshape(shape),
        jax.nn.log_softmax(log_weights.ravel()),
    )
    noise = jax.vmap(TargetPrior.noises)(state.prior).reshape(-1, shape[-1])
    matched = posterior.matched()
    last, value = matched.mean[:, -1], jnp.max(matched.mean, axis=1)
    best = jnp.max(jnp.where(observed, last, -jnp.inf))
    any_observed = observed.any()
    values = log_expected_improvement(
        matched, feedback.remaining, jnp.where(any_observed, best, 0.0)
    )
    started = jnp.where(feedback.remaining[state.start].any(), state.start, jnp.argmax(values))
    decision = Decision(
        jnp.where(any_observed, jnp.argmax(values), started),
        jnp.where(any_observed, jnp.argmax(jnp.where(observed, value, -jnp.inf)), started),
        jnp.isfinite(matched.variance).all(),
        Prediction(posterior, noise),
    )
    return State(state.prior, target, observed, state.start), decision


RECORD = Record(
    name="freeze_thaw",
    label="freeze-thaw",
    source="Swersky, Snoek, Adams (2014), Freeze-Thaw Bayesian Optimization",
    make=lambda: Pure(init, step),
)
