r"""Deep power laws (DPL): an ensemble of networks that map a configuration to a power law.

Each of five networks gives \(y(c, e) = \alpha_c - \beta_c\, (E e)^{-\gamma_c}\) with positive
\(\beta\) and \(\gamma\), e being the share of all E epochs, and is trained on the mean absolute
error of all scores so far, by a few more steps of Adam after each. Their mean and standard
deviation at the last epoch give the expected improvement over the best score so far; the
configuration of the largest is trained for one more epoch. The first one is random.

Source: Kadra, Janowski, Wistuba, Grabocka (2023), Scaling Laws for Hyperparameter Optimization,
sections 3 and 4; their networks are larger and trained for longer.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from amt.gp.observations import TargetPosterior
from amt.search.acquisition import log_expected_improvement
from amt.search.simulate import Decision, Feedback
from amt.tuners.deep import Network
from amt.tuners.record import Problem, Pure, Record

MEMBERS, WIDTH, STEPS = 5, 32, 10
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.005))


class State(eqx.Module):
    """The ensemble, stacked along a leading axis, and the scores so far.

    Attributes:
        curves: scores; 0 where there is none.
        start: configuration to begin with.
    """

    nets: Network
    optimizer: Any
    features: Float[Array, "config feature"]
    curves: Float[Array, "config epoch"]
    seen: Bool[Array, "config epoch"]
    start: Int[Array, ""]


def power_laws(net: Network, features: Array, num_epochs: int) -> Float[Array, "config epoch"]:
    """Curves of all configurations, in units in which scores have the standard deviation 1."""
    alpha, beta, gamma = net(features).T[:, :, None]
    epochs = jnp.arange(1, num_epochs + 1)
    return alpha - jax.nn.softplus(beta) * epochs ** -jax.nn.softplus(gamma)


def init(key: PRNGKeyArray, problem: Problem) -> State:
    """Start with random networks and a random configuration."""
    of_nets, of_start = jax.random.split(key)
    features = problem.features
    sizes = features.shape[1], WIDTH, WIDTH, 3
    nets = jax.vmap(lambda key: Network.init(sizes, key, features.dtype))(
        jax.random.split(of_nets, MEMBERS)
    )
    curves = jnp.zeros((len(features), len(problem.epochs)), features.dtype)
    first = jax.random.randint(of_start, (), 0, len(features))
    return State(nets, OPTIMIZER.init(nets), features, curves, curves.astype(bool), first)


def step(state: State, feedback: Feedback) -> tuple[State, Decision]:
    """Train the ensemble on all scores, and the configuration of the largest improvement."""
    at = feedback.config, feedback.epoch
    seen = state.seen.at[at].max(feedback.observed)
    score = jnp.where(feedback.observed, feedback.score, state.curves[at])
    curves = state.curves.at[at].set(score)
    count = jnp.maximum(seen.sum(), 1)
    level = jnp.sum(curves) / count
    scale = jnp.sqrt(jnp.sum(jnp.where(seen, jnp.square(curves - level), 0)) / count)
    scale = jnp.where(scale > 1e-6, scale, 1)
    standard = (curves - level) / scale

    def predict(nets: Network) -> Float[Array, "member config epoch"]:
        return jax.vmap(lambda net: power_laws(net, state.features, curves.shape[1]))(nets)

    def loss(nets: Network) -> Float[Array, ""]:
        errors = jnp.where(seen, jnp.abs(predict(nets) - standard), 0)
        return jnp.sum(errors) / count

    def improve(carry: Any, _: None) -> tuple[Any, None]:
        nets, optimizer = carry
        updates, optimizer = OPTIMIZER.update(jax.grad(loss)(nets), optimizer)
        return (optax.apply_updates(nets, updates), optimizer), None

    (nets, optimizer), _ = jax.lax.scan(improve, (state.nets, state.optimizer), length=STEPS)
    last = predict(nets)[:, :, -1:]
    posterior = TargetPosterior(jnp.mean(last, 0), jnp.var(last, 0))
    any_seen = seen.any()
    best = jnp.where(any_seen, jnp.max(jnp.where(seen, standard, -jnp.inf)), 0)
    can_start = feedback.remaining.any(1)
    value = log_expected_improvement(posterior, can_start[:, None], best)
    at_start = ~any_seen & can_start[state.start]
    chosen = jnp.where(at_start, state.start, jnp.argmax(value))
    recommended = jnp.argmax(jnp.max(jnp.where(seen, curves, -jnp.inf), 1))
    recommended = jnp.where(any_seen, recommended, chosen)
    state = State(nets, optimizer, state.features, curves, seen, state.start)
    return state, Decision(chosen, recommended)


RECORD = Record(
    name="deep_power_laws",
    label="deep power laws",
    source="Kadra et al. (2023), Scaling Laws for Hyperparameter Optimization",
    make=lambda: Pure(init, step),
)
