"""The tuner of this library: a model learned from the sources, conditioned on every score.

Before the loop, the model is fitted (`fit`) and conditioned on the sources (`condition`), each a
compiled stage. The loop itself depends on the task kernel and on the shapes alone, so that models
with other kernels share its compilation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from amt.gp.grid import CurveGrid, require_complete
from amt.gp.mixture import Mixture
from amt.gp.model import MultiTaskGP, fidelity_rank
from amt.gp.noise import NoiseKind
from amt.gp.observations import Observations
from amt.gp.posterior import AbstractSourcePosterior
from amt.inference import INFERENCE
from amt.inference.mle import Optimizer
from amt.inference.svgp import PRESETS
from amt.kernels import AT2, KERNELS
from amt.parameters import stack
from amt.search.acquisition import ACQUISITIONS, needs, options_of
from amt.search.simulate import Conditioned, query
from amt.tuners.checks import check_choice, check_positive
from amt.tuners.record import HostProblem, Prepared, Pure, Record, RunStage

Options = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Choices of model, inference and decision rule.

    Attributes:
        task, config, fidelity: kernels, by their names in `amt.KERNELS`.
        noise: kind of `amt.gp.noise.SeparableNoise`.
        nugget: whether every curve has a part of its own (`amt.gp.model.MultiTaskGP`); for
            inference by mle and map.
        inference: a name in `amt.inference.INFERENCE`.
        inference_options: its options, such as `{"steps": 100}`.
        restarts: starting points of the fit.
        acquisition: a name in `amt.ACQUISITIONS`.
        acquisition_options: its options, such as `{"beta": 0.25}`.

    Raises:
        ValueError: a name that is not there (the message lists those there are), or a number out
            of range.
    """

    task: str = AT2[0]
    config: str = AT2[1]
    fidelity: str = AT2[2]
    noise: str = "homoscedastic"
    nugget: bool = False
    inference: str = "mle"
    inference_options: Mapping[str, Any] = field(default_factory=dict)
    restarts: int = 1
    acquisition: str = "ucb"
    acquisition_options: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        for axis, kernels in KERNELS.items():
            check_choice(f"{axis} kernel", getattr(self, axis), kernels)
        check_choice("noise", self.noise, get_args(NoiseKind))
        check_choice("inference", self.inference, INFERENCE)
        check_choice("acquisition", self.acquisition, ACQUISITIONS)
        if needs(ACQUISITIONS[self.acquisition], "final"):
            raise ValueError(f"acquisition {self.acquisition}: only task_regression has it")
        known = {"optimizer": get_args(Optimizer), "preset": tuple(PRESETS)}
        rule = options_of(ACQUISITIONS[self.acquisition])
        for name, there, options in (
            (self.inference, INFERENCE[self.inference].options, self.inference_options),
            (self.acquisition, rule, self.acquisition_options),
        ):
            for option, value in options.items():
                check_choice(f"option of {name}", option, there)
                if option in known:
                    check_choice(option, value, known[option])
        for name in ("steps", "passes", "chains", "draws", "kept"):
            if self.inference_options.get(name) is not None:
                check_positive(name, self.inference_options[name])
        check_positive("restarts", self.restarts)
        check_choice("nugget", self.nugget, (True, False))
        if self.nugget and not INFERENCE[self.inference].nugget:
            raise ValueError(f"{self.inference} knows no nugget: use mle or map")

    @classmethod
    def of(
        cls,
        *,
        kernel: Mapping[str, str] | None = None,
        inference: Mapping[str, Any] | None = None,
        acquisition: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> "Settings":
        """Read the settings of `experiments/conf/at2.yaml`, where options stand beside names."""
        chosen: dict[str, Any] = {**others, **(kernel or {})}
        if inference is not None:
            options = dict(inference)
            chosen |= {"inference": options.pop("name"), "restarts": options.pop("restarts", 1)}
            chosen["inference_options"] = options
        if acquisition is not None:
            options = dict(acquisition)
            chosen |= {"acquisition": options.pop("name"), "acquisition_options": options}
        return cls(**chosen)

    def start(self, problem: HostProblem, key: PRNGKeyArray, dtype: Any) -> MultiTaskGP:
        """Models to start the fit from, stacked along a leading axis."""
        chosen: dict[str, Any] = {axis: getattr(self, axis) for axis in KERNELS}
        chosen |= {"noise": self.noise, "nugget": self.nugget, "dtype": dtype}
        keys = jax.random.split(key, self.restarts)
        return stack([MultiTaskGP.init(problem.sources, k, **chosen) for k in keys])


class Learned(eqx.Module):
    """The sources' posterior, and the number of observations to make room for."""

    source: AbstractSourcePosterior | Mixture
    budget: int = eqx.field(static=True)


def init(key: PRNGKeyArray, learned: Learned) -> Conditioned:
    """Start from the sources' posterior, without observations."""
    del key
    empty = Observations.empty(learned.budget, learned.source.noise.dtype)
    return Conditioned(learned.source, empty)


@cache
def decide(acquisition: Callable[..., Any], options: Options) -> Callable[..., Any]:
    """The step with a decision rule; the same function for the same options."""
    return partial(query, acquisition=partial(acquisition, **dict(options)))


def amt(settings: Settings) -> Pure:
    """The tuner with given settings."""
    estimate = INFERENCE[settings.inference].fit
    options = _hashable(settings.inference_options)
    step = decide(ACQUISITIONS[settings.acquisition], _hashable(settings.acquisition_options))

    def prepare(
        problems: Sequence[HostProblem],
        keys: Sequence[PRNGKeyArray],
        dtype: Any,
        stage: RunStage,
    ) -> Prepared:
        grids = [CurveGrid.of(problem.sources, dtype) for problem in problems]
        for problem, grid in zip(problems, grids, strict=True):
            require_complete(grid, f"an experiment with {problem.name}")
        grids = stack(grids)
        starts = [settings.start(*start, dtype) for start in zip(problems, keys, strict=True)]
        fit_keys = jnp.stack([jax.random.fold_in(key, settings.restarts) for key in keys])
        how = {"estimate": estimate, "options": options}
        fits = stage("fit", _fit, stack(starts), grids, fit_keys, **how)
        rank = fidelity_rank(fits.model, grids)
        sources = stage("condition", _condition, fits, grids, rank=rank)
        fits = jax.tree.map(np.asarray, fits)
        by_problem = [jax.tree.map(lambda leaf, i=i: leaf[i], fits) for i in range(len(problems))]
        diagnostics = [fit.diagnostics() for fit in by_problem]
        return Prepared(Learned(sources, problems[0].budget), diagnostics)

    return Pure(init, step, prepare)


def _fit(starts, grid, key, *, estimate: Callable[..., Any], options: Options):
    return estimate(starts, grid, key, **dict(options))


def _condition(fitted, grid, *, rank: int):
    return fitted.posterior(grid, rank).on_grid()


def _hashable(options: Mapping[str, Any]) -> Options:
    return tuple(sorted(options.items()))


def uses(**chosen: Any) -> list[Any]:
    """The kernels, the inference and the rule that settings name."""
    settings = Settings.of(**chosen)
    kernels = [registered[getattr(settings, axis)] for axis, registered in KERNELS.items()]
    return [*kernels, INFERENCE[settings.inference].fit, ACQUISITIONS[settings.acquisition]]


RECORD = Record(
    name="amt",
    label="amt",
    source="this library; Xiao, Xing, Neiswanger (2021), Amortized Auto-Tuning, for the defaults",
    make=lambda **chosen: amt(Settings.of(**chosen)),
    settings=("kernel", "noise", "nugget", "inference", "acquisition"),
    uses=uses,
)
