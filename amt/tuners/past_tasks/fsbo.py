"""Few-shot Bayesian optimization (FSBO): a deep kernel that is learned on past tasks, and tuned.

A Gaussian process whose kernel is squared exponential on the output of a network is trained by
gradient steps on batches of the sources, each scaled to [0, 1] and then by a random range, so that
it learns nothing about the scale of a task. On the target the parameters are fine-tuned from there
on its scores, before each choice of the largest expected improvement. The first configuration is
the head of the portfolio (`amt.tuners.past_tasks.portfolio`), in place of an evolutionary search
for the start that is best on the sources.

Source: Wistuba, Grabocka (2021), Few-Shot Bayesian Optimization with Deep Kernel Surrogates,
algorithms 1 and 2.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from amt.tuners import full_training
from amt.tuners.deep import Network, negative_log_likelihood, train
from amt.tuners.past_tasks.pretrained import FinalScores, condition, improvement, prepare
from amt.tuners.record import Pure, Record

WIDTH, STEPS, LEARNING_RATE = 32, 500, 0.005
TASKS, POINTS = 4, 50
TUNING_STEPS, TUNING_RATE = 10, 0.01


class DeepKernel(eqx.Module):
    """Squared exponential on the output of a network."""

    net: Network
    log_signal: Float[Array, ""]
    log_noise: Float[Array, ""]

    def gram(self, features: Float[Array, "config feature"]) -> Float[Array, "config config"]:
        """Covariance of noise-free scores."""
        embedded = self.net(features)
        squared = jnp.sum(jnp.square(embedded[:, None] - embedded), 2)
        return jnp.exp(self.log_signal - squared / 2)

    @property
    def noise(self) -> Float[Array, ""]:
        return jnp.exp(self.log_noise) + 1e-4


class Learned(eqx.Module):
    """The kernel, and where to start from."""

    kernel: DeepKernel
    features: Float[Array, "config feature"]
    scale: Float[Array, ""]
    place: Float[Array, "config"]
    capacity: int = eqx.field(static=True)


def pretrain(key: PRNGKeyArray, sources: FinalScores, *, capacity: int) -> Learned:
    """Train on the sources."""
    lowest = jnp.min(sources.scores, 1, keepdims=True)
    spread = jnp.max(sources.scores, 1, keepdims=True) - lowest
    scores = (sources.scores - lowest) / jnp.where(spread > 0, spread, 1)
    start, steps = jax.random.split(key)
    dtype = scores.dtype
    net = Network.init((sources.features.shape[1], WIDTH, WIDTH), start, dtype)
    kernel = DeepKernel(net, jnp.zeros((), dtype), jnp.asarray(-3.0, dtype))
    count, tasks = min(POINTS, scores.shape[1]), min(TASKS, len(scores))

    def loss(kernel: DeepKernel, key: PRNGKeyArray) -> Float[Array, ""]:
        of_tasks, of_configs, of_scale = jax.random.split(key, 3)
        task = jax.random.choice(of_tasks, len(scores), (tasks,), replace=False)
        config = jax.random.choice(of_configs, scores.shape[1], (count,), replace=False)
        lower, upper = jnp.sort(jax.random.uniform(of_scale, (2, tasks, 1), dtype), axis=0)
        batch = (scores[task][:, config] - lower) / (upper - lower + 0.1)
        batch -= jnp.mean(batch, 1, keepdims=True)
        gram = kernel.gram(sources.features[config]) + kernel.noise * jnp.eye(count)
        return negative_log_likelihood(gram, batch)

    kernel = train(kernel, loss, steps, steps=STEPS, learning_rate=LEARNING_RATE)
    return Learned(kernel, sources.features, sources.scale, sources.place, capacity)


def init(key: PRNGKeyArray, learned: Learned) -> full_training.State:
    """Start without scores."""
    del key
    return full_training.start(learned, len(learned.place), learned.place.dtype)


def choose(learned: Learned, scores: Float[Array, "config"]) -> Float[Array, "config"]:
    """Expected improvement by the fine-tuned kernel; before there is a score the portfolio."""
    configs, mask, values = full_training.scored(scores, learned.capacity)
    values = (values - jnp.sum(values) / jnp.maximum(mask.sum(), 1)) / learned.scale
    values = jnp.where(mask, values, 0)

    def loss(kernel: DeepKernel, key: PRNGKeyArray) -> Float[Array, ""]:
        del key
        gram = jnp.where(mask[:, None] & mask, kernel.gram(learned.features[configs]), 0)
        noise = jnp.diag(jnp.where(mask, kernel.noise, 1))
        return negative_log_likelihood(gram + noise, values[None])

    key = jax.random.key(0)  # nothing is drawn
    how = {"steps": TUNING_STEPS, "learning_rate": TUNING_RATE}
    kernel = train(learned.kernel, loss, key, **how)
    gram, zero = kernel.gram(learned.features), jnp.zeros_like(learned.place)
    mean, variance = condition(zero, gram, kernel.noise, configs, mask, values)
    return improvement(mean, variance, mask, values, -learned.place)


def step(state, feedback):
    """Go on with the configuration in training, or the largest expected improvement."""
    return full_training.step(state, feedback, choose=choose)


PREPARE = partial(prepare, pretrain=pretrain)

RECORD = Record(
    name="fsbo",
    label="FSBO",
    source="Wistuba, Grabocka (2021), Few-Shot Bayesian Optimization with Deep Kernel Surrogates",
    make=lambda: Pure(init, step, PREPARE),
)
