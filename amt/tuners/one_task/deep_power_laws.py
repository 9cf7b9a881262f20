r"""Deep power laws (DPL): an ensemble of networks that map a configuration to a power law.

Each of five networks gives \(y(c, n) = \alpha_c - \beta_c\, n^{-\gamma_c}\) after n epochs, with
positive \(\beta\) and \(\gamma\), and is trained on the mean absolute error of all scores so far,
by a few more steps of Adam after each. Their mean and standard deviation at the last epoch give the
expected improvement over the best score so far; the configuration of the largest is trained for one
more epoch. The first one is random.

Source: Kadra, Janowski, Wistuba, Grabocka (2023), Scaling Laws for Hyperparameter Optimization,
sections 3 and 4; their networks are larger and trained for longer.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from amt.gp.observations import TargetPosterior
from amt.search.acquisition import log_expected_improvement
from amt.search.replay import Decision, Feedback
from amt.tuners.deep import Network
from amt.tuners.record import Problem, Pure, Record

MEMBERS, WIDTH, STEPS = 5, 32, 10
OPTIMIZER = optax.flatten(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.005)))


class State(eqx.Module):
    """The ensemble, stacked along a leading axis, and the scores so far.

    Attributes:
        config, epoch, score: of each score, in the order in which they came; `count` of them.
        start: configuration to begin with.
    """

    nets: Network
    optimizer: Any
    features: Float[Array, "config feature"]
    config: Int[Array, "obs"]
    epoch: Int[Array, "obs"]
    score: Float[Array, "obs"]
    count: Int[Array, ""]
    start: Int[Array, ""]


def power_laws(
    net: Network, features: Float[Array, "point feature"], epochs: Float[Array, "point"]
) -> Float[Array, "point"]:
    """Scores of configurations after epochs, in units in which they have a deviation of 1."""
    alpha, beta, gamma = net(features).T
    return alpha - jax.nn.softplus(beta) * epochs ** -jax.nn.softplus(gamma)


def init(key: PRNGKeyArray, problem: Problem) -> State:
    """Start with random networks and a random configuration."""
    of_nets, of_start = jax.random.split(key)
    features = problem.features
    sizes = features.shape[1], WIDTH, WIDTH, 3
    nets: Any = jax.vmap(lambda key: Network.init(sizes, key, features.dtype))(
        jax.random.split(of_nets, MEMBERS)
    )
    index, score = jnp.zeros(problem.budget, int), jnp.zeros(problem.budget, features.dtype)
    first = jax.random.randint(of_start, (), 0, len(features))
    optimizer = OPTIMIZER.init(nets)
    return State(nets, optimizer, features, index, index, score, jnp.zeros((), int), first)


def step(state: State, feedback: Feedback) -> tuple[State, Decision]:
    """Train the ensemble on all scores, and the configuration of the largest improvement."""
    place = jnp.where(feedback.observed, state.count, len(state.config))
    config = state.config.at[place].set(feedback.config, mode="drop")
    epoch = state.epoch.at[place].set(feedback.epoch, mode="drop")
    score = state.score.at[place].set(feedback.score, mode="drop")
    count = state.count + feedback.observed
    mask = jnp.arange(len(config)) < count
    level = jnp.sum(score) / jnp.maximum(count, 1)
    variance = jnp.sum(jnp.where(mask, jnp.square(score - level), 0)) / jnp.maximum(count, 1)
    scale = jnp.where(variance > 1e-12, jnp.sqrt(variance), 1)
    standard = (score - level) / scale

    def predict(nets: Network, config: Array, epochs: Array) -> Float[Array, "member point"]:
        return jax.vmap(lambda net: power_laws(net, state.features[config], epochs))(nets)

    def loss(nets: Network) -> Float[Array, ""]:
        errors = jnp.abs(predict(nets, config, epoch + 1.0) - standard)
        return jnp.sum(jnp.where(mask, errors, 0)) / jnp.maximum(count, 1)

    def improve(carry: Any, _: None) -> tuple[Any, None]:
        nets, optimizer = carry
        updates, optimizer = OPTIMIZER.update(jax.grad(loss)(nets), optimizer)
        return (optax.apply_updates(nets, updates), optimizer), None

    (nets, optimizer), _ = jax.lax.scan(improve, (state.nets, state.optimizer), length=STEPS)
    every = jnp.arange(len(state.features))
    num_epochs = feedback.remaining.shape[1]
    last = predict(nets, every, jnp.full(len(every), float(num_epochs)))[:, :, None]
    posterior = TargetPosterior(jnp.mean(last, 0), jnp.var(last, 0))
    best = jnp.max(jnp.where(mask, standard, -jnp.inf))
    can_start = feedback.remaining.any(1)
    value = log_expected_improvement(posterior, can_start[:, None], jnp.where(count > 0, best, 0))
    at_start = (count == 0) & can_start[state.start]
    chosen = jnp.where(at_start, state.start, jnp.argmax(value))
    best_observed = config[jnp.argmax(jnp.where(mask, score, -jnp.inf))]
    recommended = jnp.where(count > 0, best_observed, chosen)
    state = State(nets, optimizer, state.features, config, epoch, score, count, state.start)
    return state, Decision(chosen, recommended)


RECORD = Record(
    name="deep_power_laws",
    label="deep power laws",
    source="Kadra et al. (2023), Scaling Laws for Hyperparameter Optimization",
    make=lambda: Pure(init, step),
)
