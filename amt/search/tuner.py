"""The live tuner: ask for a trial, train it for one more epoch, tell its score."""

import copy
import hashlib
import itertools
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from ConfigSpace import Configuration, ConfigurationSpace
from ConfigSpace.hyperparameters import Constant, NumericalHyperparameter
from ConfigSpace.util import get_one_exchange_neighbourhood
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from amt.curves import LearningCurves
from amt.files import atomic_write
from amt.gp.grid import CurveGrid
from amt.gp.mixture import Mixture
from amt.gp.model import MultiTaskGP, select_solver
from amt.gp.observations import Observations, TargetPosterior
from amt.gp.posterior import AbstractSourcePosterior
from amt.inference import Draws, Fit
from amt.search.acquisition import ACQUISITIONS, Acquisition, upper_confidence_bound
from amt.search.fitting import fit_sources, source_posterior
from amt.search.rule import acquisition_values, recommend
from amt.space import Encoder, check_configs, make_configuration


@eqx.filter_jit
def _condition(
    source: AbstractSourcePosterior | Mixture,
    added: Float[Array, "added feature"],
    observations: Observations,
) -> TargetPosterior:
    return source.condition(observations, added)


@eqx.filter_jit
def candidate_values(
    source: AbstractSourcePosterior | Mixture,
    added: Float[Array, "added feature"],
    candidates: Float[Array, "candidate feature"],
    observations: Observations,
    pending: Observations,
    remaining: Bool[Array, "row epoch"],
    acquisition: Acquisition,
) -> tuple[Float[Array, "row"], Bool[Array, ""]]:
    """Acquisition values of grid, added and candidates, and whether the posterior is finite."""
    off_grid = jnp.concatenate([added, candidates])
    posterior = source.condition(observations, off_grid, pending, observable=len(added))
    values = acquisition_values(posterior, observations, remaining, acquisition)
    return values, jnp.isfinite(posterior.variance).all()


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


@dataclass
class _State:
    """What was asked and told, as JSON has it; epochs are those of the sources."""

    added: list[dict[str, Any]] = field(default_factory=list)
    told: list[tuple[int, int, float]] = field(default_factory=list)
    pending: list[tuple[int, int]] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    stopped: list[int] = field(default_factory=list)
    asked: int = 0


class _Candidates(NamedTuple):
    configs: list[Configuration]
    features: Float[np.ndarray, "candidate feature"]


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

    The model is learned once, from the sources; every score told updates the similarity of the
    target to each source and the posterior, exactly. Configurations are numbered: those of the
    sources, then others in the order in which `ask` proposed or `add` gave them.

    Several trials can be under way at once: one that was asked for counts as observed at its
    posterior mean until it is told (`SourcePosterior.condition`), and is not asked for again before
    that. Scores can be told in any order, of any epochs of the sources, and of trials that were
    not asked for.

    Candidates are the configurations known so far, `samples` random ones, and then, `refinements`
    times, as many neighbours of those with the best acquisition values (ConfigSpace's one-exchange
    neighbourhood, which respects conditions and forbidden clauses): the local search of Hutter,
    Hoos, Leyton-Brown (2011), section 4.3. They follow from the key and the number of times asked.

    With `state`, a method that changes something writes it to that file before it returns, and a
    tuner made with the same arguments goes on from there. It is an npz file without pickles: the
    arrays of the fit, and `state` and `settings` as JSON. It is replaced atomically; one process
    at a time can use it.

    Args:
        sources: past tasks, their curves complete or not.
        key: for the starting points of the fit and for candidates.
        space: where to look, by default in the sources' space; it can be narrower, not wider.
        acquisition: see `amt.search.acquisition`.
        fit: what was fitted before to these sources (`fit_sources`), instead of a new fit: the
            fit of "mle" or "map", or draws of "nuts" or "svi", over which acquisition values and
            means are averaged.
        continuous: whether to look beyond the sources' configurations and those added.
        state: the file to go on from, if it is there, and to write.
        options: of `fit_sources`; what is not "mle" or "map" is fitted before, and given as `fit`.

    Attributes:
        configs: the configurations by number.
        fit: how the fit went.

    Raises:
        ValueError: the space is not within the sources', or the file is no state of a tuner, or
            one of other arguments; the message says which.
    """

    def __init__(
        self,
        sources: LearningCurves,
        key: PRNGKeyArray,
        *,
        space: ConfigurationSpace | None = None,
        acquisition: Acquisition = upper_confidence_bound,
        fit: Fit | Draws | None = None,
        dtype: DTypeLike = jnp.float64,
        continuous: bool = True,
        samples: int = 64,
        refinements: int = 1,
        state: str | PathLike[str] | None = None,
        **options: Any,
    ):
        self._grid = CurveGrid.of(sources, dtype)
        self._sources_space, self._encode = sources.space, Encoder(sources.space)
        self._space = copy.deepcopy(sources.space if space is None else space)
        if space is not None:
            _check_within(self._space, sources.space)
        self._acquisition = acquisition
        self._continuous, self._samples, self._refinements = continuous, samples, refinements
        self._epochs = sources.epochs
        self._position = {epoch: index for index, epoch in enumerate(sources.epochs.tolist())}
        self._seed = np.asarray(jax.random.key_data(key)).ravel().tolist()
        self._settings = {
            "sources": _digest(sources.scores, sources.epochs, sources.tasks, sources.configs),
            "space": _digest(str(self._space)),
            "key": self._seed,
            "acquisition": _describe(acquisition),
            "dtype": str(jnp.dtype(dtype)),
            "continuous": continuous,
            "samples": samples,
            "refinements": refinements,
            "options": options,
            "fit": None if fit is None else _digest(*map(np.asarray, _arrays(fit))),
        }
        inference = options.get("inference", "mle")
        if fit is None and inference not in ("mle", "map"):
            raise ValueError(f"{inference}: give what fit_sources made of it as `fit`")
        if fit is not None and not isinstance(fit, Fit | Draws):
            raise ValueError(
                f"a tuner has no use for a {type(fit).__name__}: fit by mle, map, nuts or svi"
            )
        self._path = None if state is None else Path(state)
        self._state = _State()
        if self._path is not None and self._path.exists():
            if fit is None:
                fit = _unfitted(sources, key, dtype, options)
            self._state, fit = self._load(self._path, fit)
        elif fit is None:
            fit, _ = fit_sources(sources, key, dtype=dtype, **options)
        self.fit: Fit | Draws = fit
        self._source = source_posterior(fit, self._grid)
        self.configs: tuple[dict[str, Any], ...] = ()
        self._features = np.zeros((0, self._encode.num_features))
        for config in (*sources.configs, *self._state.added):
            self._append(config)
        legal = [
            space is None or _configuration(space, config) is not None for config in sources.configs
        ]
        self._outside = np.flatnonzero(~np.array(legal)).tolist()
        self._random: tuple[int, _Candidates] | None = None
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
        fit: Fit | Draws | None = None,
    ) -> "Tuner":
        """The tuner of a state file; settings, the key among them, are read from it.

        Args:
            sources, space, fit: as they were given to the constructor.
            acquisition: needed where it is not one of `ACQUISITIONS`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: as for the constructor, or the acquisition function is not known by name.
        """
        settings, _, _ = _read(Path(path))
        name, keywords = settings["acquisition"]
        if acquisition is None:
            if name not in (known := {_describe(a)[0]: a for a in ACQUISITIONS.values()}):
                raise ValueError(f"{path} was made with the acquisition function {name}: give it")
            acquisition = partial(known[name], **keywords) if keywords else known[name]
        return cls(
            sources,
            jax.random.wrap_key_data(jnp.asarray(settings["key"], jnp.uint32)),
            space=space,
            acquisition=acquisition,
            fit=fit,
            state=path,
            **{n: settings[n] for n in ("dtype", "continuous", "samples", "refinements")},
            **settings["options"],
        )

    @property
    def pending(self) -> tuple[Trial, ...]:
        """The trials that were asked for and neither told nor given up."""
        return tuple(self._trial(number, epoch) for number, epoch in self._state.pending)

    @property
    def told(self) -> tuple[tuple[int, int, float], ...]:
        """Configuration, epoch and score of all that was told, in that order."""
        return tuple(self._state.told)

    def posterior(self) -> TargetPosterior:
        """Mean and variance of the target's noise-free score, of all configurations by number.

        With a leading axis of draws if there are several models.
        """
        if self._posterior is None:
            posterior = _condition(
                self._source,
                self._added(),
                self._observations(),
            )
            known = slice(len(self.configs))
            require_finite(jnp.isfinite(posterior.variance).all())
            self._posterior = TargetPosterior(
                posterior.mean[..., known, :],
                posterior.variance[..., known, :],
                posterior.log_weights,
            )
        return self._posterior

    def ask(self) -> Trial:
        """The trial to run next; it is `pending` from now on.

        Raises:
            StopIteration: every configuration has been trained for all epochs or given up.
            RuntimeError: so it is but for those under way.
        """
        added, observations = self._added(), self._observations()
        under_way = [(number, epoch, 0.0) for number, epoch in self._state.pending]
        pending = self._observed(under_way, padded_size(len(under_way), 0))
        reached = self._reached()
        known = len(self._grid.features) + len(added)
        remaining = np.zeros((known, len(self._epochs)), bool)
        remaining[: len(reached)] = np.arange(len(self._epochs)) >= reached[:, None]
        given_up = self._outside + self._state.failed + self._state.stopped
        remaining[[*given_up, *(number for number, _ in self._state.pending)]] = False

        candidates, values = self._sample(), np.zeros(0)
        best, number, config = -np.inf, 0, None
        for refinement in range(1 + self._refinements * self._continuous):
            if refinement:
                candidates = self._neighbours(values, candidates, refinement)
            new = self._find(candidates.features) < 0
            values, finite = candidate_values(
                self._source,
                added,
                jnp.asarray(candidates.features, added.dtype),
                observations,
                pending,
                np.concatenate([remaining, np.repeat(new[:, None], remaining.shape[1], 1)]),
                self._acquisition,
            )
            require_finite(finite)
            values = np.asarray(values)
            row = int(values.argmax())
            if values[row] > best:
                best, number = values[row], row
                config = candidates.configs[row - known] if row >= known else None
        if best == -np.inf:
            if self._state.pending:
                raise RuntimeError("all that is left to train is under way: tell its scores first")
            raise StopIteration("every configuration has been trained for all epochs or given up")
        if config is not None:
            number = self._adopt(config)
        position = reached[number] if number < len(reached) else 0
        self._state.pending.append((number, self._epochs[position].item()))
        self._state.asked += 1
        self._save()
        return self.pending[-1]

    def tell(self, number: int, epoch: int, score: float) -> None:
        """The score of a configuration after an epoch (one of the sources').

        A trial that was asked for is under way until it has a score of the epoch asked for or of
        a later one.

        Raises:
            ValueError: no such configuration or epoch, a score told before, or one that is not
                finite (for a run that diverged, see `fail`).
        """
        where = f"configuration {number}, epoch {epoch}"
        if not 0 <= number < len(self.configs) or epoch not in self._position:
            raise ValueError(
                f"{where} is not on the grid of configurations 0 to {len(self.configs) - 1} and "
                f"epochs {self._epochs[0]} to {self._epochs[-1]}"
            )
        if not np.isfinite(score):
            raise ValueError(f"the score of {where} is {score}, not a finite number")
        if any(told[:2] == (number, epoch) for told in self._state.told):
            raise ValueError(f"the score of {where} was told before")
        self._state.told.append((int(number), int(epoch), float(score)))
        self._give_back(number, epoch)
        self._posterior = None
        self._save()

    def fail(self, number: int) -> None:
        """The training of a configuration crashed: it is neither asked for again nor recommended.

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
        (config,) = check_configs(self._sources_space, [config])
        number = int(self._find(self._encode([config]))[0])
        if number < 0:
            number = self._adopt(config)
            self._save()
        return number

    def recommend(self) -> int:
        """The configuration with the largest posterior mean, of those that did not fail."""
        posterior = self.posterior()
        excluded = jnp.asarray(self._outside + self._state.failed, int)
        mean = posterior.mean.at[..., excluded, :].set(-jnp.inf)
        return int(recommend(posterior._replace(mean=mean)))

    def _trial(self, number: int, epoch: int) -> Trial:
        reached = max((e for n, e, _ in self._state.told if n == number), default=0)
        return Trial(number, dict(self.configs[number]), epoch, reached)

    def _reached(self) -> Int[np.ndarray, "config"]:
        """How many epochs of each configuration are up to its latest one told."""
        reached = np.zeros(len(self.configs), int)
        for number, epoch, _ in self._state.told:
            reached[number] = max(reached[number], self._position[epoch] + 1)
        return reached

    def _give_back(self, number: int, epoch: int) -> None:
        """End a trial under way that was asked for up to `epoch` or less."""
        self._state.pending = [
            trial for trial in self._state.pending if trial[0] != number or trial[1] > epoch
        ]

    def _give_up(self, given_up: list[int], number: int) -> None:
        if not 0 <= number < len(self.configs):
            raise ValueError(f"there are configurations 0 to {len(self.configs) - 1}, not {number}")
        if number not in given_up:
            given_up.append(int(number))
        self._give_back(number, self._epochs[-1])
        self._save()

    def _append(self, config: Mapping[str, Any]) -> None:
        self.configs += (dict(config),)
        self._features = np.concatenate([self._features, self._encode([config])])

    def _adopt(self, config: Mapping[str, Any]) -> int:
        (config,) = check_configs(self._sources_space, [dict(config)])
        self._append(config)
        self._state.added.append(config)
        self._posterior = None
        return len(self.configs) - 1

    def _find(self, features: Float[np.ndarray, "row feature"]) -> Int[np.ndarray, "row"]:
        """Numbers of the configurations with these features, -1 for none."""
        same = (np.abs(features[:, None] - self._features) < 1e-9).all(-1)
        return np.where(same.any(1), same.argmax(1), -1)

    def _added(self) -> Float[Array, "added feature"]:
        """Features of the configurations added, padded to a capacity by those of the first one."""
        count = len(self._state.added)
        capacity = padded_size(count, 16 if self._continuous else 0)
        rows = np.r_[len(self.configs) - count : len(self.configs), np.zeros(capacity - count, int)]
        return jnp.asarray(self._features[rows.astype(int)], self._grid.features.dtype)

    def _observations(self) -> Observations:
        return self._observed(self._state.told, padded_size(len(self._state.told), 64))

    def _observed(self, told: list[tuple[int, int, float]], capacity: int) -> Observations:
        entries = [(number, self._position[epoch], score) for number, epoch, score in told]
        return Observations.of(entries, capacity, self._grid.scores.dtype)

    def _sample(self) -> _Candidates:
        """Random configurations, new ones every 16th time that is asked."""
        if not self._continuous:
            return self._candidates([])
        block = self._state.asked // 16
        if self._random is None or self._random[0] != block:
            self._space.seed(self._random_seed(0, block))
            # A sample of one comes by itself.
            drawn = self._space.sample_configuration(self._samples + 1)[: self._samples]
            self._random = block, self._candidates(drawn)
        return self._random[1]

    def _neighbours(
        self, values: Float[np.ndarray, "row"], candidates: _Candidates, refinement: int
    ) -> _Candidates:
        """As many as there are candidates, of the four rows of the largest values."""
        known = len(values) - len(candidates.features)
        neighbours, share = [], -(-self._samples // 4)
        for place, row in enumerate(np.argsort(-values, kind="stable")[:4]):
            if row >= known:
                center = candidates.configs[row - known]
            else:
                center = _configuration(self._space, self.configs[row])
            if center is not None and values[row] > -np.inf:
                seed = self._random_seed(1, self._state.asked, refinement, place)
                around = get_one_exchange_neighbourhood(center, seed=seed)
                neighbours.extend(itertools.islice(around, share))
        return self._candidates(neighbours[: self._samples])

    def _random_seed(self, *stream: int) -> int:
        return int(np.random.default_rng([*self._seed, *stream]).integers(2**31))

    def _candidates(self, configs: list[Configuration]) -> _Candidates:
        """With their features, padded to `samples` rows by those of a known configuration."""
        features = np.repeat(self._features[:1], self._samples * self._continuous, 0)
        if configs:
            features[: len(configs)] = self._encode(_plain(self._space, configs))
        return _Candidates(configs, features)

    def _save(self) -> None:
        if self._path is None:
            return
        content = {
            "state": np.array(json.dumps(asdict(self._state))),
            "settings": np.array(json.dumps(self._settings)),
            **{f"fit{index}": np.asarray(leaf) for index, leaf in enumerate(_arrays(self.fit))},
        }
        atomic_write(self._path, lambda file: np.savez(file, **content))

    def _load(self, path: Path, fit: Fit | Draws) -> tuple[_State, Fit | Draws]:
        """The state of a file, and `fit` with the file's arrays."""
        settings, state, leaves = _read(path)
        ours = json.loads(json.dumps(self._settings))
        differing = [name for name in ours if settings.get(name) != ours[name]]
        if differing:
            raise ValueError(f"{path} is the state of a tuner with other {', '.join(differing)}")
        arrays, static = eqx.partition(fit, eqx.is_array_like)
        structure = jax.tree.structure(arrays)
        if structure.num_leaves != len(leaves):
            raise ValueError(f"{path} has the fit of a model with other parameters")
        return state, eqx.combine(jax.tree.unflatten(structure, map(jnp.asarray, leaves)), static)


def _read(path: Path) -> tuple[dict[str, Any], _State, list[np.ndarray]]:
    """Settings, what was asked and told, and the arrays of the fit."""
    try:
        with np.load(path, allow_pickle=False) as file:
            settings, state = (json.loads(str(file[name])) for name in ("settings", "state"))
            leaves = [file[f"fit{index}"] for index in range(len(file.files) - 2)]
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"{path} is not the state of a tuner: {error}") from error
    for name, entries in state.items():
        if name in ("told", "pending"):
            state[name] = [tuple(entry) for entry in entries]
    return settings, _State(**state), leaves


def _arrays(fit: Fit | Draws) -> list[Array]:
    return jax.tree.leaves(eqx.filter(fit, eqx.is_array_like))


def _unfitted(
    sources: LearningCurves, key: PRNGKeyArray, dtype: DTypeLike, options: Mapping[str, Any]
) -> Fit:
    """A fit of the same structure as `fit_sources` gives."""
    model = MultiTaskGP.init(sources, key, dtype=dtype, **(options.get("kernels") or {}))
    return Fit(
        model, *(jnp.zeros(()),) * 4, select_solver(model, CurveGrid.of(sources, dtype)).solver
    )


def padded_size(count: int, least: int) -> int:
    """The first of `least`, twice that, ... with room for `count`; from 16 on where least is 0."""
    if count > least:
        least = max(least, 16)
        while least < count:
            least *= 2
    return least


def require_finite(finite: Bool[Array, ""]) -> None:
    if not finite:
        raise FloatingPointError(
            "the posterior is not finite: the task kernel and the target are not positive "
            "semi-definite together; use psd='project'"
        )


def _describe(acquisition: Acquisition) -> list[Any]:
    """Name and keywords of an acquisition function, under `functools.partial` too."""
    keywords: dict[str, Any] = {}
    function: Any = acquisition
    while isinstance(function, partial):
        keywords, function = function.keywords | keywords, function.func
    return [f"{function.__module__}.{function.__qualname__}", keywords]


def _digest(*content: Any) -> str:
    """SHA-256 of arrays and of what `repr` shows of the rest."""
    digest = hashlib.sha256()
    for item in content:
        array = isinstance(item, np.ndarray)
        digest.update((f"{item.dtype}{item.shape}" if array else repr(item)).encode())
        digest.update(np.ascontiguousarray(item).tobytes() if array else b"")
    return digest.hexdigest()


def _check_within(space: ConfigurationSpace, sources: ConfigurationSpace) -> None:
    """Raises a ValueError that names the hyperparameter of `space` that `sources` do not cover."""
    if set(space) != set(sources):
        differing = ", ".join(sorted(set(space) ^ set(sources)))
        raise ValueError(f"the space and the sources' do not both have {differing}")
    for name, ours in space.items():
        if isinstance(ours, NumericalHyperparameter):
            values = [ours.lower, ours.upper]
        else:
            values = getattr(ours, "choices", None) or getattr(ours, "sequence", None)
        for value in [ours.value] if isinstance(ours, Constant) else values or []:
            if not sources[name].legal_value(value):
                raise ValueError(f"hyperparameter {name!r}: {value!r} is not in the sources' space")
    # Conditions too are such that what is legal here is so there.
    check_configs(sources, map(dict, space.sample_configuration(64)))


def _configuration(space: ConfigurationSpace, config: Mapping[str, Any]) -> Configuration | None:
    """A configuration of the space, None if it is not legal there."""
    try:
        return make_configuration(space, config)
    except (ValueError, KeyError, TypeError):
        return None


def _plain(space: ConfigurationSpace, configs: list[Configuration]) -> list[dict[str, Any]]:
    """As dicts of plain Python values; much faster than one by one."""
    vectors = np.stack([config.get_array() for config in configs])
    plain: list[dict[str, Any]] = [{} for _ in configs]
    for index, hyperparameter in enumerate(space.values()):
        active = np.flatnonzero(~np.isnan(vectors[:, index]))
        values = hyperparameter.to_value(vectors[active, index])
        for row, value in zip(active, values.tolist(), strict=True):
            plain[row][hyperparameter.name] = value
    return plain
