"""Thompson sampling of final scores."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from amt.gp.final_scores import FinalScores
from amt.gp.observations import TargetPosterior
from amt.search.acquisition.base import Values


def thompson_sampling(
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    incumbent: Float[Array, ""],
    *,
    final: FinalScores,
    key: PRNGKeyArray,
) -> Values:
    r"""\(\theta_c\), one joint draw of all final scores from the posterior.

    \[ k \sim w, \qquad \theta \sim N(\mu_k, \Sigma_k) , \]

    so that a configuration is trained with the probability that it is the best of those that can
    be. A component k is drawn first, of a mixture.

    ```python
    tuner = amt.Tuner(sources, 0, acquisition="thompson")
    ```

    Source: Thompson (1933), On the Likelihood that One Unknown Probability Exceeds Another in View
    of the Evidence of Two Samples; Russo, Van Roy (2014), Learning to Optimize via Posterior
    Sampling.
    """
    del posterior, incumbent
    return jnp.where(remaining.any(1), final.draws(key, 1)[0], -jnp.inf)
