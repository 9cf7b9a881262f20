"""Splits of a database into source tasks and a target task, and how they are put together.

A *cell* is one split and one seed. Cells of the same shape share *chunks* of a fixed size. Which
cells share a chunk follows from the list of cells alone, never from what has been computed before.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from amt.curves import LearningCurves
from amt.databases import paper_pairs
from amt.tuners.checks import check_choice, check_positive


class Split(NamedTuple):
    """Source tasks, a target task, and their number in the list of all splits.

    Attributes:
        repeat: training run of the database; -1 for the mean of all.
    """

    index: int
    sources: LearningCurves
    target: LearningCurves
    repeat: int = 0


class Cell(NamedTuple):
    """One split and one seed: the unit that results are averaged over."""

    split: Split
    seed: int

    @property
    def key(self) -> PRNGKeyArray:
        """Everything random in the cell comes from this key; the same for all repeats."""
        return jax.random.fold_in(jax.random.key(self.seed), self.split.index)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.split.sources.scores.shape


def make_splits(
    database: str,
    curves: LearningCurves,
    *,
    kind: str = "paper",
    pair: int | Sequence[int] | None = None,
    repeat: int | Sequence[int] | Literal["all"] | None = None,
    num_sources: int | None = None,
    draws: int = 1,
) -> list[Split]:
    """Splits of a database into source tasks and a target task.

    Args:
        database: name in `amt.databases.DATABASES`.
        curves: its learning curves.
        kind: "paper" (the published pairs) or "leave_one_out" (every task in turn is the target
            of all others).
        pair: only these, by their position (from 0); None for all.
        repeat: training runs of the database, all splits of one after those of another; None for
            their mean. Curves of a single run are its repeat 0.
        num_sources: number of source tasks of "leave_one_out", drawn at random, the same for all
            repeats; None for all others.
        draws: how often they are drawn; the pairs of one draw stand behind those of another.

    Raises:
        ValueError: no such kind, pair or repeat, or not so many sources.
    """
    check_choice("split", kind, ("paper", "leave_one_out"))
    recorded = 1 if curves.repeats is None else len(curves.repeats)
    if repeat is None:
        runs = {-1: curves}
    else:
        chosen = range(recorded) if repeat == "all" else np.atleast_1d(np.asarray(repeat)).tolist()
        for run in chosen:
            check_choice("repeat", run, range(recorded))
        runs = {run: curves if curves.repeats is None else curves.repeat(run) for run in chosen}
    if num_sources is None:
        check_choice("number of draws without num_sources", draws, (1,))
    else:
        check_choice("split with a number of sources", kind, ("leave_one_out",))
        check_choice("number of sources", num_sources, range(1, len(curves.tasks)))
        check_positive("draws", draws)
    splits = []
    for run, of_run in runs.items():
        if kind == "paper":
            pairs = paper_pairs(database)
        else:
            pairs = [
                (_sources(of_run, number, num_sources, draw), target)
                for draw in range(draws)
                for number, target in enumerate(of_run.tasks)
            ]
        wanted = range(len(pairs)) if pair is None else [pair] if isinstance(pair, int) else pair
        for index in wanted:
            if not 0 <= index < len(pairs):
                last = len(pairs) - 1
                raise ValueError(f"no pair {index}; {kind} of {database} has pairs 0 to {last}")
            splits.append(Split(index, *of_run.split(*pairs[index]), run))
    return splits


def _sources(curves: LearningCurves, target: int, count: int | None, draw: int) -> list[str]:
    """The other tasks, or some in their order, drawn from a seed of the draw and the target."""
    others = curves.others(curves.tasks[target])
    if count is None:
        return others
    chosen = np.random.default_rng([draw, target]).choice(len(others), count, replace=False)
    return [others[int(index)] for index in np.sort(chosen)]


def make_cells(splits: Sequence[Split], *, seeds: int = 1) -> list[Cell]:
    """Every split with seeds 0, 1, ..."""
    check_positive("seeds", seeds)
    return [Cell(split, seed) for split in splits for seed in range(seeds)]


def make_chunks(cells: Sequence[Cell], *, size: int) -> list[list[Cell]]:
    """Cells of the same shape, in their order, at most `size` together."""
    check_positive("chunk", size)
    by_shape: dict[tuple[int, ...], list[Cell]] = {}
    for cell in cells:
        by_shape.setdefault(cell.shape, []).append(cell)
    return [
        group[start : start + size]
        for group in by_shape.values()
        for start in range(0, len(group), size)
    ]
