"""Past studies as source tasks."""

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from jaxtyping import Int
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from amt.curves import LearningCurves
from amt.databases.long_form.fidelities import FIDELITIES, fidelities_of
from amt.integrations.optuna.spaces import space_of_distributions
from amt.outcome import Outcome
from amt.space import comparable, own_value


def sources_from_studies(
    storage: str | BaseStorage,
    names: Iterable[str] | None = None,
    *,
    first_step: int = 0,
    fidelities: int = FIDELITIES,
) -> LearningCurves:
    """Past studies of an Optuna storage as source tasks.

    A study is a task. Of its finished trials (complete, pruned or failed) all that reported
    intermediate values count, each as the configuration of those parameters that every such trial
    of every study has; parameters that only some have (conditional ones) are left out. Ranges and
    choices are the union over the studies. Trials of equal parameters are averaged. Values that
    are not finite count as missing, and so do steps that only other trials have and configurations
    that only other studies have. `outcome` of the result says how scores were made of values
    (`amt.outcome`).

    Args:
        names: of the studies; by default all that have one objective and intermediate values. Leave
            out the study to be tuned.
        first_step: the step that trials report for their first epoch.
        fidelities: the largest number of epochs. Where trials report more, as at steps of their
            own, the last value of a trial up to one of so many log-spaced ones stands for it.

    Raises:
        ValueError: no study has intermediate values, or a named one has none or several
            objectives; studies differ in direction or in a parameter's kind; or a step is before
            the first. The message names study, trial and step.
        KeyError: there is no such study.

    Warns:
        UserWarning: a study shares no step with another, or steps are put together as fidelities.
    """
    known = optuna.get_all_study_names(storage)
    chosen = list(known if names is None else names)
    if unknown := [name for name in chosen if name not in known]:
        raise KeyError(f"no study {unknown[0]!r}; there are {', '.join(known)}")
    trials: dict[str, list[FrozenTrial]] = {}
    directions: dict[str, StudyDirection] = {}
    for name in chosen:
        study = optuna.load_study(study_name=name, storage=storage)
        single = len(study.directions) == 1
        curves = [t for t in study.trials if t.state.is_finished() and t.intermediate_values]
        if single and curves:
            trials[name], directions[name] = curves, study.direction
        elif names is not None:
            lack = "no finished trial with intermediate values" if single else "several objectives"
            raise ValueError(f"study {name!r} has {lack}")
    if not trials:
        raise ValueError("no study has one objective and finished trials with intermediate values")
    chosen = list(trials)
    for name in chosen[1:]:
        if directions[name] != directions[chosen[0]]:
            raise ValueError(
                f"study {name!r} is to {directions[name].name.lower()}, study {chosen[0]!r} to "
                f"{directions[chosen[0]].name.lower()}: they cannot be sources together"
            )

    space = space_of_distributions(_merge(trials))
    if not len(space):
        raise ValueError("no parameter is in all trials of all studies with more than one value")
    configs: dict[Hashable, tuple[int, dict[str, Any]]] = {}
    reported: list[tuple[int, int, dict[int, float]]] = []
    for task, name in enumerate(chosen):
        for trial in trials[name]:
            config = {p: own_value(space[p], trial.params[p]) for p in space}
            row, _ = configs.setdefault(comparable(config), (len(configs), config))
            curve: dict[int, float] = {}
            for step, value in trial.intermediate_values.items():
                if step < first_step:
                    raise ValueError(
                        f"study {name!r}, trial {trial.number} reported step {step}, before the "
                        f"first step {first_step}"
                    )
                curve[step - first_step + 1] = value
            reported.append((task, row, curve))
    steps = np.array(sorted({epoch for _, _, curve in reported for epoch in curve}))
    epochs = fidelities_of(steps, fidelities)
    if len(epochs) < len(steps):
        warnings.warn(
            f"trials report {len(steps)} different steps, which are put together as {len(epochs)} "
            "fidelities (fidelities=)",
            stacklevel=2,
        )
    cells: dict[tuple[int, int, int], list[float]] = {}
    for task, row, curve in reported:
        at = {int(np.searchsorted(epochs, epoch)): curve[epoch] for epoch in sorted(curve)}
        for position, value in at.items():
            cell = cells.setdefault((task, row, position), [])
            if np.isfinite(value):
                cell.append(value)
    _warn_of_other_steps(chosen, cells, epochs - 1 + first_step)
    values = np.full((len(chosen), len(configs), len(epochs)), np.nan)
    for cell, found in cells.items():
        if found:
            values[cell] = np.mean(found)
    minimise = directions[chosen[0]] == StudyDirection.MINIMIZE
    outcome = Outcome.fit(values, minimise=minimise)
    return LearningCurves(
        configs=[config for _, config in configs.values()],
        space=space,
        tasks=chosen,
        scores=outcome.forward(values),
        epochs=epochs,
        outcome=outcome,
    )


def _warn_of_other_steps(
    studies: Sequence[str], cells: Iterable[tuple[int, int, int]], steps: Int[np.ndarray, "epoch"]
) -> None:
    """Warn of studies whose steps are those of no other, so that nothing is learned of them."""
    epochs: dict[int, set[int]] = {task: set() for task in range(len(studies))}
    for task, _, epoch in cells:
        epochs[task].add(epoch)
    for task, own in epochs.items():
        others = set().union(*(e for other, e in epochs.items() if other != task))
        if others and not own & others:
            few = ", ".join(str(steps[epoch]) for epoch in sorted(own)[:5])
            warnings.warn(
                f"study {studies[task]!r} shares no step with another: it reports {few} ...",
                stacklevel=3,
            )


def _merge(trials: Mapping[str, Sequence[FrozenTrial]]) -> dict[str, BaseDistribution]:
    """Distributions of the parameters that all trials have, ranges and choices united."""
    merged: dict[str, BaseDistribution] = {}
    origin: dict[str, str] = {}
    everywhere = set.intersection(*(set(t.params) for ts in trials.values() for t in ts))
    for study, finished in trials.items():
        for trial in finished:
            for name in sorted(everywhere):
                new = trial.distributions[name]
                old = merged.setdefault(name, new)
                where = f"study {study!r}, trial {trial.number}"
                origin.setdefault(name, where)
                if (united := _unite(old, new)) is None:
                    raise ValueError(
                        f"parameter {name!r} is {new} in {where}, but {old} in {origin[name]}"
                    )
                merged[name] = united
    return merged


def _unite(old: BaseDistribution, new: BaseDistribution) -> BaseDistribution | None:
    """The distribution of the values of both, None if they differ in kind or scale."""
    if old == new:
        return old
    if isinstance(old, CategoricalDistribution) and isinstance(new, CategoricalDistribution):
        known = {comparable(choice) for choice in old.choices}
        more = [choice for choice in new.choices if comparable(choice) not in known]
        return CategoricalDistribution((*old.choices, *more))
    if isinstance(old, IntDistribution) and isinstance(new, IntDistribution):
        finest = 1
    elif isinstance(old, FloatDistribution) and isinstance(new, FloatDistribution):
        finest = None
    else:
        return None
    if old.log != new.log:
        return None
    same = old.step == new.step and old._contains(new.low)
    kind: Any = type(old)
    low, high = min(old.low, new.low), max(old.high, new.high)
    return kind(low, high, log=old.log, step=old.step if same else finest)
