"""Past studies as source tasks."""

import warnings
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from ConfigSpace import ConfigurationSpace
from ConfigSpace.types import NotSet
from jaxtyping import Int
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from amt.curves import LearningCurves
from amt.databases.long_form.fidelities import FIDELITIES, fidelities_of
from amt.databases.spaces import PARENT_VALUES, condition_on, explain_inactive
from amt.integrations.optuna.spaces import in_distribution, space_of_distributions, unite
from amt.outcome import Outcome
from amt.space import comparable, own_value


def sources_from_studies(
    storage: str | BaseStorage,
    names: Iterable[str] | None = None,
    *,
    first_step: int = 0,
    absent: Mapping[str, Any] | None = None,
    fidelities: int = FIDELITIES,
) -> LearningCurves:
    """Past studies of an Optuna storage as source tasks.

    A study is a task. Of its finished trials (complete, pruned or failed) all that reported
    intermediate values count, each as a configuration. Ranges and choices of a parameter are the
    union over all trials (`unite`), be they in another order, on another scale, or whole numbers in
    one and real ones in another. A parameter that some trials lack is conditional on the one that
    tells which (`amt.databases.spaces.explain_inactive`); where none does, as with one that later
    studies have in addition, trials without it count with its value in `absent`, or with its most
    usual one, the median of a number, of which a warning says so. Trials of equal parameters are
    averaged. Values that
    are not finite count as missing, and so do steps that only other trials have and configurations
    that only other studies have. `outcome` of the result says how scores were made of values
    (`amt.outcome`).

    Args:
        names: of the studies; by default all that have one objective and intermediate values. Leave
            out the study to be tuned.
        first_step: the step that trials report for their first epoch.
        absent: what a parameter was in trials that did not suggest it.
        fidelities: the largest number of epochs. Where trials report more, as at steps of their
            own, the last value of a trial up to one of so many log-spaced ones stands for it.

    Raises:
        ValueError: no study has intermediate values, or a named one has none or several
            objectives; studies differ in direction; a parameter has numbers in
            one and choices in another; or a step is before
            the first. The message names study, trial and step.
        KeyError: there is no such study.

    Warns:
        UserWarning: a study shares no step with another, steps are put together as fidelities, or
            nothing tells which trials have a parameter.
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

    space, filled = _space_of_trials(trials, absent or {})
    configs: dict[Hashable, tuple[int, dict[str, Any]]] = {}
    reported: list[tuple[int, int, dict[int, float]]] = []
    for task, name in enumerate(chosen):
        for trial in trials[name]:
            params = {**filled, **trial.params}
            config = {p: own_value(space[p], params[p]) for p in space if p in params}
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


def _space_of_trials(
    trials: Mapping[str, Sequence[FrozenTrial]], absent: Mapping[str, Any]
) -> tuple[ConfigurationSpace, dict[str, Any]]:
    """The search space of all trials, and the values of what some trials lack for no reason seen.

    Raises:
        ValueError: a parameter has numbers in one trial and choices in another, or none that all
            trials have has several values.
    """
    every = [trial for finished in trials.values() for trial in finished]
    distributions = _merge(trials)
    if not any(
        not d.single() and all(name in trial.params for trial in every)
        for name, d in distributions.items()
    ):
        raise ValueError("no parameter is in all trials of all studies with more than one value")
    values = {
        name: [comparable(trial.params[name]) if name in trial.params else None for trial in every]
        for name in distributions
    }
    # By their places: texts of different values can be the same.
    texts: dict[str, list[str]] = {}
    known: dict[str, dict[str, Any]] = {}
    for name, column in values.items():
        places = {value: str(place) for place, value in enumerate(dict.fromkeys(column))}
        has = [name in trial.params for trial in every]
        texts[name] = [places[v] if there else "" for v, there in zip(column, has, strict=True)]
        known[name] = {
            text: trial.params[name] for text, trial in zip(texts[name], every, strict=True) if text
        }
    parents = sorted(
        (
            name
            for name, d in distributions.items()
            if not isinstance(d, FloatDistribution) and len(known[name]) <= PARENT_VALUES
        ),
        key=lambda name: (
            "" in texts[name],
            not isinstance(distributions[name], CategoricalDistribution),
        ),
    )
    filled = {name: absent[name] for name in distributions if name in absent}
    conditions, unexplained = {}, []
    while True:  # what is filled in tells nothing
        given = {n: texts[n] for n in texts if n not in filled and n not in unexplained}
        conditions, more = explain_inactive(given, [name for name in parents if name in given])
        unexplained += more
        if not more:
            break
    for name in unexplained:
        filled[name] = _usual([trial.params[name] for trial in every if name in trial.params])
        lacking = sum(not text for text in texts[name])
        warnings.warn(
            f"parameter {name!r} is not in {lacking} of {len(every)} trials, and no other tells in "
            f"which: they count with {filled[name]!r}; absent={{{name!r}: ...}} says what it was",
            stacklevel=3,
        )
    for name, value in filled.items():
        if in_distribution(distributions[name], value) is not NotSet:
            continue
        united = unite(distributions[name], CategoricalDistribution([value]))
        if united is None:
            raise ValueError(f"absent: {name!r} cannot be {value!r}, it is {distributions[name]}")
        distributions[name] = united
    space = space_of_distributions(distributions)
    for child, (parent, active) in conditions.items():
        if child in space and parent in space:
            under = [own_value(space[parent], known[parent][text]) for text in active]
            space.add(condition_on(space[child], space[parent], under))
    return space, filled


def _usual(values: Sequence[Any]) -> Any:
    """The median of numbers, which is one of them, or the most frequent choice."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return sorted(values)[len(values) // 2]
    counts = Counter(map(comparable, values))
    return max(values, key=lambda value: counts[comparable(value)])


def _merge(trials: Mapping[str, Sequence[FrozenTrial]]) -> dict[str, BaseDistribution]:
    """Distributions of all parameters, ranges and choices united."""
    merged: dict[str, BaseDistribution] = {}
    origin: dict[str, str] = {}
    for study, finished in trials.items():
        for trial in finished:
            for name, new in sorted(trial.distributions.items()):
                old = merged.setdefault(name, new)
                where = f"study {study!r}, trial {trial.number}"
                origin.setdefault(name, where)
                if (united := unite(old, new)) is None:
                    raise ValueError(
                        f"parameter {name!r} is {new} in {where}, but {old} in {origin[name]}"
                    )
                merged[name] = united
    return merged
