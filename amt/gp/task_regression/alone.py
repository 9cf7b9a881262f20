r"""How curves of a target differ when no past task says anything about it.

\[ s^2\, (\kappa + R(x, x'))\, V(e, e'), \qquad R(x, x') = r\, k(x, x') + (1 - r)\, 1[x = x'], \]

where k is a Matern-5/2 kernel with one lengthscale for all features, V a `Course` and \(\kappa\) is
for what all configurations share. The scale s is not known (`amt.gp.task_regression.mixture`). The
other numbers were chosen on HyperRec and the bundled tasks, where results hardly depend on them:
lengthscales of half and twice as much, r from 0.8 to 1 and \(\kappa\) from 0.5 to 2 change the
regret after 25 and 50 epochs by no more than the start from another configuration does.
"""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from tinygp.kernels import Constant, Kernel

from amt.gp.task_regression.course import Course
from amt.gp.task_regression.mixture import Components
from amt.gp.task_regression.target import Product, TargetPrior
from amt.kernels.config import Matern
from amt.outcome import ArcsineOutcome, Outcome

SHARED = 1.0  # kappa
SMOOTH = 0.9  # r
_ACCURACY = 0.9  # score of 0.61, arcsin(sqrt(0.61)), that is expected of any task
_LENGTHSCALE = 0.5  # as a share of the root of the number of features
_COURSE = (0.05, 0.7, 2.0)  # power, share and lengthscale


def typical_score(outcome: Outcome | None) -> float:
    """The score that is expected of a task of which nothing is known, by the transform of it."""
    return _ACCURACY if isinstance(outcome, ArcsineOutcome) else 0.0


def kernel(num_features: int, dtype: DTypeLike) -> Kernel:
    """The part of kappa + R that different configurations have in common."""
    lengthscale = jnp.full(num_features, _LENGTHSCALE * num_features**0.5, dtype)
    share, common = (Constant(jnp.asarray(value, dtype)) for value in (SMOOTH, SHARED))
    return common + share * Matern(lengthscale)


def alone(features: Float[Array, "config feature"], epochs: Float[Array, "epoch"]) -> Product:
    """The covariance of the module docstring for s = 1, the last epoch being 1."""
    dtype = features.dtype
    between = kernel(features.shape[1], dtype)(features, features)
    course = Course(*(jnp.asarray(value, dtype) for value in _COURSE))
    own = (1 - SMOOTH) * jnp.eye(len(features), dtype=dtype)
    return Product.of(between + own, course(epochs, epochs))


def target_alone(
    features: Float[Array, "config feature"], epochs: Float[Array, "epoch"], level: float
) -> TargetPrior:
    """The prior of a target without any past task.

    Args:
        level: expected score, the same everywhere.
    """
    dtype, shape = features.dtype, (len(features), len(epochs))
    mean = jnp.full(shape, level, dtype)
    each, nothing = jnp.zeros((shape[0],) * 2, dtype), jnp.zeros((shape[1],) * 2, dtype)
    zero = Product.of(each, nothing)
    return TargetPrior(
        mean=mean,
        typical=mean[0],
        weighted=jnp.zeros((0, *shape), dtype),
        course=nothing,
        error=zero,
        residual=zero,
        own=nothing,
        surface=zero,
        alone=alone(features, epochs),
        noise=jnp.zeros(shape[1], dtype),
        components=Components.of_target_alone(dtype),
    )
