"""Tunes networks that are trained while it runs, and goes on after a kill at any moment.

```sh
python experiments/live.py                                     # 60 epochs on digits
python experiments/live.py --target breast_cancer --budget 200 --at-once 4
```

The target is a data set of the bundled database, the sources are other tasks of it. What trains a
network is what made the database (`amt.databases.networks`), one epoch at a time. Everything is
in one folder:

    tuner.npz           the tuner's state: `amt.Tuner`
    networks/12.npz     network 12 (weights, moments), and its counts after each epoch so far

Both are written atomically, a network before its score is told. Killed, by `kill -9` too, and
started again with the same arguments, it trains what was under way from the last epoch stored,
and ends as if nothing had happened, but for the time.

Several networks are trained at once (`--at-once`), in threads. The scores are told in the order
in which they were asked for, so that a run does not depend on which network is faster.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in at2.py

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

import amt
from amt.compilation import use_compilation_cache
from amt.databases import networks
from amt.databases.bundled import bundled
from amt.databases.raw_data import DATASETS, make_task
from amt.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("mnist", "penbased", "satimage", "segment")

start = jax.jit(jax.vmap(networks.init, (0, None, None, None)), static_argnums=3)
train_epoch = jax.jit(networks.train_epoch, static_argnames=("batch", "width"))


class Trainer:
    """Trains networks on a data set, each from where its file in `folder` has it."""

    def __init__(self, name: str, key: int, folder: Path):
        self._task = make_task(name, key)
        self._name, self._key, self._folder = name, key, folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, number: int, config: networks.Config, epoch: int) -> tuple[float, float]:
        """The accuracies on the validation and the test rows after `epoch` epochs."""
        path = self._folder / f"{number}.npz"
        width = networks.padded_width(config)
        with jax.enable_x64(False):
            init_key, epoch_key = networks.training_keys(self._name, self._key, seed=0)
            hyper = jax.tree.map(lambda leaf: leaf[None], networks.make_hyper(config, number))
            state = start(hyper, self._task, init_key, width)
            counts = np.zeros((0, 2), np.int64)
            if path.exists():
                with np.load(path, allow_pickle=False) as file:
                    counts = file["counts"]
                    leaves, structure = jax.tree.flatten(state)
                    stored = [file[f"state{index}"] for index in range(len(leaves))]
                state = jax.tree.unflatten(structure, stored)
            for index in range(len(counts), epoch):
                state, correct = train_epoch(
                    state,
                    self._task,
                    hyper,
                    epoch_key,
                    np.int32(index),
                    batch=config["batch_size"],
                    width=width,
                )
                counts = np.concatenate([counts, np.asarray(correct)])
                arrays = {f"state{i}": np.asarray(a) for i, a in enumerate(jax.tree.leaves(state))}
                arrays["counts"] = counts
                atomic_write(path, lambda file: np.savez(file, **arrays))  # noqa: B023 # pyright: ignore
        validation, test = counts[epoch - 1] / [self._task.validation, self._task.test]
        return float(validation), float(test)


def tune(
    tuner: amt.Tuner,
    train: Trainer,
    budget: int,
    at_once: int,
    console: Console,
    utility: amt.Utility,
) -> None:
    """Trains for `budget` epochs in all, earlier runs included, or until that does not pay."""
    done = len(tuner.told)
    with ThreadPoolExecutor(at_once) as pool:
        running: dict[int, Future] = {}
        if done > budget:
            console.print(f"{done} epochs were trained before, more than the budget of {budget}")
        while done < budget:
            if tuner.should_stop(utility, budget):
                console.print(f"stopped: more epochs are not worth their cost ({utility.weight:g})")
                break
            while len(tuner.pending) < min(at_once, budget - done):
                tuner.ask()
            for trial in tuner.pending:
                if trial.number not in running:
                    running[trial.number] = pool.submit(
                        train, trial.number, trial.config, trial.epoch
                    )
            trial = tuner.pending[0]
            score, _ = running.pop(trial.number).result()
            tuner.tell(trial.number, trial.epoch, score)
            done += 1
            console.print(
                f"{done:4}  network {trial.number:4}  epoch {trial.epoch:3}  accuracy {score:.3f}",
                highlight=False,
            )


def count(text: str) -> int:
    """A whole number from 1, of the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Tunes networks that are trained meanwhile.")
    parser.add_argument("--target", default="digits", choices=list(DATASETS))
    parser.add_argument("--sources", nargs="+", default=SOURCES, choices=list(DATASETS))
    parser.add_argument("--budget", type=count, default=60, help="epochs to train in all")
    parser.add_argument(
        "--weight",
        type=float,
        default=0.0,
        help="accuracy that the whole budget has to bring, to stop where it does not; 0: never",
    )
    parser.add_argument("--at-once", type=count, default=2, help="networks to train side by side")
    parser.add_argument("--kernel", default="matern", choices=list(amt.KERNELS["config"]))
    parser.add_argument("--steps", type=count, default=100, help="of the fit to the sources")
    parser.add_argument("--grid", action="store_true", help="keep to the sources' configurations")
    parser.add_argument("--key", type=int, default=0, help="everything random follows from it")
    parser.add_argument("--folder", type=Path, help="of the run; by default results/live/TARGET")
    chosen = parser.parse_args(arguments)
    if chosen.target in chosen.sources:
        parser.error(f"argument --target: {chosen.target} is among the --sources")
    folder = chosen.folder or ROOT / "results" / "live" / chosen.target
    jax.config.update("jax_enable_x64", True)
    console = Console()

    curves = bundled().repeat(0)
    sources, target = curves.split(list(chosen.sources), chosen.target)
    train = Trainer(chosen.target, chosen.key, folder / "networks")
    try:
        tuner = amt.Tuner(
            sources,
            jax.random.key(chosen.key),
            kernels={"config": chosen.kernel},
            steps=chosen.steps,
            continuous=not chosen.grid,
            state=folder / "tuner.npz",
        )
    except ValueError as error:
        sys.exit(f"live.py: {error}; give another --folder")
    tune(tuner, train, chosen.budget, chosen.at_once, console, amt.Utility(chosen.weight))

    best = tuner.recommend()
    last = int(curves.epochs[-1])
    reached = max((epoch for number, epoch, _ in tuner.told if number == best), default=0)
    if reached < last:
        console.print(
            f"beyond the budget, network {best} is trained from epoch {reached} to {last} for "
            "this report",
            highlight=False,
        )
    validation, test = train(best, tuner.configs[best], last)
    console.print(
        f"recommended: network {best}, after {last} epochs validation accuracy {validation:.3f}, "
        f"test {test:.3f}; of the database's 100, {(target.scores[0, :, -1] > validation).sum()} "
        f"have a better validation accuracy than that, the best {target.scores.max():.3f}",
        highlight=False,
    )
    console.print(tuner.configs[best])


if __name__ == "__main__":
    use_compilation_cache()
    main()
