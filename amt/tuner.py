"""The tuning loop, one query at a time.

`suggest`, `recommend` and `incumbent` are pure functions of a posterior and the observations; the
closed loop in `amt.simulate` scans over them, and `Tuner` is the same loop turned inside out, for
a real search: ask for a configuration, train it for one more epoch, tell its score.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from tinygp.kernels import Kernel

from amt.acquisition import Acquisition, upper_confidence_bound
from amt.curves import LearningCurves
from amt.gp.conditional import Observations, SourcePosterior, TargetPosterior, numerical_rank
from amt.inference import Fit, fit_mle
from amt.model import CurveGrid, MultiTaskGP


class Query(NamedTuple):
    """A configuration and the epoch to train it for, both as positions on the grid."""

    config: Int[Array, ""]
    epoch: Int[Array, ""]


def incumbent(observations: Observations, posterior: TargetPosterior) -> Float[Array, ""]:
    """The best score observed, or before there is one the largest posterior mean at the end."""
    observed = jnp.max(jnp.where(observations.mask, observations.score, -jnp.inf))
    return jnp.where(observations.count > 0, observed, jnp.max(_mean(posterior)[:, -1]))


def suggest(
    posterior: TargetPosterior,
    observations: Observations,
    remaining: Bool[Array, "config epoch"],
    acquisition: Acquisition,
) -> Query:
    """The configuration of largest acquisition value, and its first remaining epoch.

    Acquisition values are averaged over the draws of an `Ensemble`'s posterior (Snoek, Larochelle,
    Adams 2012, section 3.2).

    Source: Xiao, Xing, Neiswanger (2021), algorithm 1.
    """
    best = incumbent(observations, posterior)
    if posterior.mean.ndim == 2:
        values = acquisition(posterior, remaining, best)
    else:
        values = jax.vmap(lambda draw: acquisition(draw, remaining, best))(posterior).mean(0)
    config = jnp.argmax(values)
    return Query(config, jnp.argmax(remaining[config]))


def recommend(posterior: TargetPosterior) -> Int[Array, ""]:
    """The configuration with the largest posterior mean at any epoch."""
    return jnp.argmax(jnp.max(_mean(posterior), axis=1))


def _mean(posterior: TargetPosterior) -> Float[Array, "config epoch"]:
    return jnp.mean(posterior.mean, axis=tuple(range(posterior.mean.ndim - 2)))


def stack(models: list[Any]) -> Any:
    """Models of the same structure as one, with a leading axis; for `fit_mle` and `jax.vmap`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)


def fit_sources(
    sources: LearningCurves,
    key: PRNGKeyArray,
    *,
    restarts: int = 1,
    dtype: DTypeLike = jnp.float64,
    kernels: dict[str, str] | None = None,
    **options: Any,
) -> tuple[Fit, CurveGrid]:
    """Learn a model from source tasks, from `restarts` starting points.

    Args:
        kernels: names for `MultiTaskGP.init`, such as `{"config": "matern"}`.
        options: of `fit_mle`.
    """
    grid = CurveGrid.of(sources, dtype)
    starts = [
        MultiTaskGP.init(sources, k, dtype=dtype, **(kernels or {}))
        for k in jax.random.split(key, restarts)
    ]
    return _fit(stack(starts), grid, **options), grid


_fit = eqx.filter_jit(fit_mle)


@eqx.filter_jit
def _condition(source: SourcePosterior, observations: Observations) -> TargetPosterior:
    return source.condition(observations)


@eqx.filter_jit
def _suggest(posterior, observations, remaining, acquisition):
    return suggest(posterior, observations, remaining, acquisition)


class Tuner:
    """Ask which configuration to train for one more epoch, and tell what came of it.

    ```python
    tuner = amt.Tuner(sources, jax.random.key(0))
    for _ in range(100):
        config, epoch = tuner.ask()
        tuner.tell(config, epoch, train_one_more_epoch(tuner.configs[config]))
    best = tuner.configs[tuner.recommend()]
    ```

    The model is learned once, from the sources; every score told updates the similarity of the
    target to each source and the posterior, exactly. `ask` changes nothing: asked twice, it
    answers the same.

    Args:
        sources: past tasks, with complete curves; their configurations are the candidates.
        key: for the starting points of the fit.
        acquisition: see `amt.acquisition`.
        fit: a model fitted before to these sources, instead of a new fit.
        options: of `fit_sources`.

    Attributes:
        configs: the candidate configurations, which `ask`, `tell` and `recommend` number from 0.
        fit: how the fit went.
    """

    def __init__(
        self,
        sources: LearningCurves,
        key: PRNGKeyArray,
        *,
        acquisition: Acquisition = upper_confidence_bound,
        fit: Fit | None = None,
        dtype: DTypeLike = jnp.float64,
        **options: Any,
    ):
        if fit is None:
            fit, grid = fit_sources(sources, key, dtype=dtype, **options)
        else:
            grid = CurveGrid.of(sources, dtype)
        self.fit = fit
        self.configs = sources.configs
        self._position = {epoch: index for index, epoch in enumerate(sources.epochs.tolist())}
        self._epochs = sources.epochs
        self._acquisition = acquisition
        self._source = eqx.filter_jit(MultiTaskGP.source_posterior)(
            fit.model, grid, rank=fidelity_rank(fit.model, grid)
        )
        self._remaining = np.ones(sources.scores.shape[1:], bool)
        self._observations = Observations.empty(64, grid.scores.dtype)
        self._posterior: TargetPosterior | None = None

    def posterior(self) -> TargetPosterior:
        """Mean and variance of the target's noise-free score on the whole grid."""
        if self._posterior is None:
            posterior = _condition(self._source, self._observations)
            if not jnp.isfinite(posterior.variance).all():
                raise FloatingPointError(
                    "the posterior is not finite: the task kernel and the target are not "
                    "positive semi-definite together; use psd='project'"
                )
            self._posterior = posterior
        return self._posterior

    def ask(self) -> tuple[int, int]:
        """The configuration to train next, and the epoch (one of the sources') up to which.

        Raises:
            StopIteration: every configuration has been trained for all epochs.
        """
        if not self._remaining.any():
            raise StopIteration("every configuration has been trained for all epochs")
        query = _suggest(self.posterior(), self._observations, self._remaining, self._acquisition)
        return int(query.config), self._epochs[query.epoch].item()

    def tell(self, config: int, epoch: int, score: float) -> None:
        """The score of a configuration after an epoch (one of the sources'), in any order.

        Raises:
            ValueError: no such configuration or epoch, a score told before, or one that is not
                finite.
        """
        where = f"configuration {config}, epoch {epoch}"
        if not 0 <= config < len(self.configs) or epoch not in self._position:
            raise ValueError(
                f"{where} is not on the grid of configurations 0 to {len(self.configs) - 1} and "
                f"epochs {self._epochs[0]} to {self._epochs[-1]}"
            )
        position = self._position[epoch]
        if not np.isfinite(score):
            raise ValueError(f"the score of {where} is {score}, not a finite number")
        if not self._remaining[config, position]:
            raise ValueError(f"the score of {where} was told before")
        capacity = len(self._observations.score)
        if int(self._observations.count) == capacity:
            self._observations = self._observations.padded(2 * capacity)
        self._observations = self._observations.append(config, position, score)
        self._remaining[config, position] = False
        self._posterior = None

    def recommend(self) -> int:
        """The configuration with the largest posterior mean."""
        return int(recommend(self.posterior()))


def fidelity_rank(model: MultiTaskGP, grid: CurveGrid, *, multiple: int = 4) -> int:
    """Numerical rank of the fidelity kernel, rounded up so that few ranks need compiling.

    Of models and grids stacked along a leading axis, the largest.
    """
    gram = np.asarray(_fidelity_gram(model.fidelity, grid.epochs))
    rank = numerical_rank(gram)
    return min(-(-rank // multiple) * multiple, gram.shape[-1])


@eqx.filter_jit
def _fidelity_gram(kernel: Kernel, epochs: Float[Array, "*batch epoch"]) -> Array:
    gram = lambda kernel, epochs: kernel(epochs, epochs)  # noqa: E731
    return (jax.vmap(gram) if epochs.ndim > 1 else gram)(kernel, epochs)
