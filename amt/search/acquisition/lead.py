"""Expected lead over the best of the others."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from amt.gp.observations import TargetPosterior
from amt.search.acquisition.base import Values
from amt.search.acquisition.improvement import log_improvement


def expected_lead(
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    incumbent: Float[Array, ""],
) -> Values:
    r"""\(\log E[\max(f(c, e_c) - \max_{c' \ne c} \mu(c', e_{c'}), 0)]\), e_c of the largest mean.

    How far c is expected to be ahead of the best of the others: improvement is over what is
    expected of them, not over scores observed, as a configuration that was trained for a few epochs
    is worth what it will reach. The leader is compared with the second. Of a mixture, it is that of
    the normal marginals with its mean and variance.

    ```python
    tuner = amt.Tuner(sources, 0)  # of task regression; of other models: acquisition="lead"
    ```

    Source: Jones, Schonlau, Welch (1998), equation 15, with the posterior mean as in Frazier,
    Powell, Dayanik (2009), The Knowledge-Gradient Policy for Correlated Normal Beliefs.
    """
    del incumbent
    posterior = posterior.matched()
    at = jnp.arange(len(remaining)), jnp.argmax(posterior.mean, axis=1)
    mean = posterior.mean[at]
    second, first = jnp.sort(jnp.append(mean, -jnp.inf))[-2:]
    # One configuration alone leads whatever it scores.
    other = jnp.where(mean == first, jnp.where(jnp.isfinite(second), second, mean), first)
    value = log_improvement(mean, posterior.variance[at], other)
    return jnp.where(remaining.any(1), value, -jnp.inf)
