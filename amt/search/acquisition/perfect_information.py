"""Value of perfect information about a configuration."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from amt.gp.observations import TargetPosterior
from amt.search.acquisition.base import Values
from amt.search.acquisition.improvement import log_improvement


def value_of_perfect_information(
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    incumbent: Float[Array, ""],
) -> Values:
    r"""The logarithm of how much better a choice is expected to be once f(c) is known.

    With \(\mu_1 \ge \mu_2\) the largest posterior means of all configurations, each at its best
    epoch \(e_c\), it is

    \[ \log E[\max(f(c, e_c) - \mu_1, 0)], \]

    and of the configuration that \(\mu_1\) is of, which is the choice unless it turns out worse,

    \[ \log E[\max(\mu_2 - f(c, e_c), 0)]. \]

    So the leader is trained on while it may not be the best, and not because it is ahead. What is
    expected counts, not scores observed, as a configuration that was trained for a few epochs is
    worth what it will reach. Of a mixture, it is that of the normal marginals with the mean and
    variance of those components that this query trusts (`amt.gp.task_regression.mixture`).

    ```python
    tuner = amt.Tuner(sources, 0)  # of task regression; of other models: acquisition="vpi"
    ```

    Source: Dearden, Friedman, Russell (1998), Bayesian Q-Learning, the myopic value of perfect
    information; the knowledge gradient of Frazier, Powell, Dayanik (2009) for independent
    configurations and observations without noise.
    """
    del incumbent
    posterior = posterior.of_trusted().matched()
    at = jnp.arange(len(remaining)), jnp.argmax(posterior.mean, axis=1)
    mean, variance = posterior.mean[at], posterior.variance[at]
    second, first = jnp.sort(jnp.append(mean, -jnp.inf))[-2:]
    # Of one configuration alone there is no second.
    second = jnp.where(jnp.isfinite(second), second, first)
    leads = mean == first
    # E max(b - f, 0) is E max(f - b, 0) with f mirrored at b.
    distance = jnp.where(leads, second - mean, mean - first)
    value = log_improvement(distance, variance, jnp.zeros((), mean.dtype))
    return jnp.where(remaining.any(1), value, -jnp.inf)
