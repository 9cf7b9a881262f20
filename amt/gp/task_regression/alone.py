r"""How curves of a target differ when no past task says anything about it.

\[ s^2\, (\kappa + R(x, x'))\, \{c + (1 - c)\, (1 - g + g\, (e e')^p)\, m(e, e')\}, \qquad
   R(x, x') = r\, k(x, x') + (1 - r)\, 1[x = x'], \]

where k is a Matern-5/2 kernel with one lengthscale for all features, m one of log epochs, and
\(\kappa\) is for what all configurations share. A share c of the variance lasts from the first
epoch to the last, the rest passes, and a share g of that grows with training. How large curves
differ (s), c, g and the noise depend on the task, and are not known
(`amt.gp.task_regression.mixture`). These, r and the lengthscales were fitted together, for the
largest mixture density of last scores given the starts of ten curves, on training run 0 of the 27
tasks of HyperRec and the 29 bundled ones; \(\kappa\), p and the level were set by hand.
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
SMOOTH = 0.86  # r
_ACCURACY = 1.04  # score of 0.74, arcsin(sqrt(0.74)), that is expected of any task
_LENGTHSCALE = 0.2  # as a share of the root of the number of features
_GROWTH = 0.3  # p
_LENGTHSCALE_EPOCHS = 3.0  # of m, of log epochs


def typical_score(outcome: Outcome | None) -> float:
    """The score that is expected of a task of which nothing is known, by the transform of it."""
    return _ACCURACY if isinstance(outcome, ArcsineOutcome) else 0.0


def kernel(num_features: int, dtype: DTypeLike) -> Kernel:
    """The part of kappa + R that different configurations have in common."""
    lengthscale = jnp.full(num_features, _LENGTHSCALE * num_features**0.5, dtype)
    share, common = (Constant(jnp.asarray(value, dtype)) for value in (SMOOTH, SHARED))
    return common + share * Matern(lengthscale)


def alone(
    features: Float[Array, "config feature"], epochs: Float[Array, "epoch"]
) -> dict[str, Product]:
    """The lasting, passing and growing covariance for s = 1, the last epoch being 1."""
    dtype = features.dtype
    between = kernel(features.shape[1], dtype)(features, features)
    own = (1 - SMOOTH) * jnp.eye(len(features), dtype=dtype)
    courses = {"lasting": (0.0, 1.0), "passing": (0.0, 0.0), "growing": (_GROWTH, 0.0)}
    return {
        name: Product.of(between + own, _course(power, share, dtype)(epochs, epochs))
        for name, (power, share) in courses.items()
    }


def _course(power: float, share: float, dtype: DTypeLike) -> Course:
    return Course(*(jnp.asarray(value, dtype) for value in (power, share, _LENGTHSCALE_EPOCHS)))


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
        **alone(features, epochs),
        noise=jnp.zeros(shape[1], dtype),
        components=Components.of_target_alone(dtype),
    )
