"""The loop around a tuner, for those who have none of their own."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from ConfigSpace import ConfigurationSpace
from jaxtyping import PRNGKeyArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from amt.curves import LearningCurves
from amt.search.stopping import Utility
from amt.search.tuner import ExhaustedError, Trial, Tuner, UnderWayError

Train = Callable[[Trial], float]
"""Trains a trial's configuration from epoch `reached` up to `epoch`, and gives the metric there."""


class Result(NamedTuple):
    """The end of a search.

    Attributes:
        config: the hyperparameters of the recommended configuration.
        number: of that configuration, in `tuner.configs`.
        curve: its metric by epoch, as far as it was trained.
        expected: the best that its metric is expected to become.
        history: number, epoch, metric and hyperparameters of all that was told, in that order.
        tuner: to go on with, to predict and to plot.
    """

    config: dict[str, Any]
    number: int
    curve: dict[int, float]
    expected: float
    history: list[dict[str, Any]]
    tuner: Tuner


def minimize(
    train: Train,
    space: ConfigurationSpace | None,
    sources: LearningCurves,
    budget: int,
    *,
    key: PRNGKeyArray | int = 0,
    at_once: int = 1,
    utility: Utility | None = None,
    catch: tuple[type[Exception], ...] = (),
    state: str | PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> Result:
    """Tune a metric that is to be small, by training for `budget` epochs in all.

    ```python
    def train(trial):  # go on with the checkpoint of trial.number, if trial.reached > 0
        return validation_loss_after(trial.config, trial.epoch)

    best = amt.minimize(train, None, sources, budget=100, state="tuner.npz").config
    ```

    A configuration whose metric is not finite, or whose training raises one of `catch`, has failed:
    it is not trained again, and the model learns to leave its region. Any other exception ends the
    search. With `state`, the same call goes on from there, with what was under way first; epochs of
    earlier calls count. It ends early when nothing is left to train.

    Args:
        train: see `Train`; in threads, where several are trained at once.
        space: where to look; None for the sources' space.
        sources: past tasks, of the same metric.
        budget: epochs to train in all.
        key: everything random follows from it.
        at_once: how many configurations are trained side by side. Metrics are told in the order in
            which they were asked for, so that a search does not depend on which is faster.
        utility: of the metric and the epochs spent; the search ends where going on is expected to
            cost more than it brings (`Tuner.should_stop`). None to spend the budget.
        catch: exceptions that are failures of a configuration.
        state: file to go on from, if it is there, and to write.
        progress: whether to show a bar.
        options: of `Tuner`.

    Raises:
        ValueError: the metric of the sources is to be large (`maximize`), or a number is out of
            range; and as for `Tuner`.
        NothingToRecommendError: all that was trained failed.
    """
    return _tune(
        -1, train, space, sources, budget, key, at_once, utility, catch, state, progress, options
    )


def maximize(
    train: Train,
    space: ConfigurationSpace | None,
    sources: LearningCurves,
    budget: int,
    *,
    key: PRNGKeyArray | int = 0,
    at_once: int = 1,
    utility: Utility | None = None,
    catch: tuple[type[Exception], ...] = (),
    state: str | PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> Result:
    """Tune a metric that is to be large, as `minimize` does one that is to be small."""
    return _tune(
        1, train, space, sources, budget, key, at_once, utility, catch, state, progress, options
    )


def _tune(
    sign: int,
    train: Train,
    space: ConfigurationSpace | None,
    sources: LearningCurves,
    budget: int,
    key: PRNGKeyArray | int,
    at_once: int,
    utility: Utility | None,
    catch: tuple[type[Exception], ...],
    state: str | PathLike[str] | None,
    progress: bool,
    options: dict[str, Any],
) -> Result:
    if sign * sources.outcome.sign < 0:
        name, large = ("minimize", "large") if sign < 0 else ("maximize", "small")
        other = "maximize" if sign < 0 else "minimize"
        raise ValueError(f"{name}: the sources' metric is to be {large}; use {other}")
    for name, value in {"budget": budget, "at_once": at_once}.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be a whole number from 1, not {value!r}")
    tuner = Tuner(sources, key, space=space, state=state, **options)
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TextColumn("epochs"), TimeRemainingColumn(), TextColumn("{task.fields[best]}")),
    )
    with Progress(*columns, disable=not progress) as bar:
        task = bar.add_task("tuning", total=budget, completed=spent(tuner), best="")

        def report(trial: Trial, metric: float | None) -> None:
            del trial, metric
            metrics = [metric for *_, metric in tuner.told]
            best = f"best {sign * max(sign * m for m in metrics):.4g}" if metrics else ""
            bar.update(task, completed=min(spent(tuner), budget), best=best)

        run(tuner, train, budget, at_once=at_once, utility=utility, catch=catch, report=report)
    number = tuner.recommend()
    metrics = tuner.outcome.forward(tuner.predict([number]).mean)
    return Result(
        config=dict(tuner.configs[number]),
        number=number,
        curve={epoch: metric for other, epoch, metric in sorted(tuner.told) if other == number},
        expected=float(tuner.outcome.inverse(metrics.max())),
        history=[
            {"number": n, "epoch": epoch, "metric": metric, **tuner.configs[n]}
            for n, epoch, metric in tuner.told
        ],
        tuner=tuner,
    )


def run(
    tuner: Tuner,
    train: Train,
    budget: int,
    *,
    at_once: int = 1,
    utility: Utility | None = None,
    catch: tuple[type[Exception], ...] = (),
    report: Callable[[Trial, float | None], None] = lambda trial, metric: None,
) -> None:
    """Ask, train and tell until a tuner has spent a budget, or nothing is left that is worth it.

    Args:
        train, budget, at_once, utility, catch: as for `minimize`.
        report: is called with each trial, once told, and its metric, None if it failed.
    """
    with ThreadPoolExecutor(at_once) as pool:
        running: dict[int, Future[float]] = {}
        while True:
            pending = tuner.pending
            left = budget - spent(tuner)
            if left <= 0 and not running:
                return
            left -= sum(trial.epoch - trial.reached for trial in pending)
            if utility is not None and left > 0 and tuner.should_stop(utility, budget):
                left = 0
            while left > 0 and len(pending) < at_once:
                try:
                    trial = tuner.ask()
                except (ExhaustedError, UnderWayError):
                    break
                pending = (*pending, trial)
                left -= trial.epoch - trial.reached
            if not pending:
                return
            for trial in pending[:at_once]:
                if trial.number not in running:
                    running[trial.number] = pool.submit(train, trial)
            trial = pending[0]
            try:
                metric = float(running.pop(trial.number).result())
            except catch:
                metric = float("nan")
            if np.isfinite(metric):
                tuner.tell(trial.number, trial.epoch, metric)
            else:
                tuner.fail(trial.number)
            report(trial, metric if np.isfinite(metric) else None)


def spent(tuner: Tuner) -> int:
    """The epochs that were trained for what a tuner was told, failed trials included."""
    reached: dict[int, int] = {}
    for number, epoch, _ in tuner.told:
        reached[number] = max(reached.get(number, 0), epoch)
    for number in tuner.failed:
        # A trial that failed has no metric: it was to train up to the next epoch.
        later = tuner.epochs[tuner.epochs > reached.get(number, 0)]
        reached[number] = int(later[0]) if len(later) else int(tuner.epochs[-1])
    return sum(reached.values())
