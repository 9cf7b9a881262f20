"""Sections on live tuners, from the file of their state and, where given, their sources."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pandas as pd

from amt.curves import LearningCurves
from amt.precision import precision
from amt.report.page import Drawing, Facts, Note, Section, Table, as_text
from amt.search.state import Saved, State, read
from amt.search.tuner import NothingToRecommendError, Tuner

CURVES = 5
"""How many configurations have their predicted curves shown."""


def state_section(title: str, path: Path, sources: LearningCurves | None) -> Section:
    """The section on a state file, which stays as it is.

    Raises:
        ValueError: the file is no state of a tuner.
    """
    saved = read(path)
    if sources is None:
        why = "What it recommends and predicts follows from its sources too: name them (--sources)."
        return _without_sources(title, saved, why)
    with tempfile.TemporaryDirectory() as folder, precision(saved.settings["dtype"]):
        # A tuner writes its state, and that of a tuner at work is not to be touched.
        copy = Path(copyfile(path, Path(folder) / "tuner.npz"))
        try:
            tuner = Tuner.resume(copy, sources)
        except ValueError as error:
            why = f"Without predictions: {error}".replace(str(copy), path.name)
            return _without_sources(title, saved, why)
        return tuner_section(title, tuner, sources, read(copy))


def tuner_section(title: str, tuner: Tuner, sources: LearningCurves, saved: Saved) -> Section:
    """The section on a tuner: what it recommends, predicts, has spent and waits for.

    Args:
        saved: the content of its state file.
    """
    state = saved.state
    posterior = tuner.posterior()
    score = np.asarray(posterior.average(posterior.mean)).max(1)
    score[state.failed] = -np.inf
    numbers = [n for n in np.argsort(-score, kind="stable").tolist() if n not in state.failed]
    blocks: list[Any] = [
        Facts("State", _facts(saved) | epochs_saved(state, int(sources.epochs[-1])))
    ]
    try:
        best = tuner.recommend()
        numbers = [best, *(n for n in numbers if n != best)]
        blocks.append(_recommendation(tuner, best, state))
    except NothingToRecommendError as error:
        blocks.append(Note(f"No recommendation: {error}"))
    numbers = numbers[:CURVES]
    if numbers:
        caption = (
            f"Predicted curves of configurations {', '.join(map(str, numbers))} with 90% "
            "intervals; dots are what was told"
        )
        blocks += [
            Drawing(caption, tuner.plot_curves(numbers)),
            _predictions(tuner, numbers, state),
        ]
    if saved.settings["model"] == "task_regression":
        similarity = tuner.similarity()
        order = np.argsort(-similarity.mean)
        columns = {
            "past task": [similarity.tasks[task] for task in order],
            "weight": similarity.mean[order],
            "from": similarity.lower[order],
            "to": similarity.upper[order],
        }
        caption = "Weights of the past tasks in what is predicted, with 90% intervals"
        blocks += [
            Drawing(caption, tuner.plot_similarity()),
            Table.of("The same weights in numbers", pd.DataFrame(columns), folded=True),
        ]
    names = list(sources.space)
    blocks += _waiting(
        [[t.number, t.epoch, t.reached, *map(t.config.get, names)] for t in tuner.pending], names
    )
    given_up = {"failed": state.failed, "stopped": state.stopped}
    rows = [
        [number, why, state.latest(number), *map(tuner.configs[number].get, names)]
        for why, of_kind in given_up.items()
        for number in of_kind
    ]
    if rows:
        heads = ["configuration", "was", "reached epoch", *names]
        blocks.append(Table.of("Given up", pd.DataFrame(rows, columns=heads)))
    history = tuner.history().rename(columns={"number": "configuration"})
    blocks.append(_history(history))
    return Section(title, blocks)


def epochs_spent(state: State) -> int:
    """Epochs of training that metrics were told of: the latest of each configuration, summed."""
    return sum(state.latest(number) for number in {number for number, *_ in state.told})


def epochs_saved(state: State, last: int) -> dict[str, str]:
    """Epochs saved against training every configuration tried to the last epoch, in words."""
    whole = last * len({number for number, *_ in state.told})
    saved = whole - epochs_spent(state)
    share = f" ({saved / whole:.0%})" if whole else ""
    return {
        "epochs saved": f"{saved} of {whole}{share}, which all configurations tried would have "
        f"taken up to epoch {last}"
    }


def _facts(saved: Saved) -> dict[str, str]:
    state, settings = saved.state, saved.settings
    options = ", ".join(f"{name}={value!r}" for name, value in settings["options"].items())
    name, keywords = settings["acquisition"]
    return {
        "model": settings["model"].replace("_", " ") + (f" ({options})" if options else ""),
        "acquisition": name + (f" {keywords}" if keywords else ""),
        "told": f"{len(state.told)} metrics of {len({n for n, *_ in state.told})} configurations",
        "under way": str(len(state.pending)),
        "failed": str(len(state.failed)),
        "stopped": str(len(state.stopped)),
        "epochs spent": str(epochs_spent(state)),
    }


def _without_sources(title: str, saved: Saved, why: str) -> Section:
    state = saved.state
    unit = "metric" if state.unit == "metric" else "score"
    blocks: list[Any] = [Facts("State", _facts(saved)), Note(why)]
    blocks += _waiting([[n, epoch, state.latest(n)] for n, epoch in state.pending], [])
    if state.added:
        caption = "Configurations beyond those of the sources, in their order"
        blocks.append(Table.of(caption, pd.DataFrame(state.added)))
    history = pd.DataFrame(state.told, columns=["configuration", "epoch", unit])
    return Section(title, [*blocks, _history(history)])


def _recommendation(tuner: Tuner, best: int, state: State) -> Facts:
    config: Mapping[str, Any] = tuner.configs[best]
    predicted = tuner.predict([best])
    mean, lower, upper = (as_text(float(values[0, -1])) for values in predicted)
    return Facts(
        "Recommendation",
        {
            "recommended": f"configuration {best}",
            **{name: as_text(value) for name, value in config.items()},
            "trained up to epoch": str(state.latest(best)),
            "predicted at the last": f"{mean}, 90% interval from {lower} to {upper}",
        },
    )


def _predictions(tuner: Tuner, numbers: Sequence[int], state: State) -> Table:
    mean, lower, upper = (values[:, -1] for values in tuner.predict(numbers))
    columns = {
        "configuration": list(numbers),
        "reached epoch": [state.latest(number) for number in numbers],
        "predicted": mean,
        "from": lower,
        "to": upper,
    }
    configs = pd.DataFrame([tuner.configs[number] for number in numbers], dtype=object)
    caption = "Predicted metric after the last epoch, with 90% intervals"
    return Table.of(caption, pd.concat([pd.DataFrame(columns), configs], axis=1))


def _waiting(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> list[Note | Table]:
    """The trials under way."""
    if not rows:
        return [Note("No proposal is waiting.")]
    heads = ["configuration", "up to epoch", "reached epoch", *names]
    caption = "Proposals waiting for their metric"
    return [Table.of(caption, pd.DataFrame(rows, columns=heads, dtype=object))]


def _history(history: pd.DataFrame) -> Table | Note:
    if not len(history):
        return Note("Nothing was told so far.")
    return Table.of(f"All that was told, in its order ({len(history)})", history)
