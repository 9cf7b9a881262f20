"""Expected improvement of the score at the most promising epoch left, and its logarithm."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from amt.gp.observations import TargetPosterior
from amt.search.acquisition.base import Values
from amt.search.acquisition.improvement import log_improvement


def log_remaining_improvement(
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    incumbent: Float[Array, ""],
) -> Values:
    r"""\(\max_e \log E[\max(f(c, e) - f^\dagger, 0)]\) over the remaining epochs e of c.

    A curve that falls in the end is worth its peak. Each term is
    \(\log \sigma + \log h(z)\), \(z = (\mu - f^\dagger) / \sigma\), as in
    `log_expected_improvement`.

    ```python
    tuner = amt.Tuner(sources, 0, acquisition="log_ei_remaining")
    ```

    Source: Ament, Daulton, Eriksson, Balandat, Bakshy (2023), Unexpected Improvements to Expected
    Improvement for Bayesian Optimization, equation 9; Xiao, Xing, Neiswanger (2021), section 4.4,
    for the largest over epochs.
    """
    value = log_improvement(posterior.mean, posterior.variance, incumbent)
    return jnp.max(jnp.where(remaining, value, -jnp.inf), axis=1)


def remaining_improvement(
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    incumbent: Float[Array, ""],
) -> Values:
    r"""\(\max_e E[\max(f(c, e) - f^\dagger, 0)]\) over the remaining epochs e of c.

    The exponential of `log_remaining_improvement`: 0 where that underflows.

    ```python
    tuner = amt.Tuner(sources, 0, acquisition="ei_remaining")
    ```

    Source: Jones, Schonlau, Welch (1998), Efficient Global Optimization of Expensive Black-Box
    Functions, equation 15.
    """
    value = log_remaining_improvement(posterior, remaining, incumbent)
    return jnp.where(remaining.any(1), jnp.exp(value), -jnp.inf)
