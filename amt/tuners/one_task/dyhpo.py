r"""DyHPO: a deep kernel over configurations, epochs and curves so far, one epoch at a time.

A score of configuration c after epoch e has the input \((x_c, e / E, \psi(y_{c, < e}))\), with
\(\psi\) the largest response of some filters of three epochs to the curve before e. A network maps
it to the input of a squared exponential kernel. After each score the network is trained for a few
more steps of Adam on the likelihood of all; the configuration of the largest expected improvement
at its next epoch is trained for it, over the best score of any configuration at that epoch, or
where there is none yet, the best of all. The first configuration is random.

Source: Wistuba, Kadra, Grabocka (2022), Supervising the Multi-Fidelity Race of Hyperparameter
Configurations, sections 4 and 5; their networks are larger and trained for longer.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from amt.gp.observations import TargetPosterior
from amt.search.acquisition import log_expected_improvement
from amt.search.replay import Decision, Feedback
from amt.tuners.deep import Network, negative_log_likelihood
from amt.tuners.record import Problem, Pure, Record

WIDTH, FILTERS, STEPS = 16, 4, 3
OPTIMIZER = optax.flatten(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01)))


class CurveKernel(eqx.Module):
    """The kernel between scores.

    Attributes:
        filters: of three epochs each, and a bias.
    """

    filters: Float[Array, "filter 4"]
    net: Network
    log_signal: Float[Array, ""]
    log_noise: Float[Array, ""]

    @classmethod
    def init(cls, num_features: int, key: PRNGKeyArray, dtype: Any) -> "CurveKernel":
        first, second = jax.random.split(key)
        return cls(
            jax.random.normal(first, (FILTERS, 4), dtype) / 2,
            Network.init((num_features + 1 + FILTERS, WIDTH, WIDTH), second, dtype),
            jnp.zeros((), dtype),
            jnp.asarray(-4.0, dtype),
        )

    def embed(
        self,
        features: Float[Array, "point feature"],
        share: Float[Array, "point"],
        before: Float[Array, "point epoch"],
    ) -> Float[Array, "point width"]:
        """The network's output; epochs of a curve that are not before are 0."""
        padded = jnp.pad(before, ((0, 0), (2, 0)))
        count = before.shape[1]
        windows = jnp.stack([padded[:, k : k + count] for k in range(3)], 2)
        responses = jnp.tanh(windows @ self.filters[:, :3].T + self.filters[:, 3])
        seen = jnp.where((before != 0)[..., None], responses, -1)
        return self.net(jnp.concatenate([features, share[:, None], jnp.max(seen, 1)], 1))

    def gram(self, first: Float[Array, "a width"], second: Float[Array, "b width"]) -> Array:
        squared = jnp.sum(jnp.square(first[:, None] - second), 2)
        return jnp.exp(self.log_signal - squared / 2)

    @property
    def noise(self) -> Float[Array, ""]:
        return jnp.exp(self.log_noise) + 1e-4


class State(eqx.Module):
    """The kernel in training, and the scores so far.

    Attributes:
        config, epoch: of each score, in the order in which they came; `count` of them.
        curves: scores; 0 where there is none.
        start: configuration to begin with.
    """

    kernel: CurveKernel
    optimizer: Any
    features: Float[Array, "config feature"]
    config: Int[Array, "obs"]
    epoch: Int[Array, "obs"]
    count: Int[Array, ""]
    curves: Float[Array, "config epoch"]
    seen: Bool[Array, "config epoch"]
    start: Int[Array, ""]


def start(kernel: CurveKernel, features: Array, num_epochs: int, budget: int, key: Array) -> State:
    """Start without scores."""
    index = jnp.zeros(budget, int)
    count = jnp.zeros((), int)
    curves = jnp.zeros((len(features), num_epochs), features.dtype)
    first = jax.random.randint(key, (), 0, len(features))
    parameters: Any = kernel
    state = OPTIMIZER.init(parameters)
    return State(kernel, state, features, index, index, count, curves, curves.astype(bool), first)


def init(key: PRNGKeyArray, problem: Problem) -> State:
    """Start with a random network and configuration."""
    of_net, of_start = jax.random.split(key)
    features = problem.features
    kernel = CurveKernel.init(features.shape[1], of_net, features.dtype)
    return start(kernel, features, len(problem.epochs), problem.budget, of_start)


def step(state: State, feedback: Feedback) -> tuple[State, Decision]:
    """Train the kernel on all scores, and the configuration of the largest improvement."""
    at, put = (feedback.config, feedback.epoch), feedback.observed
    place = jnp.where(put, state.count, len(state.config))
    config, epoch = (
        array.at[place].set(value, mode="drop")
        for array, value in zip((state.config, state.epoch), at, strict=True)
    )
    score = jnp.where(put, feedback.score, state.curves[at])
    curves, seen = state.curves.at[at].set(score), state.seen.at[at].max(put)
    count = state.count + put
    mask = jnp.arange(len(config)) < count
    epochs = jnp.arange(curves.shape[1])
    level = jnp.sum(curves) / jnp.maximum(count, 1)
    scale = jnp.sqrt(
        jnp.sum(jnp.where(seen, jnp.square(curves - level), 0)) / jnp.maximum(count, 1)
    )
    scale = jnp.where(scale > 1e-6, scale, 1)
    values = jnp.where(mask, (curves[config, epoch] - level) / scale, 0)

    def embed(kernel: CurveKernel, config: Array, epoch: Array) -> Array:
        before = jnp.where(epochs < epoch[:, None], curves[config], 0)
        return kernel.embed(state.features[config], (epoch + 1) / len(epochs), before)

    def covariance(kernel: CurveKernel) -> tuple[Array, Array]:
        embedded = embed(kernel, config, epoch)
        own = jnp.where(mask[:, None] & mask, kernel.gram(embedded, embedded), 0)
        return embedded, own + jnp.diag(jnp.where(mask, kernel.noise, 1))

    def loss(kernel: CurveKernel) -> Float[Array, ""]:
        return negative_log_likelihood(covariance(kernel)[1], values[None])

    def improve(carry: Any, _: None) -> tuple[Any, None]:
        kernel, optimizer = carry
        updates, optimizer = OPTIMIZER.update(jax.grad(loss)(kernel), optimizer)
        return (optax.apply_updates(kernel, updates), optimizer), None

    (kernel, optimizer), _ = jax.lax.scan(improve, (state.kernel, state.optimizer), length=STEPS)
    embedded, own = covariance(kernel)
    every, upcoming = jnp.arange(len(curves)), jnp.argmax(feedback.remaining, 1)
    ahead = embed(kernel, every, upcoming)
    cross = jnp.where(mask, kernel.gram(ahead, embedded), 0)
    root = jnp.linalg.cholesky(own)
    mean = cross @ cho_solve((root, True), values)
    explained = jnp.sum(jnp.square(solve_triangular(root, cross.T, lower=True)), 0)
    variance = jnp.maximum(jnp.exp(kernel.log_signal) - explained, 1e-12)
    standard = jnp.where(seen, (curves - level) / scale, -jnp.inf)
    at_epoch = jnp.max(standard, 0)[upcoming]
    best = jnp.where(jnp.isfinite(at_epoch), at_epoch, jnp.max(standard))
    best = jnp.where(count > 0, best, 0)
    value = jax.vmap(
        lambda m, v, b, r: log_expected_improvement(
            TargetPosterior(m[None, None], v[None, None]), r.any()[None, None], b
        )[0]
    )(mean, variance, best, feedback.remaining)
    at_start = (count == 0) & feedback.remaining[state.start].any()
    chosen = jnp.where(at_start, state.start, jnp.argmax(value))
    recommended = jnp.argmax(jnp.max(jnp.where(seen, curves, -jnp.inf), 1))
    recommended = jnp.where(count > 0, recommended, chosen)
    state = State(
        kernel, optimizer, state.features, config, epoch, count, curves, seen, state.start
    )
    return state, Decision(chosen, recommended)


RECORD = Record(
    name="dyhpo",
    label="DyHPO",
    source="Wistuba, Kadra, Grabocka (2022), Supervising the Multi-Fidelity Race",
    make=lambda: Pure(init, step),
)
