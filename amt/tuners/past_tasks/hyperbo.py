r"""HyperBO: a Gaussian process that is pretrained on past tasks, its mean included.

\[ y_t \sim N\big(m(X),\; s^2 k(\phi(X), \phi(X)) + \sigma^2 I\big), \]

with \(\phi\) a network of one hidden layer, m linear in it and k Matern-5/2, is fitted to all
sources alike by maximum likelihood, and held fixed on the target: the next configuration is that of
the largest expected improvement, the first that of the largest mean.

Source: Wang, Dahl, Swersky, Lee, Nado, Gilmer, Snoek, Ghahramani (2024), Pre-trained Gaussian
Processes for Bayesian Optimization, sections 3 and 4 (as HyperBO in 2021).
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from amt.tuners import full_training
from amt.tuners.deep import Network, negative_log_likelihood, train
from amt.tuners.past_tasks.pretrained import FinalScores, condition, improvement, prepare
from amt.tuners.record import Pure, Record

WIDTH, STEPS, LEARNING_RATE = 16, 400, 0.03


class PretrainedGP(eqx.Module):
    """The prior of a task's final scores, in units of the sources' level and scale."""

    hidden: Network
    output: Network
    head: Network
    log_signal: Float[Array, ""]
    log_noise: Float[Array, ""]

    @classmethod
    def init(cls, num_features: int, key: PRNGKeyArray, dtype: Any) -> "PretrainedGP":
        first, second, third = jax.random.split(key, 3)
        return cls(
            Network.init((num_features, WIDTH), first, dtype, bounded=True),
            Network.init((WIDTH, WIDTH), second, dtype),
            Network.init((WIDTH, 1), third, dtype),
            jnp.zeros((), dtype),
            jnp.asarray(-3.0, dtype),
        )

    def __call__(self, features: Float[Array, "config feature"]) -> tuple[Array, Array, Array]:
        """Mean and covariance of the noise-free scores, and the variance of the noise."""
        hidden = self.hidden(features)
        embedded = self.output(hidden)
        squared = jnp.sum(jnp.square(embedded[:, None] - embedded), 2)
        r = jnp.sqrt(5 * jnp.where(squared > 0, squared, 1)) * (squared > 0)
        gram = jnp.exp(self.log_signal) * (1 + r + jnp.square(r) / 3) * jnp.exp(-r)
        noise = jnp.exp(self.log_noise) + 1e-5
        return self.head(hidden)[:, 0], gram, noise


class Learned(eqx.Module):
    """The prior of the target's final scores."""

    mean: Float[Array, "config"]
    gram: Float[Array, "config config"]
    noise: Float[Array, ""]
    level: Float[Array, ""]
    scale: Float[Array, ""]
    capacity: int = eqx.field(static=True)


def pretrain(key: PRNGKeyArray, sources: FinalScores, *, capacity: int) -> Learned:
    """Fit to the sources."""
    scores = (sources.scores - sources.level) / sources.scale
    start, steps = jax.random.split(key)
    model = PretrainedGP.init(sources.features.shape[1], start, scores.dtype)

    def loss(model: PretrainedGP, key: PRNGKeyArray) -> Float[Array, ""]:
        del key
        mean, gram, noise = model(sources.features)
        return negative_log_likelihood(gram + noise * jnp.eye(len(gram)), scores - mean)

    model = train(model, loss, steps, steps=STEPS, learning_rate=LEARNING_RATE)
    mean, gram, noise = model(sources.features)
    return Learned(mean, gram, noise, sources.level, sources.scale, capacity)


def init(key: PRNGKeyArray, learned: Learned) -> full_training.State:
    """Start without scores."""
    del key
    return full_training.start(learned, len(learned.mean), learned.mean.dtype)


def choose(learned: Learned, scores: Float[Array, "config"]) -> Float[Array, "config"]:
    """Expected improvement, before there is a score the mean."""
    configs, mask, values = full_training.scored(scores, learned.capacity)
    values = (values - learned.level) / learned.scale
    mean, variance = condition(learned.mean, learned.gram, learned.noise, configs, mask, values)
    return improvement(mean, variance, mask, values, learned.mean)


def step(state, feedback):
    """Go on with the configuration in training, or the largest expected improvement."""
    return full_training.step(state, feedback, choose=choose)


PREPARE = partial(prepare, pretrain=pretrain)

RECORD = Record(
    name="hyperbo",
    label="HyperBO",
    source="Wang et al. (2024), Pre-trained Gaussian Processes for Bayesian Optimization",
    make=lambda: Pure(init, step, PREPARE),
)
