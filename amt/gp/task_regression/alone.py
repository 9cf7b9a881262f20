r"""How curves of a target differ when no past task says anything about it.

\[ s^2\, (\kappa + R(x, x'))\, V(e, e'), \qquad R(x, x') = r\, k(x, x') + (1 - r)\, 1[x = x'], \]

where k is a Matern-5/2 kernel with one lengthscale for all features, V a `Course`, steady or
growing with training, and \(\kappa\) is for what all configurations share. Without sources all
configurations share another, larger course. The scale s, and which of the two it is, are not known
(`amt.gp.task_regression.mixture`). The other numbers were chosen on training run 0 of HyperRec and
the bundled tasks.
"""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from tinygp.kernels import Constant, Kernel

from amt.gp.task_regression.course import Course
from amt.gp.task_regression.mixture import Components
from amt.gp.task_regression.target import Product, TargetPrior
from amt.gp.task_regression.widening import no_widening
from amt.kernels.config import Matern
from amt.outcome import ArcsineOutcome, Outcome

SHARED = 1.0  # kappa
SMOOTH = 0.86  # r
_ACCURACY = 1.04  # score of 0.74, arcsin(sqrt(0.74)), that is expected of any task
_LENGTHSCALES = {True: 0.5, False: 0.2}  # with and without sources, per root of the features
_COURSES = {"steady": (0.0, 0.7, 3.0), "growing": (0.5, 0.7, 3.0)}  # power, share, lengthscale
_SHARED_COURSE = (0.0, 0.0, 3.0)
_SHARED_SCALE = 0.3  # standard deviation of it


def typical_score(outcome: Outcome | None) -> float:
    """The score that is expected of a task of which nothing is known, by the transform of it."""
    return _ACCURACY if isinstance(outcome, ArcsineOutcome) else 0.0


def kernel(num_features: int, dtype: DTypeLike, *, sources: bool) -> Kernel:
    """The part of kappa + R that different configurations have in common.

    Args:
        sources: whether there are any.
    """
    lengthscale = jnp.full(num_features, _LENGTHSCALES[sources] * num_features**0.5, dtype)
    share, common = (Constant(jnp.asarray(value, dtype)) for value in (SMOOTH, SHARED))
    return common + share * Matern(lengthscale)


def alone(
    features: Float[Array, "config feature"], epochs: Float[Array, "epoch"], *, sources: bool
) -> dict[str, Product]:
    """The steady and the growing covariance for s = 1, the last epoch being 1."""
    dtype = features.dtype
    between = kernel(features.shape[1], dtype, sources=sources)(features, features)
    between += (1 - SMOOTH) * jnp.eye(len(features), dtype=dtype)
    courses = {name: _course(*numbers, dtype=dtype) for name, numbers in _COURSES.items()}
    return {name: Product.of(between, k(epochs, epochs)) for name, k in courses.items()}


def _course(power: float, share: float, lengthscale: float, *, dtype: DTypeLike) -> Course:
    return Course(*(jnp.asarray(value, dtype) for value in (power, share, lengthscale)))


def target_alone(
    features: Float[Array, "config feature"], epochs: Float[Array, "epoch"], level: float
) -> TargetPrior:
    """The prior of a target without any past task.

    Args:
        level: expected score, the same everywhere.
    """
    dtype, shape = features.dtype, (len(features), len(epochs))
    mean = jnp.full(shape, level, dtype)
    shared = _course(*_SHARED_COURSE, dtype=dtype)
    each, nothing = jnp.zeros((shape[0],) * 2, dtype), jnp.zeros((shape[1],) * 2, dtype)
    zero = Product.of(each, nothing)
    return TargetPrior(
        mean=mean,
        typical=mean[0],
        weighted=jnp.zeros((0, *shape), dtype),
        course=_SHARED_SCALE**2 * shared(epochs, epochs),
        error=zero,
        residual=zero,
        own=nothing,
        surface=zero,
        **alone(features, epochs, sources=False),
        noise=jnp.zeros(shape[1], dtype),
        components=Components.of_target_alone(dtype),
        widening=no_widening(dtype),
    )
