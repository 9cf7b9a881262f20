"""Replays of tuners on recorded learning curves: pure ones under a scan, others in processes."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from amt.compilation import quick_vmap
from amt.memory import PeakMemory
from amt.search.replay import Trajectory, replay
from amt.tuners.record import Host, HostProblem, HostTuner


def replay_pure(
    keys: PRNGKeyArray,
    problem: Any,
    target: Float[Array, "config epoch"],
    *,
    init: Callable[..., Any],
    step: Callable[..., Any],
    budget: int,
) -> Trajectory:
    """Run a pure tuner on one target once for each of the keys, a leading axis of the result."""

    def from_key(key: PRNGKeyArray) -> Trajectory:
        return replay(init(key, problem), step, target, budget=budget)

    return quick_vmap(from_key)(keys)


def replay_host(
    tuner: HostTuner, target: Float[np.ndarray, "config epoch"], *, budget: int
) -> Trajectory:
    """Run a tuner on the host on a target whose learning curves are known.

    As `amt.search.replay.replay`: a missing score ends its configuration's curve, and `score` is
    NaN from the query on that finds nothing left to train.

    Raises:
        ValueError: the tuner asks for, or recommends, a configuration that it cannot.
    """
    remaining = np.cumprod(np.isfinite(target), axis=1).astype(bool)
    entries = []
    for _ in range(budget):
        config, epoch, score = 0, 0, np.nan
        if remaining.any():
            config = int(tuner.ask(remaining.copy()))
            if not 0 <= config < len(target) or not remaining[config].any():
                raise ValueError(f"asked for configuration {config}, which has no epoch left")
            epoch = int(np.argmax(remaining[config]))
            score = float(target[config, epoch])
            tuner.tell(config, epoch, score)
            remaining[config, epoch] = False
        recommended = int(tuner.recommend())
        if not 0 <= recommended < len(target):
            raise ValueError(f"recommends configuration {recommended}; there are {len(target)}")
        entries.append((config, epoch, score, recommended))
    kinds = int, int, target.dtype, int
    leaves: list[Any] = [
        np.array(leaf, kind) for leaf, kind in zip(zip(*entries, strict=True), kinds, strict=True)
    ]
    return Trajectory(*leaves)


class Replays(NamedTuple):
    """Runs of a tuner on the host.

    Attributes:
        trajectory: leading axes are the targets and the seeds.
        seconds: of all runs, in their processes.
        memory: most bytes that a run made its process grow by (`amt.memory.PeakMemory`).
    """

    trajectory: Trajectory
    seconds: float
    memory: float


def replay_all(
    executor: Executor | None,
    tuner: Host,
    seeds: Sequence[Sequence[int]],
    problems: Sequence[HostProblem],
    targets: Sequence[Float[np.ndarray, "config epoch"]],
) -> Replays:
    """Run a tuner on the host on several targets, once for each of a target's seeds.

    Args:
        executor: of the processes, to which the tuner is pickled; None for this process.

    Raises:
        RuntimeError: the tuner failed; the message says on which problem.
    """
    jobs = [
        (tuner, seed, problem, target)
        for of_target, problem, target in zip(seeds, problems, targets, strict=True)
        for seed in of_target
    ]
    run = map if executor is None else executor.map
    runs, seconds, memory = zip(*run(_replay, *zip(*jobs, strict=True)), strict=True)
    shape = len(problems), len(seeds[0]), -1
    leaves: list[Any] = [
        np.stack(leaf).reshape(shape) for leaf in zip(*(done[:4] for done in runs), strict=True)
    ]
    return Replays(Trajectory(*leaves), sum(seconds), float(np.max(memory)))


def _replay(
    tuner: Host, seed: int, problem: HostProblem, target: Float[np.ndarray, "config epoch"]
) -> Replays:
    start = perf_counter()
    try:
        with PeakMemory() as peak:
            done = replay_host(tuner.start(seed, problem), target, budget=problem.budget)
        return Replays(done, perf_counter() - start, peak.bytes)
    except Exception as error:
        raise RuntimeError(f"{problem.name}, seed {seed}: {error!r}") from error
