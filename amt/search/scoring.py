"""Acquisition values of configurations by their features, with arrays of few shapes.

A function is compiled anew for every shape. So that a search needs few of them, observations and
configurations are padded: to the room that there is from the start, then to powers of 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from amt.compilation import quick_jit
from amt.gp.grid import CurveGrid
from amt.gp.observations import Observations, SourcePosterior, TargetPosterior
from amt.gp.task_regression.final_scores import final_scores_given
from amt.gp.task_regression.posterior import TaskRegressionPosterior
from amt.gp.task_regression.target import predicted_epochs
from amt.outcome import Outcome
from amt.search.acquisition import Acquisition, needs
from amt.search.rule import acquisition_values
from amt.search.stopping import Utility, expected_gains, expected_improvement

SMALLEST_ROOM = 16  # that an array without room from the start has for its first entry


class Room(NamedTuple):
    """The number of entries that padded arrays have room for from the start.

    Attributes:
        added: configurations off the grid that can have observations.
        fresh: other candidates.
        observed: observations.
        pending: evaluations under way.
    """

    added: int
    fresh: int
    observed: int = 64
    pending: int = 0


class Progress(NamedTuple):
    """The state of a search on a target.

    Attributes:
        added: features of the configurations that count behind those of the grid.
        observed: (configuration, epoch, score), the first two by position.
        pending: (configuration, epoch) of the evaluations under way.
    """

    added: Float[np.ndarray, "added feature"]
    observed: Sequence[tuple[int, int, float]]
    pending: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Scorer:
    """The posterior and the acquisition values of a search, which arrays of a few shapes give.

    Attributes:
        source: conditioned on the sources.
        grid: their curves.
        acquisition: see `amt.search.acquisition`.
        room: of the arrays.
        cost: of each epoch of the grid's configurations by itself (`amt.search.cost`).
        by_cost: whether values are per unit of it.
    """

    source: SourcePosterior
    grid: CurveGrid
    acquisition: Acquisition
    room: Room
    cost: Float[np.ndarray, "config epoch"]
    by_cost: bool = False

    def posterior(self, progress: Progress) -> TargetPosterior:
        """The posterior of the grid's configurations and those added, given what was observed.

        Raises:
            FloatingPointError: it is not finite.
        """
        added = self._features(progress.added, self.room.added)
        posterior = condition(self.source, added, self._observations(progress))
        require_finite(jnp.isfinite(posterior.variance).all())
        return posterior.of(range(len(self.grid.features) + len(progress.added)))

    def similarity(
        self, progress: Progress
    ) -> tuple[Float[Array, "component task"], Float[Array, "component task"]]:
        """Mean and standard deviation of the weights of the sources, under task regression.

        Raises:
            ValueError: the model is another one.
        """
        if not isinstance(self.source, TaskRegressionPosterior):
            raise ValueError("weights of past tasks has the model 'task_regression' alone")
        added = self._features(progress.added, self.room.added)
        return similarity(self.source, added, self._observations(progress))

    def values(
        self,
        progress: Progress,
        fresh: Float[np.ndarray, "fresh feature"],
        remaining: Bool[np.ndarray, "row epoch"],
        key: PRNGKeyArray,
    ) -> Float[np.ndarray, "row"]:
        """The acquisition value of every configuration: the grid's, those added, the fresh ones.

        Evaluations under way count as in `AbstractSourcePosterior.condition`. Task regression
        predicts the epochs of `predicted_epochs` alone.

        Args:
            fresh: features of candidates that are not known yet.
            remaining: the epochs of each configuration that can be trained.
            key: of functions that are random; equal keys give equal draws of equal rows.

        Raises:
            FloatingPointError: the posterior is not finite.
            ValueError: the function needs what the model does not have.
        """
        room, size = self.room, len(self.grid.features)
        added = self._features(progress.added, room.added)
        candidates = self._features(fresh, room.fresh)
        under_way = [(*at, 0.0) for at in progress.pending]
        first = size + len(added)
        rows = np.r_[: size + len(progress.added), first : first + len(fresh)]
        of_rows = np.zeros((first + len(candidates), remaining.shape[1]), bool)
        of_rows[rows] = remaining
        kept = self._predicted
        compute = candidate_values if kept is None else quick_candidate_values
        values, finite = compute(
            self.source,
            added,
            candidates,
            self._observations(progress),
            Observations.of(under_way, padded_size(len(under_way), room.pending), self._dtype),
            of_rows if kept is None else of_rows[:, kept],
            self.acquisition,
            kept,
            key if needs(self.acquisition, "key") else None,
            jnp.asarray(self.cost, self._dtype) if self.by_cost else None,
        )
        require_finite(finite)
        return np.asarray(values)[rows]

    def gain(
        self,
        progress: Progress,
        remaining: Bool[np.ndarray, "row epoch"],
        best: float,
        budget: float,
        utility: Utility,
        outcome: Outcome,
    ) -> float:
        """The expected gain in utility of going on (`amt.search.stopping`).

        Args:
            remaining: the epochs of each configuration, the grid's and those added, to be trained.
            best: the best metric so far, negated where it is minimised.
            budget: in epochs of mean cost.
            outcome: from the metric to the scores.
        """
        added = self._features(progress.added, self.room.added)
        trained, left = np.zeros(
            (2, len(self.grid.features) + len(added), remaining.shape[1]), bool
        )
        left[: len(remaining)] = remaining
        for config, epoch, _ in progress.observed:
            trained[config, : epoch + 1] = True
        gain = gain_of(
            self.source,
            added,
            self._observations(progress),
            jnp.asarray(self.cost, self._dtype),
            trained,
            left,
            jnp.asarray([best, budget, *utility], self._dtype),
            outcome,
            self._predicted,
        )
        return float(gain)

    @property
    def _predicted(self) -> Int[np.ndarray, "kept"] | None:
        """Positions of the epochs that values are computed from; None for all."""
        if not isinstance(self.source, TaskRegressionPosterior):
            return None
        return predicted_epochs(len(self.grid.epochs))

    @property
    def _dtype(self) -> jnp.dtype:
        return self.grid.scores.dtype

    def _features(
        self, features: Float[np.ndarray, "row feature"], least: int
    ) -> Float[Array, "padded feature"]:
        """Features padded by those of the first configuration."""
        # By NumPy, as JAX compiles anew for each number of features.
        rows = np.repeat(np.asarray(self.grid.features[:1]), padded_size(len(features), least), 0)
        rows[: len(features)] = features
        return jax.device_put(rows)

    def _observations(self, progress: Progress) -> Observations:
        size = padded_size(len(progress.observed), self.room.observed)
        return Observations.of(progress.observed, size, self._dtype)


@eqx.filter_jit
def condition(
    source: SourcePosterior,
    added: Float[Array, "added feature"],
    observations: Observations,
) -> TargetPosterior:
    """The target's posterior at the grid's configurations and those added."""
    return source.condition(observations, added)


@eqx.filter_jit
def similarity(
    source: TaskRegressionPosterior,
    added: Float[Array, "added feature"],
    observations: Observations,
) -> tuple[Float[Array, "component task"], Float[Array, "component task"]]:
    """Mean and standard deviation of the sources' weights."""
    return source.similarity(observations, added)


def _candidate_values(
    source: SourcePosterior,
    added: Float[Array, "added feature"],
    candidates: Float[Array, "candidate feature"],
    observations: Observations,
    pending: Observations,
    remaining: Bool[np.ndarray, "row epoch"],
    acquisition: Acquisition,
    epochs: Int[np.ndarray, "kept"] | None,
    key: PRNGKeyArray | None,
    cost: Float[Array, "config epoch"] | None,
) -> tuple[Float[Array, "row"], Bool[Array, ""]]:
    """Acquisition values of grid, added and candidates, and whether the posterior is finite."""
    off_grid = jnp.concatenate([added, candidates])
    posterior = source.condition(
        observations, off_grid, pending, observable=len(added), **_only(epochs)
    )
    given: dict[str, Any] = {"key": key}
    if needs(acquisition, "final") and isinstance(source, TaskRegressionPosterior):
        prior = source.prior
        if source.off_grid is not None and len(off_grid):
            prior = source.off_grid.joined(prior, off_grid, None)
        kept = None if epochs is None else jnp.asarray(epochs)
        given["final"] = final_scores_given(prior, posterior, observations, pending, kept)
    if cost is not None:
        every = _cost_behind(source, cost, off_grid)
        given["cost"] = every if epochs is None else every[:, epochs]
    left = jnp.asarray(remaining)
    values = acquisition_values(posterior, observations, left, acquisition, **given)
    return values, jnp.isfinite(posterior.variance).all()


@eqx.filter_jit
def gain_of(
    source: SourcePosterior,
    added: Float[Array, "added feature"],
    observations: Observations,
    cost: Float[Array, "config epoch"],
    trained: Bool[np.ndarray, "row epoch"],
    remaining: Bool[np.ndarray, "row epoch"],
    numbers: Float[Array, "4"],
    outcome: Outcome,
    epochs: Int[np.ndarray, "kept"] | None,
) -> Float[Array, ""]:
    """The expected gain of `Scorer.gain`; its numbers are best, budget, weight and power."""
    best, budget, weight, power = numbers
    posterior = source.condition(observations, added, **_only(epochs))
    every = _cost_behind(source, cost, added)
    spent = jnp.sum(jnp.where(trained, every, 0))
    kept = slice(None) if epochs is None else jnp.asarray(epochs)
    improvement = expected_improvement(posterior, source.noise[..., kept], best, outcome)
    left = jnp.asarray(remaining)
    utilities = [Utility(weight, power)]  # pyright: ignore
    return expected_gains(improvement, left, every, spent, budget, utilities, kept)[0]


def _only(epochs: Int[np.ndarray, "kept"] | None) -> dict[str, Any]:
    """The argument of `condition` for some epochs, which task regression alone has."""
    return {} if epochs is None else {"epochs": epochs}


candidate_values = eqx.filter_jit(_candidate_values)
quick_candidate_values = quick_jit(_candidate_values)


def padded_size(count: int, least: int) -> int:
    """The first of `least` and then of 16, 32, ... or twice `least`, ... with room for `count`."""
    if count > least:
        least = max(least, SMALLEST_ROOM)
        while least < count:
            least *= 2
    return least


def require_finite(finite: Bool[Array, ""]) -> None:
    """Raise an error unless the posterior is finite.

    Raises:
        FloatingPointError: it is not.
    """
    if not finite:
        raise FloatingPointError(
            "the posterior is not finite: the task kernel and the target are not positive "
            "semi-definite together; use psd='project'"
        )


def _cost_behind(
    source: Any, cost: Float[Array, "config epoch"], others: Float[Array, "other feature"]
) -> Float[Array, "both epoch"]:
    """Put the cost of other configurations behind that of those on the grid.

    Its logarithm is interpolated as task regression does scores; with another model, all cost what
    those of the grid do on average.

    Args:
        source: posterior of the sources.
    """
    if not len(others):
        return cost
    weights = jnp.full((len(others), len(cost)), 1 / len(cost), cost.dtype)
    if isinstance(source, TaskRegressionPosterior) and source.off_grid is not None:
        weights = source.off_grid.interpolation.weights(others)
    return jnp.concatenate([cost, jnp.exp(weights @ jnp.log(cost))])
