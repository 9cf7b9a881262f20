"""Trains the bundled database's networks: multilayer perceptrons, many side by side, in float32.

- Networks form a group when they share the batch size and are on the same side of a width of 16; a
  group's networks are padded to one width and to three hidden layers. Padding has weights of zero
  and gradients of zero, so it changes no result.
- Data sets are padded to one number of rows and to a few numbers of columns (`raw_data`), and the
  number of mini-batches is a run-time value, so that one compilation serves many tasks.
- Within a seed, the networks of a group see the same mini-batches and the same dropout noise.
  Initial weights are each network's own.

A network with non-finite outputs for a row predicts class 0, so that a run that diverged has the
share of class 0 as its accuracy from there on.
"""

import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from amt.databases.raw_data import CLASSES, ROWS, Task

EPOCHS = 50
DEPTH = 3
WIDTHS = (16, 64)
CHUNK = 256
ACTIVATIONS = ("relu", "tanh", "silu")

Config = Mapping[str, Any]


class Hyper(NamedTuple):
    """A configuration as numbers; with a leading axis, several.

    Attributes:
        learning_rate: that of each epoch, the schedule applied.
        beta: decay of the first moment (Adam) or of the velocity (SGD).
        index: position among all configurations.
    """

    learning_rate: Float[Array, "epoch"]
    weight_decay: Float[Array, ""]
    width: Int[Array, ""]
    depth: Int[Array, ""]
    dropout: Float[Array, ""]
    label_smoothing: Float[Array, ""]
    activation: Int[Array, ""]
    adam: Bool[Array, ""]
    beta: Float[Array, ""]
    beta2: Float[Array, ""]
    index: Int[Array, ""]


def make_hyper(config: Config, index: int) -> Hyper:
    """A configuration as numbers; `index` is its position among all."""
    adam = config["optimizer"] == "adam"
    return Hyper(
        learning_rate=jnp.asarray(config["learning_rate"] * schedule(config), jnp.float32),
        weight_decay=jnp.float32(config["weight_decay"]),
        width=jnp.int32(config["width"]),
        depth=jnp.int32(config["depth"]),
        dropout=jnp.float32(config["dropout"]),
        label_smoothing=jnp.float32(config["label_smoothing"]),
        activation=jnp.int32(ACTIVATIONS.index(config["activation"])),
        adam=jnp.bool_(adam),
        beta=jnp.float32(config["beta1" if adam else "momentum"]),
        beta2=jnp.float32(config["beta2"] if adam else 0),
        index=jnp.int32(index),
    )


def schedule(config: Config) -> Float[np.ndarray, "epoch"]:
    """The learning rate of each epoch, as a share of the first."""
    epoch = np.arange(EPOCHS)
    if config["schedule"] == "cosine":
        final = config["final_fraction"]
        return final + (1 - final) * (1 + np.cos(np.pi * epoch / EPOCHS)) / 2
    if config["schedule"] == "step":
        return config["gamma"] ** (epoch // config["step_size"])
    return np.ones(EPOCHS)


def padded_width(config: Config) -> int:
    """The number of units that a network's hidden layers are padded to."""
    return next(width for width in WIDTHS if width >= config["width"])


def groups(configs: Sequence[Config]) -> dict[tuple[int, int], list[int]]:
    """Positions of the configurations that are trained together, by (batch size, padded width)."""
    together: dict[tuple[int, int], list[int]] = {}
    for index, config in enumerate(configs):
        together.setdefault((config["batch_size"], padded_width(config)), []).append(index)
    return dict(sorted(together.items()))


def epoch_gflop(config: Config, task: Task) -> float:
    """GFLOP of one epoch of training: 6 for each weight and row, biases not counted.

    The forward pass takes 2 (multiply, add), the backward pass 4 (for weights and inputs).
    """
    width, hidden = config["width"], config["depth"] - 1
    weights = int(task.features) * width + hidden * width**2 + width * int(task.classes)
    return 6e-9 * weights * int(task.train)


class Weights(NamedTuple):
    """Weights and biases of a network, padded, or their gradients or moments."""

    inner: Float[Array, "feature unit"]
    hidden: Float[Array, "layer unit unit"]
    outer: Float[Array, "unit class"]
    bias: Float[Array, "layers unit"]
    outer_bias: Float[Array, "class"]


class State(NamedTuple):
    """A network in training: its weights, and the optimiser's moments of their gradients."""

    weights: Weights
    first: Weights
    second: Weights


def init(hyper: Hyper, task: Task, key: PRNGKeyArray, width: int) -> State:
    """He-normal weights, zero biases and moments; zero for whatever is padding."""
    keys = jax.random.split(jax.random.fold_in(key, hyper.index), 3)
    features = jnp.arange(task.x.shape[1]) < task.features
    units = jnp.arange(width) < hyper.width
    classes = jnp.arange(CLASSES) < task.classes

    def normal(key, shape, scale, rows, columns):
        drawn = jnp.sqrt(scale) * jax.random.normal(key, shape, jnp.float32)
        return jnp.where(rows[:, None] & columns, drawn, 0)

    weights = Weights(
        normal(keys[0], (len(features), width), 2 / task.features, features, units),
        normal(keys[1], (DEPTH - 1, width, width), 2 / hyper.width, units, units),
        normal(keys[2], (width, CLASSES), 1 / hyper.width, units, classes),
        jnp.zeros((DEPTH, width), jnp.float32),
        jnp.zeros(CLASSES, jnp.float32),
    )
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return State(weights, zeros, zeros)


def logits(
    weights: Weights,
    hyper: Hyper,
    x: Float[Array, "row feature"],
    noise: Float[Array, "layers row unit"] | None = None,
) -> Float[Array, "row class"]:
    """A network's outputs; under dropout if there is noise, uniform in [0, 1)."""

    def layer(h, matrix, number):
        a = h @ matrix + weights.bias[number]
        tanh = jnp.tanh(jnp.where(hyper.activation == 1, a, a / 2))
        a = jnp.where(
            hyper.activation == 0,
            jnp.maximum(a, 0),
            jnp.where(hyper.activation == 1, tanh, a * (1 + tanh) / 2),
        )
        if noise is not None:
            a = jnp.where(noise[number] >= hyper.dropout, a / (1 - hyper.dropout), 0)
        return a

    h = layer(x, weights.inner, 0)
    for number in range(1, DEPTH):
        h = jnp.where(number < hyper.depth, layer(h, weights.hidden[number - 1], number), h)
    return h @ weights.outer + weights.outer_bias


def loss(
    weights: Weights,
    hyper: Hyper,
    x: Float[Array, "row feature"],
    y: Int[Array, "row"],
    real: Bool[Array, "row"],
    classes: Int[Array, ""],
    noise: Float[Array, "layers row unit"],
) -> Float[Array, ""]:
    """Mean cross-entropy of the real rows with smoothed labels."""
    real_class = jnp.arange(CLASSES) < classes
    log_p = jax.nn.log_softmax(jnp.where(real_class, logits(weights, hyper, x, noise), -1e30))
    right = jnp.take_along_axis(log_p, y[:, None], axis=1)[:, 0]
    evenly = jnp.where(real_class, log_p, 0).sum(1) / classes
    smooth = (1 - hyper.label_smoothing) * right + hyper.label_smoothing * evenly
    return -jnp.where(real, smooth, 0).sum() / real.sum()


def update(
    state: State,
    hyper: Hyper,
    gradient: Weights,
    learning_rate: Float[Array, ""],
    step: Int[Array, ""],
) -> State:
    """One step of Adam, or of SGD with momentum, with decoupled weight decay."""
    fresh = jnp.where(hyper.adam, 1 - hyper.beta, 1)
    first_bias, second_bias = (1 - b ** (step + 1) for b in (hyper.beta, hyper.beta2))
    first = jax.tree.map(lambda m, g: hyper.beta * m + fresh * g, state.first, gradient)
    second = jax.tree.map(
        lambda v, g: hyper.beta2 * v + (1 - hyper.beta2) * g * g, state.second, gradient
    )

    def move(w, m, v):
        adam = m / first_bias / (jnp.sqrt(v / second_bias) + 1e-8)
        return w - learning_rate * (jnp.where(hyper.adam, adam, m) + hyper.weight_decay * w)

    return State(jax.tree.map(move, state.weights, first, second), first, second)


def correct(weights: Weights, hyper: Hyper, task: Task) -> Int[Array, "config split"]:
    """Correct predictions among the validation and among the test rows, for each network."""
    real_class = jnp.arange(CLASSES) < task.classes
    end = task.validation + task.test

    def chunk(number, counts):
        start = number * CHUNK
        x = jax.lax.dynamic_slice_in_dim(task.eval_x, start, CHUNK)
        y = jax.lax.dynamic_slice_in_dim(task.eval_y, start, CHUNK)
        out = jnp.where(real_class, jax.vmap(logits, (0, 0, None))(weights, hyper, x), -1e30)
        predicted = jnp.where(jnp.isfinite(out).all(-1), out.argmax(-1), 0)
        row = start + jnp.arange(CHUNK)
        split = jnp.stack([row < task.validation, (row >= task.validation) & (row < end)])
        return counts + ((predicted == y)[:, None] & split).sum(-1, dtype=jnp.int32)

    none = jnp.zeros((len(hyper.index), 2), jnp.int32)
    return jax.lax.fori_loop(0, -(-end // CHUNK), chunk, none)


def train_epoch(
    state: State,
    task: Task,
    hyper: Hyper,
    key: PRNGKeyArray,
    number: Int[Array, ""],
    *,
    batch: int,
    width: int,
) -> tuple[State, Int[Array, "network split"]]:
    """Trains networks for epoch `number` (from 0), and counts their correct predictions then."""
    key = jax.random.fold_in(key, number)
    shuffled = jax.random.uniform(key, (ROWS,), jnp.float32)
    order = jnp.argsort(jnp.where(jnp.arange(ROWS) < task.train, shuffled, 2))
    x, y = task.x[order], task.y[order]
    steps = -(-task.train // batch)

    def minibatch(step, state):
        start = step * batch
        shape = DEPTH, batch, width
        noise = jax.random.uniform(jax.random.fold_in(key, step), shape, jnp.float32)
        gradient = jax.vmap(jax.grad(loss), (0, 0, None, None, None, None, None))(
            state.weights,
            hyper,
            jax.lax.dynamic_slice_in_dim(x, start, batch),
            jax.lax.dynamic_slice_in_dim(y, start, batch),
            start + jnp.arange(batch) < task.train,
            task.classes,
            noise,
        )
        rates = hyper.learning_rate[:, number]
        return jax.vmap(update, (0, 0, 0, 0, None))(
            state, hyper, gradient, rates, number * steps + step
        )

    state = jax.lax.fori_loop(0, steps, minibatch, state)
    return state, correct(state.weights, hyper, task)


@partial(jax.jit, static_argnames=("batch", "width"))
def train(
    task: Task,
    hyper: Hyper,
    init_key: PRNGKeyArray,
    epoch_key: PRNGKeyArray,
    *,
    batch: int,
    width: int,
) -> Int[Array, "epoch config split"]:
    """Trains networks side by side; correct validation and test predictions after each epoch."""

    def epoch(state, number):
        return train_epoch(state, task, hyper, epoch_key, number, batch=batch, width=width)

    start = jax.vmap(init, (0, None, None, None))(hyper, task, init_key, width)
    return jax.lax.scan(epoch, start, jnp.arange(EPOCHS, dtype=jnp.int32))[1]


def training_keys(name: str, key: int, seed: int) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    """The keys of initial weights and of epochs of one seed on the data set `name`."""
    of_task = jax.random.fold_in(jax.random.key(key), zlib.crc32(name.encode()))
    init_key, epoch_key = jax.random.split(jax.random.fold_in(of_task, seed))
    return init_key, epoch_key


def train_group(
    name: str, task: Task, configs: Sequence[Config], group: tuple[int, int], key: int, seed: int
) -> Int[np.ndarray, "split config epoch"]:
    """Trains one group of configurations from one seed, and counts their correct predictions."""
    batch, width = group
    members = [make_hyper(configs[index], index) for index in groups(configs)[group]]
    with jax.enable_x64(False):
        counts = train(
            task,
            jax.tree.map(lambda *leaves: np.stack(leaves), *members),
            *training_keys(name, key, seed),
            batch=batch,
            width=width,
        )
        return np.asarray(counts).transpose(2, 1, 0)
