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
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from amt.gp.task_regression.mixture import MixturePrior, MixtureState
from amt.gp.task_regression.target import TargetPrior
from amt.kernels import FreezeThaw
from amt.search.acquisition import log_expected_improvement
from amt.search.simulate import Decision, Feedback, Prediction
from amt.tuners.record import Problem, Pure, Record

LENGTHSCALES = (0.5, 1.0)
"""As multiples of the median distance of configurations."""

SIGNALS, NOISES = (0.05, 0.2), (0.01, 0.04)
"""Standard deviations of f and of the noise; those of o and d are 0.3 and twice that of f."""


class State(eqx.Module):
    """The mixture, the configurations observed, and one to start with."""

    mixture: MixtureState
    observed: Bool[Array, "config"]
    start: Array


def prior(problem: Problem) -> MixturePrior:
    """The grid of priors of the target, in which no score of a source is."""
    features, epochs = problem.features, problem.epochs / problem.epochs[-1]
    dtype, shape = features.dtype, (len(features), len(epochs))
    squared = jnp.sum(jnp.square(features[:, None] - features), 2)
    apart = jnp.sqrt(squared[np.triu_indices(len(features), 1)])
    decay = FreezeThaw(jnp.ones((), dtype), jnp.full((), 0.2, dtype))(epochs, epochs)
    components = []
    for lengthscale, signal, noise in product(LENGTHSCALES, SIGNALS, NOISES):
        r = jnp.sqrt(5 * squared) / (lengthscale * jnp.median(apart))
        components.append(
            TargetPrior(
                mean=jnp.full(shape, 0.5, dtype),
                weighted=jnp.full((1, *shape), 0.3, dtype),
                config=(1 + r + jnp.square(r) / 3) * jnp.exp(-r),
                fidelity=jnp.full((len(epochs),) * 2, signal**2, dtype),
                course=jnp.zeros((len(epochs),) * 2, dtype),
                own=(2 * signal) ** 2 * decay,
                noise=jnp.full(len(epochs), noise**2, dtype),
            )
        )
    stacked: Any = jax.tree.map(lambda *leaves: jnp.stack(leaves), *components)
    return MixturePrior(stacked, jnp.full(len(components), -np.log(len(components)), dtype))


def init(key: PRNGKeyArray, problem: Problem) -> State:
    """Start with a random configuration."""
    count = len(problem.features)
    mixture = MixtureState.init(prior(problem), problem.budget + 1)
    return State(mixture, jnp.zeros(count, bool), jax.random.randint(key, (), 0, count))


def step(state: State, feedback: Feedback) -> tuple[State, Decision]:
    """Condition on the latest score, and train what may still become the best."""
    arrays = feedback.config, feedback.epoch, feedback.score, feedback.observed
    mixture = state.mixture.update(*arrays)
    observed = state.observed.at[feedback.config].max(feedback.observed)
    posterior = mixture.posterior()
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
        Prediction(posterior, mixture.noise),
    )
    return State(mixture, observed, state.start), decision


RECORD = Record(
    name="freeze_thaw",
    label="freeze-thaw",
    source="Swersky, Snoek, Adams (2014), Freeze-Thaw Bayesian Optimization",
    make=lambda: Pure(init, step),
)
