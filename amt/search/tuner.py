"""The live tuner: ask for a trial, train it for one more epoch, tell its score."""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ConfigSpace import ConfigurationSpace
from jax.typing import DTypeLike
from jaxtyping import Bool, Int, PRNGKeyArray

from amt.curves import LearningCurves
from amt.gp.observations import TargetPosterior
from amt.inference import INFERENCE, Fitted
from amt.search.acquisition import (
    ACQUISITIONS,
    RULES,
    WITHOUT_TASKS,
    Acquisition,
    get_acquisition,
)
from amt.search.candidates import check_within, configuration_in
from amt.search.cost import expected_cost
from amt.search.failures import failed_score
from amt.search.fitting import (
    DEFAULT_MODEL,
    as_key,
    as_modelled,
    check_options,
    fit_sources,
    model_of,
    require_model,
    source_grid,
    source_posterior,
    unfitted,
)
from amt.search.prediction import (
    MetricPrediction,
    Similarity,
    best_expected_score,
    predict_metric,
    similarity_of,
)
from amt.search.proposals import Proposals, explores
from amt.search.scoring import Progress, Room, Scorer
from amt.search.state import (
    Saved,
    State,
    acquisition_of,
    arrays_of,
    describe,
    digest,
    load,
    read,
    require_storable,
    write,
)
from amt.search.stopping import Utility
from amt.space import Encoder, check_configs, config_key

_KEPT = ("model", "by_cost", "dtype", "continuous", "samples", "refinements")  # in a state's file


class ExhaustedError(RuntimeError):
    """Every configuration has been trained for all epochs or given up."""


class UnderWayError(RuntimeError):
    """All that is left to train is under way."""


class NothingToRecommendError(RuntimeError):
    """There is no configuration in the search space that did not fail."""


class Trial(NamedTuple):
    """A configuration to train.

    Attributes:
        number: position of the configuration in `Tuner.configs`.
        config: its active hyperparameters.
        epoch: the epoch up to which to train it, one of the sources'.
        reached: the latest epoch with a score, from where training goes on; 0 where it starts.
    """

    number: int
    config: dict[str, Any]
    epoch: int
    reached: int


class Tuner:
    """Ask which configuration to train for one more epoch, and tell what came of it.

    ```python
    tuner = amt.Tuner(sources, jax.random.key(0), state="tuner.npz")
    for trial in tuner.pending:  # under way when an earlier run of this script was stopped
        tuner.tell(trial.number, trial.epoch, train(trial))
    for _ in range(100):
        trial = tuner.ask()
        tuner.tell(trial.number, trial.epoch, train(trial))
    best = tuner.configs[tuner.recommend()]
    ```

    The model is learned once, from the sources; every metric told updates the similarity of the
    target to each source and the posterior, exactly. `tell` takes the metric as it was measured,
    an accuracy or a loss, and `outcome` is what makes the scores of it that the model sees.
    Configurations are numbered: those of the sources, then others in the order in which `ask`
    proposed or `add` gave them.

    Several trials can be under way at once: one that was asked for counts as observed at its
    posterior mean until it is told (`AbstractSourcePosterior.condition`), and is not asked for
    again before that. Scores can be told in any order, of any epochs of the sources, and of trials
    that were not asked for.

    Candidates are the configurations known so far, and at trials 0, 1, 4, 9, 16, ... `samples`
    random ones and then, `refinements` times, as many neighbours of those with the best acquisition
    values (`amt.search.proposals`). All other trials go on with what is known. They follow from the
    key and the number of times asked.

    With `state`, a method that changes something writes it to that file before it returns, and a
    tuner made with the same arguments goes on from there. It is an npz file without pickles
    (`amt.search.state`), replaced atomically; one process at a time can use it.

    Args:
        sources: past tasks, their curves complete or not; or what is known before there is one
            (`LearningCurves.without_tasks`).
        key: for the starting points of the fit and for candidates; a key, or the seed of one.
        model: a name in `amt.search.fitting.MODELS`; by default task regression.
        space: where to look, by default in the sources' space; it can be narrower, not wider.
        acquisition: a function of `amt.search.acquisition`, or its name in `ACQUISITIONS`; by
            default that of the model in `RULES`, or `WITHOUT_TASKS`.
        by_cost: whether acquisition values are per unit of what the next epoch is expected to cost
            (`amt.search.cost`): of the sources' `cost`, or of epochs where they have none.
        fit: a fit to these sources (`fit_sources`) by any inference, instead of a new one. Over
            draws of "nuts" or "svi", acquisition values and means are averaged.
        continuous: whether to look beyond the sources' configurations and those added.
        state: the file to go on from, if it is there, and to write.
        options: of `fit_sources`, but for its solver. Where `INFERENCE[...].live` is false, or
            with a solver of your own, fit before and give the `fit`.

    Attributes:
        configs: the configurations by number.
        fit: the model and how the fit went.
        outcome: from the metric to the scores that the model sees.

    Raises:
        KeyError: no such model, inference, kernel or acquisition function; the message lists those
            that there are.
        ValueError: the space is not within the sources', there is no such option, the inference
            has to be run before, or the file is no state of a tuner, or one of other arguments;
            the message says which.
        FileNotFoundError: there is no folder for the state's file.
    """

    def __init__(
        self,
        sources: LearningCurves,
        key: PRNGKeyArray | int,
        *,
        model: str | None = None,
        space: ConfigurationSpace | None = None,
        acquisition: Acquisition | str | None = None,
        by_cost: bool = False,
        fit: Fitted | None = None,
        dtype: DTypeLike = jnp.float64,
        continuous: bool = True,
        samples: int = 64,
        refinements: int = 1,
        state: str | PathLike[str] | None = None,
        **options: Any,
    ):
        key = self._random_key = as_key(key)
        if fit is not None:
            model = model_of(fit)
        model = require_model(DEFAULT_MODEL if model is None else model)
        self._modelled = as_modelled(sources, model)
        self.outcome = self._modelled.outcome
        grid = source_grid(self._modelled, model, dtype)
        self._sources, self._encode = sources, Encoder(sources.space)
        self._space = deepcopy(sources.space if space is None else space)
        if space is not None:
            check_within(self._space, sources.space)
        if acquisition is None:
            acquisition = RULES[model] if sources.num_tasks else WITHOUT_TASKS
        acquisition = get_acquisition(acquisition)
        self._continuous, self._refinements = continuous, refinements
        self._epochs = sources.epochs
        self._position = {epoch: index for index, epoch in enumerate(sources.epochs.tolist())}
        seed = np.asarray(jax.random.key_data(key)).ravel().tolist()
        self._proposals = Proposals(self._space, self._encode, seed, samples)
        self._settings = {
            "sources": digest(sources.scores, sources.epochs, sources.tasks, sources.configs),
            "space": digest(str(self._space)),
            "key": seed,
            "acquisition": describe(acquisition),
            "by_cost": by_cost,
            "dtype": str(jnp.dtype(dtype)),
            "continuous": continuous,
            "samples": samples,
            "refinements": refinements,
            "model": model,
            "options": options,
            "fit": None if fit is None else digest(*arrays_of(fit)),
        }
        if fit is None:
            check_options(model=model, **{k: v for k, v in options.items() if k != "solver"})
            _require_live(options)
        self._path = None if state is None else Path(state).expanduser()
        if self._path is not None and not self._path.parent.is_dir():
            raise FileNotFoundError(f"state={str(state)!r}: there is no folder {self._path.parent}")
        if self._path is not None:
            require_storable(sources.space)
        self._state = State()
        self.fit: Any = fit
        if self._path is not None and self._path.exists():
            structure: Any = fit
            if fit is None:
                structure = unfitted(sources, key, model=model, dtype=dtype, **options)
            self._state, self.fit = load(self._path, self._settings, structure, sources)
        elif fit is None:
            self.fit, _ = fit_sources(sources, key, model=model, dtype=dtype, **options)
        self._scorer = Scorer(
            source_posterior(self.fit, grid),
            grid,
            acquisition,
            # What is only on the grid needs no room until it is needed.
            Room(added=16, fresh=samples) if continuous else Room(added=0, fresh=0),
            expected_cost(sources),
            by_cost,
        )
        self.configs: tuple[dict[str, Any], ...] = ()
        self._numbers: dict[Hashable, int] = {}  # the first of each configuration
        self._features = np.zeros((0, self._encode.num_features))
        for config in (*sources.configs, *self._state.added):
            self._append(config)
        legal = [
            space is None or configuration_in(space, config) is not None
            for config in sources.configs
        ]
        self._outside = np.flatnonzero(~np.array(legal)).tolist()
        self._posterior: TargetPosterior | None = None
        self._save()

    @classmethod
    def resume(
        cls,
        path: str | PathLike[str],
        sources: LearningCurves,
        *,
        space: ConfigurationSpace | None = None,
        acquisition: Acquisition | None = None,
        fit: Fitted | None = None,
    ) -> "Tuner":
        """The tuner of a state file; settings, the key among them, are read from it.

        Args:
            sources, space, fit: as they were given to the constructor.
            acquisition: needed where it is not one of `ACQUISITIONS`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: as for the constructor, or the acquisition function is not known by name.
        """
        settings = read(Path(path)).settings
        name, keywords = settings["acquisition"]
        if acquisition is None:
            if name not in ACQUISITIONS:
                raise ValueError(f"{path} was made with the acquisition function {name}: give it")
            acquisition = acquisition_of(name, keywords)
        return cls(
            sources,
            jax.random.wrap_key_data(jnp.asarray(settings["key"], jnp.uint32)),
            space=space,
            acquisition=acquisition,
            fit=fit,
            state=path,
            **{n: settings[n] for n in _KEPT},
            **settings["options"],
        )

    @property
    def pending(self) -> tuple[Trial, ...]:
        """The trials that were asked for and neither told nor given up."""
        return tuple(self._trial(number, epoch) for number, epoch in self._state.pending)

    @property
    def told(self) -> tuple[tuple[int, int, float], ...]:
        """Configuration, epoch and metric of all that was told, in that order."""
        return tuple(self._state.told)

    @property
    def failed(self) -> tuple[int, ...]:
        """The configurations whose training failed."""
        return tuple(self._state.failed)

    @property
    def epochs(self) -> Int[np.ndarray, "epoch"]:
        """The epochs that can be asked for and told, those of the sources."""
        return self._epochs

    def posterior(self) -> TargetPosterior:
        """Mean and variance of the target's noise-free score, of all configurations by number.

        In units of `outcome`, and with a leading axis of components where there are several.
        """
        if self._posterior is None:
            self._posterior = self._scorer.posterior(self._progress())
        return self._posterior

    def predict(
        self, numbers: Sequence[int] | None = None, *, level: float = 0.9
    ) -> MetricPrediction:
        """Mean and central interval of what the metric will be measured as, at every epoch.

        In the metric's own units, noise included.

        Args:
            numbers: configurations; by default all.
            level: probability of the interval.

        Raises:
            ValueError: no such configuration.
        """
        rows = list(range(len(self.configs)) if numbers is None else numbers)
        for number in rows:
            self._require_known(number)
        noise = np.asarray(self._scorer.source.noise)
        return predict_metric(self.posterior().of(rows), noise, self.outcome, level=level)

    def similarity(self) -> Similarity:
        """How much each past task counts in what is predicted, with intervals.

        Raises:
            ValueError: the model is not task regression, or there is no past task.
        """
        if not self._sources.num_tasks:
            raise ValueError("without past tasks there is no similarity to them")
        mean, deviation = self._scorer.similarity(self._progress())
        log_weights = self.posterior().log_weights
        assert log_weights is not None
        weights = np.exp(np.asarray(log_weights))
        tasks = tuple(map(str, self._sources.tasks))
        return similarity_of(tasks, weights, np.asarray(mean), np.asarray(deviation))

    @property
    def best_config(self) -> dict[str, Any]:
        """The hyperparameters of the configuration that `recommend` names."""
        return dict(self.configs[self.recommend()])

    def history(self) -> Any:
        """A `pandas.DataFrame` of all that was told, in that order, with the hyperparameters."""
        import pandas as pd

        rows = [
            {"number": number, "epoch": epoch, "metric": metric, **self.configs[number]}
            for number, epoch, metric in self._state.told
        ]
        return pd.DataFrame(rows, columns=["number", "epoch", "metric", *self._sources.space])

    def plot_curves(self, numbers: Sequence[int] | None = None, *, level: float = 0.9) -> Any:
        """A `matplotlib.figure.Figure` of predicted curves, with what was told of them.

        Args:
            numbers: configurations; by default up to five with the largest predicted scores.
            level: probability of the intervals.
        """
        from amt.search.figures import curves_figure

        posterior = self.posterior()
        score = np.asarray(posterior.average(posterior.mean)).max(1)
        shown = np.argsort(-score)[:5].tolist() if numbers is None else list(numbers)
        predicted = self.predict(shown, level=level)
        return curves_figure(shown, self._epochs, predicted, self.told, level=level)

    def plot_similarity(self) -> Any:
        """A `matplotlib.figure.Figure` of `similarity`."""
        from amt.search.figures import similarity_figure

        return similarity_figure(self.similarity())

    def ask(self) -> Trial:
        """The trial to run next; it is `pending` from now on.

        Raises:
            ExhaustedError: every configuration has been trained for all epochs or given up.
            UnderWayError: the same, but for those under way.
        """
        progress, remaining = self._progress(), self._remaining()
        asked, propose = self._state.asked, self._proposals
        key = jax.random.fold_in(self._random_key, asked)
        explore = self._continuous and (explores(asked) or not remaining.any())
        candidates, values = propose.at_random(asked) if explore else propose.none(), np.zeros(0)
        best, number, config = -np.inf, 0, None
        for refinement in range(1 + self._refinements * explore):
            if refinement:
                candidates = propose.neighbours(values, self.configs, candidates, asked, refinement)
            new = np.array([self._key(c) not in self._numbers for c in candidates.values], bool)
            of_new = np.repeat(new[:, None], len(self._epochs), 1)
            rows = np.concatenate([remaining, of_new])
            values = self._scorer.values(progress, candidates.features, rows, key)
            if np.isnan(values).any():
                raise FloatingPointError("the acquisition function gives values that are NaN")
            row = int(values.argmax())
            if values[row] > best:
                best, number, known = values[row], row, len(self.configs)
                config = candidates.values[row - known] if row >= known else None
        if best == -np.inf:
            if self._state.pending:
                raise UnderWayError("all that is left to train is under way: tell its scores first")
            raise ExhaustedError(
                "there is nothing left to train: every configuration has been trained for all "
                "epochs or given up; continuous=True looks beyond them, `add` gives another"
            )
        if config is not None:
            number = self._adopt(config)
        position = 0 if config is not None else int(remaining[number].argmax())
        self._state.pending.append((number, self._epochs[position].item()))
        self._state.asked += 1
        self._save()
        return self.pending[-1]

    def expected_gain(self, utility: Utility, budget: float) -> float:
        """The gain in the user's utility that is expected of going on (`amt.search.stopping`).

        It is -inf where nothing is left to train within the budget, and inf before the first score.
        Trials under way do not count.

        Args:
            utility: in units of the metric, negated where it is minimised.
            budget: in epochs, or in epochs of mean cost where the sources have costs.
        """
        if not self._state.told:
            return np.inf
        sign = self.outcome.sign
        best = max(sign * metric for *_, metric in self._state.told)
        progress, remaining = self._progress(), self._remaining()
        return self._scorer.gain(progress, remaining, best, budget, utility, self.outcome)

    def should_stop(self, utility: Utility, budget: float) -> bool:
        """Whether going on is expected to cost more than it brings; never of a weight of 0.

        Args:
            utility, budget: of `expected_gain`.
        """
        return utility.weight > 0 and self.expected_gain(utility, budget) <= 0

    def tell(self, number: int, epoch: int, metric: float) -> None:
        """The metric of a configuration after an epoch (one of the sources'), as it was measured.

        A trial that was asked for is under way until it has a score of the epoch asked for or of
        a later one.

        Raises:
            ValueError: no such configuration or epoch, a metric told before, or one that is not
                finite (for a run that diverged, see `fail`).

        Warns:
            UserWarning: the metric is far from all that the sources have.
        """
        where = f"configuration {number}, epoch {epoch}"
        if not 0 <= number < len(self.configs) or epoch not in self._position:
            raise ValueError(
                f"{where} is not on the grid of configurations 0 to {len(self.configs) - 1} and "
                f"epochs {self._epochs[0]} to {self._epochs[-1]}"
            )
        if not np.isfinite(metric):
            raise ValueError(f"the score of {where} is {metric}, not a finite number")
        if any(told[:2] == (number, epoch) for told in self._state.told):
            raise ValueError(f"the score of {where} was told before")
        unexpected = self._sources.unexpected(float(metric))
        if unexpected is not None:
            warnings.warn(f"the score of {where} {unexpected}", stacklevel=2)
        self._state.told.append((int(number), int(epoch), float(metric)))
        self._state.end(number, epoch)
        self._posterior = None
        self._save()

    def fail(self, number: int) -> None:
        """The training of a configuration crashed: it is neither asked for again nor recommended.

        To the model that is a bad last score (`amt.search.failures.failed_score`), from which it
        learns to leave configurations that are like it.

        Raises:
            ValueError: no such configuration.
        """
        self._give_up(self._state.failed, number)

    def stop(self, number: int) -> None:
        """A configuration is to be trained no further; its scores stay, it can be recommended.

        Raises:
            ValueError: no such configuration.
        """
        self._give_up(self._state.stopped, number)

    def add(self, config: Mapping[str, Any]) -> int:
        """The number of a configuration, which becomes a candidate if it was not known before.

        Raises:
            ValueError: it is not legal in the sources' space.
        """
        (config,) = check_configs(self._sources.space, [config])
        key = self._key(config)
        if key not in self._numbers:
            self._adopt(config)
            self._save()
        return self._numbers[key]

    def recommend(self) -> int:
        """The configuration with the best expected metric, at any epoch, that did not fail.

        In task regression, of those with a score, if there is one.

        Raises:
            NothingToRecommendError: there is none in the search space that did not fail.
        """
        excluded = {*self._outside, *self._state.failed}
        if len(excluded) == len(self.configs):
            raise NothingToRecommendError(
                f"there is nothing to recommend: of {len(self.configs)} configurations, "
                f"{len(self._outside)} are outside of the search space and "
                f"{len(excluded) - len(self._outside)} in it failed; ask for another, or add one"
            )
        told = {number for number, *_ in self._state.told} - excluded
        if not told or self._settings["model"] != "task_regression":
            told = {*range(len(self.configs))} - excluded
        among = sorted(told)
        scores = best_expected_score(self.posterior().of(among), self.outcome)
        return among[int(scores.argmax())]

    def _trial(self, number: int, epoch: int) -> Trial:
        return Trial(number, dict(self.configs[number]), epoch, self._state.latest(number))

    def _progress(self) -> Progress:
        """The history by positions on the grid."""
        position, last = self._position, len(self._epochs) - 1
        observed = [
            (number, position[epoch], float(self.outcome.forward(metric)))
            for number, epoch, metric in self._state.told
        ]
        if self._state.failed:
            ended = {number for number, epoch, _ in observed if epoch == last}
            bad = failed_score(self._modelled, [score for *_, score in observed])
            observed += [(n, last, bad) for n in self._state.failed if n not in ended]
        return Progress(
            added=self._features[len(self.configs) - len(self._state.added) :],
            observed=observed,
            pending=[(number, position[epoch]) for number, epoch in self._state.pending],
        )

    def _remaining(self) -> Bool[np.ndarray, "config epoch"]:
        """The epochs that each configuration known can be asked for."""
        reached = np.zeros(len(self.configs), int)
        for number, epoch, _ in self._state.told:
            reached[number] = max(reached[number], self._position[epoch] + 1)
        remaining = np.arange(len(self._epochs)) >= reached[:, None]
        under_way = [number for number, _ in self._state.pending]
        remaining[self._outside + self._state.failed + self._state.stopped + under_way] = False
        return remaining

    def _give_up(self, given_up: list[int], number: int) -> None:
        self._require_known(number)
        if number not in given_up:
            given_up.append(int(number))
            self._posterior = None
        self._state.end(number, self._epochs[-1])
        self._save()

    def _require_known(self, number: int) -> None:
        if not 0 <= number < len(self.configs):
            raise ValueError(f"there are configurations 0 to {len(self.configs) - 1}, not {number}")

    def _key(self, config: Mapping[str, Any]) -> Hashable:
        return config_key(self._sources.space, config)

    def _append(self, config: Mapping[str, Any]) -> None:
        self._numbers.setdefault(self._key(config), len(self.configs))
        self.configs += (dict(config),)
        self._features = np.concatenate([self._features, self._encode([config])])

    def _adopt(self, config: Mapping[str, Any]) -> int:
        (config,) = check_configs(self._sources.space, [dict(config)])
        self._append(config)
        self._state.added.append(config)
        self._posterior = None
        return len(self.configs) - 1

    def _save(self) -> None:
        if self._path is not None:
            write(self._path, Saved(self._settings, self._state, arrays_of(self.fit)))


def _require_live(options: Mapping[str, Any]) -> None:
    """Raise an error unless a tuner can fit with these options by itself."""
    name = options.get("inference")
    if name in INFERENCE and not INFERENCE[name].live:
        raise ValueError(f"{name}: give what fit_sources made of it as `fit`")
    for own in ("solver", "mesh"):
        if own in options:
            raise ValueError(f"a {own} of your own: give what fit_sources made with it as `fit`")
