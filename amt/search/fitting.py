"""Fit a model to source tasks, and condition it on them.

There are two models: "task_regression" (`amt.gp.task_regression`), which sees accuracies through
the arcsine of their square root and fills in curves that are not complete, and "multi_task"
(`amt.gp.model.MultiTaskGP`), with kernels on all three axes, which sees scores as they are.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import PRNGKeyArray

from amt.compilation import quick_jit
from amt.curves import LearningCurves
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP, fidelity_rank, select_solver
from amt.gp.observations import SourcePosterior
from amt.gp.solvers import AbstractSolver
from amt.gp.task_regression.completion import complete
from amt.gp.task_regression.model import TaskRegression
from amt.gp.task_regression.posterior import TaskRegressionPosterior
from amt.inference import INFERENCE, Fit, Fitted
from amt.inference.mle import Optimizer
from amt.inference.svgp import PRESETS
from amt.inference.task_regression import TaskRegressionFit, fit_task_regression
from amt.kernels import KERNELS
from amt.outcome import ArcsineOutcome
from amt.parameters import stack
from amt.space import Encoder

Model = TypeVar("Model")

_COUNTS = (
    *("restarts", "steps", "map_steps", "epochs", "passes", "num_inducing", "batch_size"),
    *("chains", "draws", "thinning", "kept", "largest"),
)
_CHOICES: dict[str, tuple[str, ...]] = {"optimizer": get_args(Optimizer), "preset": (*PRESETS,)}


MODELS: dict[str, type[TaskRegression] | type[MultiTaskGP]] = {
    "task_regression": TaskRegression,
    "multi_task": MultiTaskGP,
}

DEFAULT_MODEL = "task_regression"


def require_model(model: str) -> str:
    """The name of a model, as it is.

    Raises:
        KeyError: there is none of that name; the message lists those there are.
    """
    if model not in MODELS:
        raise KeyError(f"no model {model!r}; there are {', '.join(MODELS)}")
    return model


def model_of(fit: Fitted) -> str:
    """The name of the model that was fitted."""
    return "task_regression" if isinstance(fit, TaskRegressionFit) else "multi_task"


def as_modelled(curves: LearningCurves, model: str) -> LearningCurves:
    """The learning curves with the scores that a model sees."""
    if model == "task_regression" and curves.within_unit:
        return curves.with_outcome(ArcsineOutcome())
    return curves


def source_grid(curves: LearningCurves, model: str, dtype: DTypeLike = jnp.float64) -> CurveGrid:
    """Sources as a model takes them, which sees their scores (`as_modelled`)."""
    grid = CurveGrid.of(curves, dtype)
    if model != "task_regression" or grid.complete:
        return grid
    scores, variance = complete(curves.scores, curves.features, curves.epochs / curves.epochs[-1])
    dtype = grid.scores.dtype
    return CurveGrid(
        jnp.asarray(scores, dtype),
        grid.features,
        grid.epochs,
        variance=jnp.asarray(variance, dtype),
    )


def as_key(key: PRNGKeyArray | int) -> PRNGKeyArray:
    """A key of random numbers, made of its seed if that is given.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return jax.random.key(int(key))
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if isinstance(key, jax.Array) and key.dtype == jnp.uint32:  # of jax.random.PRNGKey
        return jax.random.wrap_key_data(key)
    raise TypeError(f"key must be a key, such as jax.random.key(0), or a seed, not {key!r}")


def check_options(
    *,
    model: str = DEFAULT_MODEL,
    inference: str | None = None,
    kernels: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Refuse options of `fit_sources` that it does not have, in one line that names them.

    Raises:
        KeyError: no such model, inference or kernel; the message lists those there are.
        ValueError: no such option, or a value that it cannot have.
    """
    names = [name for name in _keywords(MODELS[require_model(model)].init) if name != "dtype"]
    if kernels is not None and not isinstance(kernels, dict):
        raise ValueError(f"kernels must be names by axis, {{'config': 'matern'}}, not {kernels!r}")
    for axis, name in (kernels or {}).items():
        if axis not in names:
            raise ValueError(f"kernels has no {axis!r}; there are {', '.join(names)}")
        if axis in KERNELS and name is not None and name not in KERNELS[axis]:
            known = ", ".join(KERNELS[axis])
            raise KeyError(f"no {axis} kernel {name!r}; there are {known}")
    if model == "task_regression":
        known = (*_keywords(fit_task_regression), "restarts")
    else:
        model = "mle" if inference is None else inference
        if model not in INFERENCE:
            raise KeyError(f"no inference {model!r}; there are {', '.join(INFERENCE)}")
        known = (*INFERENCE[model].options, "restarts", "solver")
    for option, value in options.items():
        if option not in known:
            there = ", ".join(("kernels", *known))
            raise ValueError(f"no option {option!r} of {model}; there are {there}")
        choices = _CHOICES.get(option)
        if choices is not None and value not in choices:
            raise ValueError(f"{option} must be {' or '.join(choices)}, not {value!r}")
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if option in _COUNTS and value is not None and not (whole and value >= 1):
            raise ValueError(f"{option} must be a whole number from 1, not {value!r}")


def _keywords(function: Callable[..., Any]) -> list[str]:
    """The names of a function's keyword-only parameters."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def fit_sources(
    sources: LearningCurves,
    key: PRNGKeyArray | int,
    *,
    model: str = DEFAULT_MODEL,
    restarts: int = 1,
    dtype: DTypeLike = jnp.float64,
    kernels: dict[str, Any] | None = None,
    inference: str | None = None,
    solver: AbstractSolver | None = None,
    **options: Any,
) -> tuple[Any, CurveGrid]:
    """Fit a model to source tasks, from `restarts` starting points.

    Args:
        key: a key, or the seed of one.
        model: a name in `MODELS`.
        kernels: names for the model's `init`, such as `{"config": "matern"}`, of "multi_task" its
            `noise` and `nugget` too.
        inference: of "multi_task", a name in `amt.inference.INFERENCE`; by default "mle".
        solver: of likelihoods, where source curves can be incomplete ("mle", "map"); by default as
            `select_solver` says.
        options: of the inference, such as `steps`; of "task_regression" those of
            `fit_task_regression`.

    Returns:
        The fit (an `amt.inference.Fitted`), and the grid. Without tasks task regression is as it
        starts.

    Raises:
        KeyError: no such model, inference or kernel; the message lists those there are.
        ValueError: an option that there is not, or of another kind (`check_options`); inference or
            a solver, of a model or an inference that has no choice of one; or a search space that
            has constants only.
    """
    check_options(model=model, inference=inference, kernels=kernels, restarts=restarts, **options)
    key = as_key(key)
    if not Encoder(sources.space).num_features:
        names = ", ".join(sources.space)
        raise ValueError(f"the search space has constants only ({names}): nothing to choose from")
    if not sources.num_tasks and model != "task_regression":
        raise ValueError(f"the model {model!r} needs past tasks, and there is none")
    grid = source_grid(as_modelled(sources, model), model, dtype)
    init: Any = MODELS[model].init
    keys = jax.random.split(key, restarts)
    starts = stack([init(sources, k, dtype=dtype, **(kernels or {})) for k in keys])
    if model == "task_regression":
        if inference is not None or solver is not None:
            raise ValueError("a choice of inference and of a solver has model='multi_task' alone")
        if not sources.num_tasks:
            return _nothing_to_fit(starts), grid
        return _fit_regression(starts, grid, **options), grid
    inference = "mle" if inference is None else inference
    method = INFERENCE[inference]
    if solver is not None and not method.incomplete:
        raise ValueError(f"{inference} has no choice of a solver")
    if method.incomplete:
        options["solver"] = select_solver(starts, grid).solver if solver is None else solver
    fit_key = jax.random.fold_in(key, restarts)
    return _fit(method.fit, starts, grid, fit_key, **options), grid


def unfitted(
    sources: LearningCurves,
    key: PRNGKeyArray,
    *,
    model: str = DEFAULT_MODEL,
    dtype: DTypeLike = jnp.float64,
    kernels: dict[str, Any] | None = None,
    **options: Any,
) -> Fit | TaskRegressionFit:
    """A fit of the structure that `fit_sources` gives, by maximum likelihood or a posteriori.

    Arguments are those of `fit_sources`; its solver is the one that is selected.
    """
    del options
    start: Any = MODELS[model].init
    start = start(sources, key, dtype=dtype, **(kernels or {}))
    unknown = jnp.zeros(())
    if model == "task_regression":
        return TaskRegressionFit(start, unknown, unknown, unknown, unknown)
    solver = select_solver(start, CurveGrid.of(sources, dtype)).solver
    return Fit(start, unknown, unknown, unknown, unknown, solver)


def _nothing_to_fit(starts: TaskRegression) -> TaskRegressionFit:
    start = jax.tree.map(lambda leaf: leaf[0], starts)
    steps = jnp.zeros((1, 0))
    return TaskRegressionFit(start, steps, steps, jnp.ones(1, bool), jnp.zeros((), int))


@partial(quick_jit, optimise=False)
def _fit_regression(starts: TaskRegression, grid: CurveGrid, **options: Any) -> TaskRegressionFit:
    return fit_task_regression(starts, grid, **options)


@eqx.filter_jit
def _fit(estimate: Callable[..., Fitted], *args: Any, **options: Any) -> Fitted:
    return estimate(*args, **options)


def source_posterior(fit: Fitted, grid: CurveGrid) -> SourcePosterior:
    """Condition a fit on the source curves, with as many eigenvalues as the fidelity has."""
    if isinstance(fit, TaskRegressionFit):
        return _regression_posterior(fit, grid)
    return _posterior(fit, grid, fidelity_rank(fit.model, grid))


@partial(quick_jit, optimise=False)
def _regression_posterior(fit: TaskRegressionFit, grid: CurveGrid) -> TaskRegressionPosterior:
    return fit.posterior(grid)


@eqx.filter_jit
def _posterior(fit: Fitted, grid: CurveGrid, rank: int) -> SourcePosterior:
    return fit.posterior(grid, rank)
