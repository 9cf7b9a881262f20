"""Fit a model to source tasks, and condition it on them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray
from tinygp.kernels import Kernel

from amt.curves import LearningCurves
from amt.gp.grid import CurveGrid
from amt.gp.mixture import Mixture
from amt.gp.model import MultiTaskGP, select_solver
from amt.gp.posterior import AbstractSourcePosterior
from amt.gp.solvers import AbstractSolver
from amt.gp.spectral import numerical_rank
from amt.inference import INFERENCE, Fitted
from amt.inference.mle import Optimizer
from amt.inference.svgp import PRESETS
from amt.kernels import KERNELS
from amt.space import Encoder

Model = TypeVar("Model")

_COUNTS = (
    *("restarts", "steps", "map_steps", "passes", "num_inducing", "batch_size"),
    *("chains", "draws", "thinning", "kept", "largest"),
)
_CHOICES: dict[str, tuple[str, ...]] = {"optimizer": get_args(Optimizer), "preset": (*PRESETS,)}


def stack(models: Sequence[Model]) -> Model:
    """Put models of the same structure along a leading axis; for `fit_mle` and `jax.vmap`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)


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
    *, inference: str = "mle", kernels: dict[str, Any] | None = None, **options: Any
) -> None:
    """Refuse options of `fit_sources` that it does not have, in one line that names them.

    Raises:
        KeyError: no such inference or kernel; the message lists those there are.
        ValueError: no such option, or a value that it cannot have.
    """
    if inference not in INFERENCE:
        raise KeyError(f"no inference {inference!r}; there are {', '.join(INFERENCE)}")
    of_kernels = (*KERNELS, "noise", "nugget")
    if kernels is not None and not isinstance(kernels, dict):
        raise ValueError(f"kernels must be names by axis, {{'config': 'matern'}}, not {kernels!r}")
    for axis, name in (kernels or {}).items():
        if axis not in of_kernels:
            raise ValueError(f"kernels has no {axis!r}; there are {', '.join(of_kernels)}")
        if axis in KERNELS and name not in KERNELS[axis]:
            known = ", ".join(KERNELS[axis])
            raise KeyError(f"no {axis} kernel {name!r}; there are {known}")
    known = (*INFERENCE[inference].options, "restarts", "solver")
    for option, value in options.items():
        if option not in known:
            there = ", ".join(("inference", "kernels", *known))
            raise ValueError(f"no option {option!r} of {inference}; there are {there}")
        choices = _CHOICES.get(option)
        if choices is not None and value not in choices:
            raise ValueError(f"{option} must be {' or '.join(choices)}, not {value!r}")
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if option in _COUNTS and value is not None and not (whole and value >= 1):
            raise ValueError(f"{option} must be a whole number from 1, not {value!r}")


def fit_sources(
    sources: LearningCurves,
    key: PRNGKeyArray | int,
    *,
    restarts: int = 1,
    dtype: DTypeLike = jnp.float64,
    kernels: dict[str, Any] | None = None,
    inference: str = "mle",
    solver: AbstractSolver | None = None,
    **options: Any,
) -> tuple[Any, CurveGrid]:
    """Fit a model to source tasks, from `restarts` starting points.

    Args:
        key: a key, or the seed of one.
        kernels: names for `MultiTaskGP.init`, such as `{"config": "matern"}`, and its `noise` and
            `nugget`.
        inference: a name in `amt.inference.INFERENCE`.
        solver: of likelihoods, where source curves can be incomplete ("mle", "map"); by default as
            `select_solver` says.
        options: of the inference, such as `steps`.

    Returns:
        The fit (an `amt.inference.Fitted`, of "mle" and "map" a `Fit`), and the grid.

    Raises:
        KeyError: no such inference or kernel; the message lists those there are.
        ValueError: an option that there is not, or of another kind (`check_options`); a solver, of
            an inference that has no choice of one; or a search space that has constants only.
    """
    check_options(inference=inference, kernels=kernels, restarts=restarts, **options)
    key = as_key(key)
    method = INFERENCE[inference]
    if not Encoder(sources.space).num_features:
        names = ", ".join(sources.space)
        raise ValueError(f"the search space has constants only ({names}): nothing to choose from")
    if solver is not None and not method.incomplete:
        raise ValueError(f"{inference} has no choice of a solver")
    grid = CurveGrid.of(sources, dtype)
    starts = stack(
        [
            MultiTaskGP.init(sources, k, dtype=dtype, **(kernels or {}))
            for k in jax.random.split(key, restarts)
        ]
    )
    if method.incomplete:
        options["solver"] = select_solver(starts, grid).solver if solver is None else solver
    fit_key = jax.random.fold_in(key, restarts)
    return _fit(method.fit, starts, grid, fit_key, **options), grid


@eqx.filter_jit
def _fit(estimate: Callable[..., Fitted], *args: Any, **options: Any) -> Fitted:
    return estimate(*args, **options)


def source_posterior(fit: Fitted, grid: CurveGrid) -> AbstractSourcePosterior | Mixture:
    """Condition a fit on the source curves, with as many eigenvalues as the fidelity has."""
    return _posterior(fit, grid, fidelity_rank(fit.model, grid))


@eqx.filter_jit
def _posterior(fit: Fitted, grid: CurveGrid, rank: int) -> AbstractSourcePosterior | Mixture:
    return fit.posterior(grid, rank)


def fidelity_rank(model: MultiTaskGP, grid: CurveGrid, *, multiple: int = 4) -> int:
    """Numerical rank of the fidelity kernel, rounded up so that few ranks need compiling.

    Models and grids that are stacked along leading axes share the largest of their ranks; models
    may have more such axes, as draws do.

    Args:
        multiple: what ranks are rounded up to a multiple of.
    """
    batch = model.noise.variance.ndim - 1, grid.epochs.ndim - 1
    gram = np.asarray(_fidelity_gram(model.fidelity, grid.epochs, batch))
    rank = numerical_rank(gram)
    return min(-(-rank // multiple) * multiple, gram.shape[-1])


@partial(jax.jit, static_argnums=2)
def _fidelity_gram(
    kernel: Kernel, epochs: Float[Array, "*batch epoch"], batch: tuple[int, int]
) -> Array:
    gram = lambda kernel, epochs: kernel(epochs, epochs)  # noqa: E731
    for axis in reversed(range(batch[0])):
        gram = jax.vmap(gram, in_axes=(0, 0 if axis < batch[1] else None))
    return gram(kernel, epochs)
