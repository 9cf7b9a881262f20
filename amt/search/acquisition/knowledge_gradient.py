"""Knowledge gradient of training a configuration to its best epoch."""

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float

from amt.gp.final_scores import FinalScores
from amt.gp.observations import TargetPosterior
from amt.search.acquisition.base import Values
from amt.search.acquisition.improvement import log_h


def log_knowledge_gradient(
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    incumbent: Float[Array, ""],
    *,
    final: FinalScores,
) -> Values:
    r"""\(\log(E[\max_i (\mu_i + s_i Z)] - \max_i \mu_i)\), Z standard normal.

    How much better the best configuration is expected to be thought after the whole of what is left
    of c has been trained, than it is now. The score of c at its best epoch changes the means
    \(\mu_i\) of all final scores by \(s_i Z\),

    \[ s_i = \Sigma_{ic} / \sqrt{\Sigma_{cc} + \sigma^2_c} . \]

    The expectation is exact. With the lines \(\mu_i + s_i z\) on the upper envelope, in the order
    of their slopes, and the points \(z_j\) where one passes into the next, it is

    \[ \sum_j (s_{j+1} - s_j)\, h(-|z_j|), \qquad h(z) = \phi(z) + z \Phi(z) , \]

    whose terms are all positive, so that its logarithm loses nothing. Of a mixture, it is that of
    the normal with its mean and covariance.

    ```python
    tuner = amt.Tuner(sources, 0, acquisition="kg")
    ```

    Source: Frazier, Powell, Dayanik (2009), The Knowledge-Gradient Policy for Correlated Normal
    Beliefs, section 3, equation 14.
    """
    del posterior, incumbent
    mean, covariance, noise = final.matched()
    deviation = jnp.sqrt(jnp.diagonal(covariance) + noise)
    slopes = covariance / deviation[:, None]
    value = jax.lax.map(lambda slope: _log_gain(mean, slope), slopes)
    return jnp.where(remaining.any(1), value, -jnp.inf)


def _log_gain(mean: Float[Array, "config"], slope: Float[Array, "config"]) -> Float[Array, ""]:
    r"""\(\log(E[\max_i (\mu_i + s_i Z)] - \max_i \mu_i)\); the smallest number of a zero."""
    tiny = jnp.finfo(mean.dtype).tiny
    # Where each line (row) meets each other one (column).
    rise = slope - slope[:, None]
    meets = (mean[:, None] - mean) / jnp.where(rise == 0, 1, rise)
    begin = jnp.max(jnp.where(rise < 0, meets, -jnp.inf), axis=1)
    after = jnp.where(rise > 0, meets, jnp.inf)
    end = jnp.min(after, axis=1)
    # The steepest of the lines that pass through the point is the next on the envelope.
    step = jnp.max(jnp.where(after == end[:, None], rise, 0), axis=1)
    higher = (rise == 0) & (mean > mean[:, None])
    first = jnp.argmax((rise == 0) & (mean == mean[:, None]), axis=1) == jnp.arange(len(mean))
    kept = (begin < end) & ~higher.any(1) & first & jnp.isfinite(end)
    point = jnp.where(kept, jnp.abs(end), 1)
    terms = jnp.log(jnp.where(kept, jnp.maximum(step, tiny), 1)) + log_h(-point)
    value = logsumexp(jnp.where(kept, terms, -jnp.inf))
    return jnp.maximum(value, jnp.finfo(mean.dtype).min)
