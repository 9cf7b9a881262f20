"""The state of a tuner: what was asked and told, and the file that keeps it.

The file is an npz file without pickles: the arrays of the fit, and `state` and `settings` as JSON.
It is replaced atomically.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from ConfigSpace import ConfigurationSpace
from ConfigSpace.hyperparameters import NumericalHyperparameter

from amt.curves import LearningCurves
from amt.files import atomic_write
from amt.gp.solvers import AbstractSolver
from amt.inference import Fitted
from amt.search.acquisition import ACQUISITIONS, Acquisition
from amt.space import check_configs, choices_of, comparable, own_value

AnyFit = TypeVar("AnyFit", bound=Fitted)


@dataclass
class State:
    """The history of a tuner, as JSON has it; epochs are those of the sources.

    Attributes:
        added: the configurations behind those of the sources.
        told: (configuration, epoch, metric), configurations by number.
        pending: (configuration, epoch) of the trials under way.
        failed, stopped: the configurations given up.
        asked: how many trials were asked for.
        unit: of what was told: "metric", or in files of earlier versions "score".
    """

    added: list[dict[str, Any]] = field(default_factory=list)
    told: list[tuple[int, int, float]] = field(default_factory=list)
    pending: list[tuple[int, int]] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    asked: int = 0
    unit: str = "metric"

    def latest(self, number: int) -> int:
        """The latest epoch of a configuration that was told, 0 for none."""
        return max((epoch for other, epoch, _ in self.told if other == number), default=0)

    def end(self, number: int, epoch: int) -> None:
        """End a trial under way that was asked for up to `epoch` or less."""
        self.pending = [trial for trial in self.pending if trial[0] != number or trial[1] > epoch]

    def checked(self, sources: LearningCurves) -> "State":
        """The same state, with the metric, and values of configurations as the space has them.

        Raises:
            ValueError: it is not of a tuner with these sources: a configuration is not legal, a
                number or an epoch not on their grid, or a score not finite or told twice.
        """
        added = list(check_configs(sources.space, self.added))
        numbers = range(len(sources.configs) + len(added))
        epochs = sources.epochs.tolist()
        cells = [told[:2] for told in self.told]
        given_up = [(number, epochs[0]) for number in (*self.failed, *self.stopped)]
        for number, epoch in (*cells, *self.pending, *given_up):
            if number not in numbers or epoch not in epochs:
                raise ValueError(f"configuration {number}, epoch {epoch} is not on the grid")
        for number, epoch, score in self.told:
            if not np.isfinite(score) or cells.count((number, epoch)) > 1:
                what = "is told twice" if np.isfinite(score) else f"is {score}"
                raise ValueError(f"the score of configuration {number}, epoch {epoch} {what}")
        told = self.told
        if self.unit == "score":
            told = [(n, e, float(sources.outcome.inverse(score))) for n, e, score in told]
        return replace(self, added=added, told=told, unit="metric")


class Saved(NamedTuple):
    """The content of a state file.

    Attributes:
        settings: the arguments of the tuner, large ones by their `digest`.
        state: what was asked and told.
        arrays: those of the fit (`arrays_of`).
    """

    settings: dict[str, Any]
    state: State
    arrays: list[np.ndarray]


def write(path: Path, saved: Saved) -> None:
    """Replace a state file; however the process ends, the old or the new one is there."""
    content: dict[str, Any] = {
        "state": np.array(json.dumps(asdict(saved.state))),
        "settings": np.array(json.dumps(saved.settings)),
        **{f"fit{index}": array for index, array in enumerate(saved.arrays)},
    }
    atomic_write(path, lambda file: np.savez(file, **content))


def read(path: Path) -> Saved:
    """Read a state file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            settings, entries = (json.loads(str(file[name])) for name in ("settings", "state"))
            arrays = [file[f"fit{index}"] for index in range(len(file.files) - 2)]
        for name in ("told", "pending"):
            entries[name] = [tuple(entry) for entry in entries[name]]
        entries.setdefault("unit", "score")
        name, keywords = settings["acquisition"]
        settings["acquisition"] = [_current_name(name), keywords]
        settings.setdefault("by_cost", False)
        settings.setdefault("model", "multi_task")  # the only one of earlier versions
        return Saved(settings, State(**entries), arrays)
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError) as error:
        raise ValueError(f"{path} is not the state of a tuner: {error}") from error


def require_storable(space: ConfigurationSpace) -> None:
    """Raise an error unless the values of a search space come back from a file as they are.

    Raises:
        ValueError: a choice does not; the message names it.
    """
    for name, hyperparameter in space.items():
        if isinstance(hyperparameter, NumericalHyperparameter):
            continue
        for choice in choices_of(hyperparameter):
            try:
                again = own_value(hyperparameter, json.loads(json.dumps(choice)))
                same = comparable(again) == comparable(choice)
            except (TypeError, ValueError):
                same = False
            if not same:
                raise ValueError(
                    f"hyperparameter {name!r}: a state file cannot hold the choice {choice!r}; "
                    "use texts, numbers or lists of them"
                )


def load(
    path: Path, settings: Mapping[str, Any], fit: AnyFit, sources: LearningCurves
) -> tuple[State, AnyFit]:
    """Read the state of a tuner with these settings, and put the file's arrays into its fit.

    Args:
        fit: of the same structure as the fit in the file; solvers are taken from it.
        sources: of the tuner, which the state is checked against.

    Raises:
        ValueError: the file is something else, or the state of a tuner with other arguments.
    """
    saved = read(path)
    ours = json.loads(json.dumps(settings))
    differing = [name for name in ours if saved.settings.get(name) != ours[name]]
    if differing:
        raise ValueError(
            f"{path} is the state of a tuner with other {', '.join(differing)}: give what it was "
            "made with, or another file"
        )
    if len(arrays_of(fit)) != len(saved.arrays):
        raise ValueError(
            f"{path} has the fit of a model with other parameters, as another version of amt may "
            "have: start another file, and `tell` its scores again"
        )
    try:
        state = saved.state.checked(sources)
    except ValueError as error:
        raise ValueError(f"{path} is not the state of a tuner: {error}") from error
    return state, with_arrays(fit, saved.arrays)


def arrays_of(fit: Fitted) -> list[np.ndarray]:
    """The arrays of a fit but for those of its solver, which follows from the sources."""
    return list(map(np.asarray, jax.tree.leaves(_partition(fit)[0])))


def with_arrays(fit: AnyFit, arrays: Sequence[np.ndarray]) -> AnyFit:
    """A fit with other arrays, as many as it has (`arrays_of`)."""
    own, rest = _partition(fit)
    leaves = map(jnp.asarray, arrays)
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(own), leaves), rest)


def _partition(fit: AnyFit) -> tuple[AnyFit, AnyFit]:
    return eqx.partition(
        fit, eqx.is_array_like, is_leaf=lambda node: isinstance(node, AbstractSolver)
    )


def digest(*content: Any) -> str:
    """SHA-256 of arrays and of what `repr` shows of the rest."""
    digest = hashlib.sha256()
    for item in content:
        array = isinstance(item, np.ndarray)
        digest.update((f"{item.dtype}{item.shape}" if array else repr(item)).encode())
        digest.update(np.ascontiguousarray(item).tobytes() if array else b"")
    return digest.hexdigest()


# Acquisition functions by name


def describe(acquisition: Acquisition) -> list[Any]:
    """The name and keywords of an acquisition function, under `functools.partial` too.

    The name is that in `ACQUISITIONS`, or of the function with its module.
    """
    keywords: dict[str, Any] = {}
    function: Any = acquisition
    while isinstance(function, partial):
        keywords, function = function.keywords | keywords, function.func
    return [_current_name(_path(function)), keywords]


def acquisition_of(name: str, keywords: Mapping[str, Any]) -> Acquisition:
    """The acquisition function of a description; a KeyError if it is not in `ACQUISITIONS`.

    It is the same object for equal descriptions, so that they share what is compiled.
    """
    return _with_keywords(ACQUISITIONS[name], json.dumps(keywords, sort_keys=True))


@cache
def _with_keywords(function: Acquisition, keywords: str) -> Acquisition:
    return partial(function, **json.loads(keywords)) if keywords != "{}" else function


def _path(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _current_name(name: str) -> str:
    """The name in `ACQUISITIONS` of a function named by a module that it is or was in."""
    for known, function in ACQUISITIONS.items():
        if isinstance(function, partial):
            continue
        own = _path(function)
        moved = own.startswith("amt.") and name.startswith("amt.")
        if own == name or (moved and own.rpartition(".")[2] == name.rpartition(".")[2]):
            return known
    return name
