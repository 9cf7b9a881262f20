r"""Adaptive Bayesian linear regression (ABLR): linear in features that all tasks share.

Standardised final scores of task t are

\[ y_t \sim N(\Phi w_t, \beta_t^{-1} I), \qquad w_t \sim N(0, \alpha_t^{-1} I), \]

with \(\Phi\) the output of a network of two hidden layers, fitted with all \(\alpha_t\) and
\(\beta_t\) by maximum likelihood on the sources. The target has the geometric means of these, its
scores less their own mean in units of the sources' scale. The first configuration is random, and
each one after it that of the largest expected improvement.

Source: Perrone, Jenatton, Seeger, Archambeau (2018), Scalable Hyperparameter Transfer Learning,
sections 3 and 4.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray

from amt.tuners import full_training
from amt.tuners.deep import Network, train
from amt.tuners.past_tasks.pretrained import FinalScores, condition, improvement, prepare
from amt.tuners.record import Pure, Record

WIDTH, STEPS, LEARNING_RATE = 32, 200, 0.01


class SharedFeatures(eqx.Module):
    """The network, and logarithms of alpha and beta of each source."""

    net: Network
    log_alpha: Float[Array, "task"]
    log_beta: Float[Array, "task"]

    def features(self, configs: Float[Array, "config feature"]) -> Float[Array, "config width"]:
        """Phi."""
        return self.net(configs) / WIDTH**0.5

    def loss(
        self, configs: Float[Array, "config feature"], scores: Float[Array, "task config"]
    ) -> Float[Array, ""]:
        """Negative log likelihood of all sources: the mean over all entries, a constant left out.

        In the weights, of which there are fewer than scores.
        """
        features = self.features(configs)
        count, width = features.shape
        alpha, beta = jnp.exp(self.log_alpha), jnp.exp(self.log_beta)
        inner = features.T @ features
        precision = alpha[:, None, None] * jnp.eye(width) + beta[:, None, None] * inner
        root = jnp.linalg.cholesky(precision)
        target = (beta[:, None] * (scores @ features))[:, :, None]
        explained = jnp.square(solve_triangular(root, target, lower=True)).sum((1, 2))
        log_det = 2 * jnp.log(jnp.diagonal(root, axis1=1, axis2=2)).sum(1)
        log_det -= count * self.log_beta + width * self.log_alpha
        quadratic = beta * jnp.square(scores).sum(1) - explained
        return jnp.mean(quadratic + log_det) / (2 * count)


class Learned(eqx.Module):
    """The prior of the target's final scores, and what to start with.

    Attributes:
        start: values of each configuration before there is a score.
    """

    gram: Float[Array, "config config"]
    noise: Float[Array, ""]
    scale: Float[Array, ""]
    start: Float[Array, "config"]
    capacity: int = eqx.field(static=True)


def pretrain(key: PRNGKeyArray, sources: FinalScores, *, capacity: int) -> Learned:
    """Fit to the sources."""
    mean, scale = (of(sources.scores, 1, keepdims=True) for of in (jnp.mean, jnp.std))
    scores = (sources.scores - mean) / jnp.where(scale > 0, scale, 1)
    start, steps = jax.random.split(key)
    dtype, count = scores.dtype, len(scores)
    sizes = sources.features.shape[1], WIDTH, WIDTH
    net = Network.init(sizes, start, dtype, bounded=True)
    model = SharedFeatures(net, jnp.zeros(count, dtype), jnp.full(count, 2.0, dtype))

    def loss(model: SharedFeatures, key: PRNGKeyArray) -> Float[Array, ""]:
        del key
        return model.loss(sources.features, scores)

    model = train(model, loss, steps, steps=STEPS, learning_rate=LEARNING_RATE)
    features = model.features(sources.features)
    gram = features @ features.T * jnp.exp(-jnp.mean(model.log_alpha))
    noise = jnp.exp(-jnp.mean(model.log_beta))
    return Learned(gram, noise, sources.scale, jnp.zeros(len(gram), dtype), capacity)


def init(key: PRNGKeyArray, learned: Learned) -> full_training.State:
    """Start without scores, at random."""
    start = jax.random.uniform(key, learned.start.shape, learned.start.dtype)
    learned = eqx.tree_at(lambda of: of.start, learned, start)
    return full_training.start(learned, len(start), start.dtype)


def choose(learned: Learned, scores: Float[Array, "config"]) -> Float[Array, "config"]:
    """Expected improvement, once there is a score."""
    configs, mask, values = full_training.scored(scores, learned.capacity)
    values = (values - jnp.sum(values) / jnp.maximum(mask.sum(), 1)) / learned.scale
    zero = jnp.zeros_like(learned.start)
    mean, variance = condition(zero, learned.gram, learned.noise, configs, mask, values)
    return improvement(mean, variance, mask, values, learned.start)


def step(state, feedback):
    """Go on with the configuration in training, or the largest expected improvement."""
    return full_training.step(state, feedback, choose=choose)


PREPARE = partial(prepare, pretrain=pretrain)

RECORD = Record(
    name="ablr",
    label="ABLR",
    source="Perrone et al. (2018), Scalable Hyperparameter Transfer Learning",
    make=lambda: Pure(init, step, PREPARE),
)
