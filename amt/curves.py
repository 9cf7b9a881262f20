"""Learning curves: scores of configurations on tasks, epoch by epoch."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from ConfigSpace import ConfigurationSpace
from jaxtyping import Bool, Float, Int

from amt.outcome import ArcsineOutcome, Outcome, RobustOutcome
from amt.space import Encoder, LegalConfigs, check_configs


@dataclass(frozen=True, eq=False, kw_only=True)
class LearningCurves:
    """Scores of every configuration on every task after every epoch, larger being better.

    Arrays are read-only, on the host; missing entries are NaN. Everything is validated on
    construction, and an error names the task, configuration and epoch at fault.

    Attributes:
        configs: a dict of the active hyperparameters for each configuration.
        space: the search space that the configurations are from.
        tasks: name of each task.
        scores: score of each task and configuration after each epoch. With `repeats`, leave it
            out: it is their mean, over those that are not missing.
        epochs: the epochs (or other units of fidelity) of the last axis; by default 1, 2, ...
        cost: cost of each epoch by itself, in any one unit (seconds, FLOPs), if known.
        repeats: scores of several training runs (seeds) of everything, if known.
        outcome: how the scores were made from the metric. `outcome.forward` makes the score to
            tell a tuner of a value of the metric, `outcome.inverse` goes back.

    Raises:
        ValueError: shapes do not agree, an entry is infinite, a cost is negative, names repeat,
            epochs do not increase, or a configuration is not legal.
    """

    configs: Sequence[Mapping[str, Any]]
    space: ConfigurationSpace
    tasks: Sequence[str]
    scores: Float[np.ndarray, "task config epoch"] = None  # pyright: ignore
    epochs: Int[np.ndarray, "epoch"] = None  # pyright: ignore
    cost: Float[np.ndarray, "task config epoch"] | None = None
    repeats: Float[np.ndarray, "repeat task config epoch"] | None = None
    outcome: Outcome = field(default_factory=RobustOutcome)

    def __post_init__(self):
        repeats, cost = _array(self.repeats), _array(self.cost)
        if (self.scores is None) == (repeats is None):
            raise ValueError("learning curves need either scores or repeats, whose mean they are")
        scores = _array(self.scores) if repeats is None else _mean(repeats)
        if scores.ndim != 3 or 0 in scores.shape[1:]:
            raise ValueError(f"scores have shape {scores.shape}, not (task, config, epoch)")
        tasks = tuple(self.tasks)
        if len(set(tasks)) < len(tasks):
            raise ValueError(f"task names repeat: {sorted(t for t in tasks if tasks.count(t) > 1)}")
        epochs = self.epochs
        epochs = np.arange(1, scores.shape[2] + 1) if epochs is None else np.array(epochs)
        if epochs.ndim != 1 or not (epochs.size and epochs[0] > 0 and (np.diff(epochs) > 0).all()):
            raise ValueError(f"epochs must be positive and increase, unlike {epochs}")
        shape = len(tasks), len(self.configs), len(epochs)
        if scores.shape != shape:
            raise ValueError(
                f"scores have shape {scores.shape}, but there are {shape[0]} tasks, {shape[1]} "
                f"configurations and {shape[2]} epochs"
            )
        if cost is not None and cost.shape != shape:
            raise ValueError(f"costs have shape {cost.shape}, scores {shape}")

        def refuse(what: str, values: np.ndarray, bad: Bool[np.ndarray, "..."]):
            if bad.any():
                *_, task, config, epoch = at = tuple(np.argwhere(bad)[0])
                raise ValueError(
                    f"the {what} of task {tasks[task]!r}, configuration {config}, epoch "
                    f"{epochs[epoch]} is {values[at]} ({bad.sum()} such in all); NaN stands for "
                    "what is missing"
                )

        measured = scores if repeats is None else repeats
        refuse("score", measured, np.isinf(measured))
        if cost is not None:
            refuse("cost", cost, np.isinf(cost) | (cost < 0))

        validated = {
            "configs": check_configs(self.space, self.configs),
            "tasks": tasks,
            "scores": scores,
            "epochs": epochs,
            "cost": cost,
            "repeats": repeats,
        }
        for name, value in validated.items():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
            object.__setattr__(self, name, value)

    @classmethod
    def without_tasks(
        cls,
        space: ConfigurationSpace,
        epochs: int | Sequence[int],
        *,
        outcome: Outcome | None = None,
        num_configs: int = 128,
        seed: int = 0,
    ) -> "LearningCurves":
        """Learning curves of no task yet: configurations of a search space, and epochs.

        A tuner of them learns from the target alone.

        Args:
            epochs: those after which there is a score; a number n for 1 to n.
            outcome: of the metric, such as `Outcome.fit([0.1, 1, 5], minimise=True)` of the losses
                that are expected; by default that of an accuracy in [0, 1].
            num_configs: configurations to start with, the default one of the space first, all
                others at random.

        Raises:
            ValueError: epochs or configurations that cannot be.
        """
        if num_configs < 1:
            raise ValueError(f"num_configs must be a whole number from 1, not {num_configs!r}")
        every = np.arange(1, epochs + 1) if isinstance(epochs, int) else np.array(epochs)
        space = deepcopy(space)
        space.seed(seed)
        drawn = space.sample_configuration(num_configs) if num_configs > 1 else []
        found = dict.fromkeys([space.get_default_configuration(), *drawn])
        configs = [dict(config) for config in found][:num_configs]
        return cls(
            configs=configs,
            space=space,
            tasks=(),
            scores=np.zeros((0, len(configs), len(every))),
            epochs=every,
            outcome=ArcsineOutcome() if outcome is None else outcome,
        )

    @property
    def num_tasks(self) -> int:
        return self.scores.shape[0]

    @property
    def num_configs(self) -> int:
        return self.scores.shape[1]

    @property
    def num_epochs(self) -> int:
        return self.scores.shape[2]

    @cached_property
    def features(self) -> Float[np.ndarray, "config feature"]:
        """The configurations as `amt.space.Encoder` encodes them."""
        return Encoder(self.space)(self.configs)

    @cached_property
    def within_unit(self) -> bool:
        """Whether the scores are the metric itself, all within [0, 1], as accuracies are."""
        known = self.scores[~np.isnan(self.scores)]
        inside = known.size > 0 and known.min() >= 0 and known.max() <= 1
        return bool(inside) and self.outcome == RobustOutcome()

    @cached_property
    def expected_range(self) -> tuple[float, float]:
        """The range that another score of the same metric is expected in; (-inf, inf) if none is.

        It is [0, 1] where the scores are a metric `within_unit`, and else reaches three times the
        range of the scores beyond it on both sides.
        """
        known = self.scores[~np.isnan(self.scores)]
        if not known.size:
            return -np.inf, np.inf
        if self.within_unit:
            return 0.0, 1.0
        lower, upper = float(known.min()), float(known.max())
        beyond = 3 * max(upper - lower, 1e-3 * max(abs(lower), abs(upper)))
        return lower - beyond, upper + beyond

    def unexpected(self, metric: float) -> str | None:
        """The reason why a value can hardly be of the same metric, if there is one."""
        if isinstance(self.outcome, ArcsineOutcome) and not 0 <= metric <= 1:
            return f"is {metric:.6g}, where an accuracy is from 0 to 1: is it in their unit?"
        lower, upper = self.expected_range
        if lower <= self.outcome.forward(metric) <= upper:
            return None
        ends = self.outcome.inverse(np.array([np.nanmin(self.scores), np.nanmax(self.scores)]))
        return (
            f"is {metric:.6g}, where those of the sources are from {ends.min():.6g} to "
            f"{ends.max():.6g}: is it in their unit?"
        )

    def select(
        self,
        *,
        tasks: Sequence[str] | None = None,
        configs: Sequence[int] | None = None,
        epochs: Sequence[int] | None = None,
    ) -> "LearningCurves":
        """The curves of some tasks by name, configurations by position and epochs by value.

        All come in the order in which they are named.

        Raises:
            KeyError: a task, configuration or epoch that is not there.
        """
        index = (
            _positions("task", self.tasks, tasks),
            _positions("configuration", range(self.num_configs), configs),
            _positions("epoch", self.epochs.tolist(), epochs),
        )
        grid = np.ix_(*index)
        return LearningCurves(
            configs=LegalConfigs.of(self.space, (self.configs[c] for c in index[1])),
            space=self.space,
            tasks=[self.tasks[t] for t in index[0]],
            scores=self.scores[grid] if self.repeats is None else None,  # pyright: ignore
            epochs=self.epochs[index[2]],
            cost=None if self.cost is None else self.cost[grid],
            repeats=None if self.repeats is None else self.repeats[(slice(None), *grid)],
            outcome=self.outcome,
        )

    def repeat(self, index: int) -> "LearningCurves":
        """The learning curves of one repeat, with its scores as `scores`.

        Raises:
            KeyError: there is no such repeat.
        """
        count = 0 if self.repeats is None else len(self.repeats)
        if self.repeats is None or not 0 <= index < count:
            raise KeyError(f"no repeat {index}; there are {count}")
        return LearningCurves(
            configs=self.configs,
            space=self.space,
            tasks=self.tasks,
            scores=self.repeats[index],
            epochs=self.epochs,
            cost=self.cost,
            outcome=self.outcome,
        )

    def with_outcome(self, outcome: Outcome) -> "LearningCurves":
        """The learning curves with scores that another transform makes of the same metric.

        The single runs of `repeats` are left out.
        """
        return replace(
            self,
            scores=outcome.forward(self.outcome.inverse(self.scores)),
            repeats=None,
            outcome=outcome,
        )

    def split(
        self, sources: Sequence[str], target: str
    ) -> tuple["LearningCurves", "LearningCurves"]:
        """Learning curves of the sources, which are tasks or one of them, and of the target.

        Raises:
            ValueError: the target is one of the sources, or there are no sources.
            KeyError: a task that is not there.
        """
        if isinstance(sources, str):
            if sources not in self.tasks:
                there = ", ".join(map(str, self.tasks))
                raise ValueError(
                    f"sources must be a list of tasks, not {sources!r}; there are {there}"
                )
            sources = [sources]
        if str(target) in map(str, sources) or not len(sources):
            raise ValueError(f"target {target!r} must not be among the sources {list(sources)}")
        return self.select(tasks=sources), self.select(tasks=[target])

    def leave_one_out(self) -> Iterator[tuple["LearningCurves", "LearningCurves"]]:
        """Splits with each task in turn as the target and all others as its sources."""
        for target in self.tasks:
            yield self.split(self.others(target), target)

    def others(self, target: str) -> list[str]:
        """All tasks but one, in their order."""
        return [task for task in self.tasks if task != target]


def _array(values: Any) -> Any:
    """A copy of some values as an array of floats; None if there are none."""
    return None if values is None else np.array(values, np.float64)


def _mean(repeats: Float[np.ndarray, "repeat task config epoch"]) -> Float[np.ndarray, "..."]:
    """The mean over repeats of what is not missing; NaN where all are."""
    if repeats.ndim != 4 or not len(repeats):
        raise ValueError(f"repeats have shape {repeats.shape}, not (repeat, task, config, epoch)")
    count = (~np.isnan(repeats)).sum(0)
    total = np.where(count, np.nansum(repeats, 0), np.nan)
    return total / np.maximum(count, 1)


def _positions(what: str, known: Sequence[Any], chosen: Sequence[Any] | None) -> list[int]:
    """Positions of the chosen names among those known; of all of them if None is chosen.

    A name is one with the same text too, as 3 is of "3" in a file, unless that is ambiguous.
    """
    position = {name: index for index, name in enumerate(known)}
    texts: dict[str, list[int]] = {}
    for index, name in enumerate(known):
        texts.setdefault(str(name), []).append(index)
    found = []
    for name in known if chosen is None else chosen:
        at = [position[name]] if name in position else texts.get(str(name), [])
        if len(at) != 1:
            raise KeyError(f"no {what} {name!r}; there are {', '.join(map(str, known))}")
        found += at
    return found
