"""Top-two Thompson sampling of final scores."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from amt.gp.final_scores import FinalScores
from amt.gp.observations import TargetPosterior
from amt.search.acquisition.base import Values

DRAWS = 32  # of which a challenger is looked for


def top_two_thompson_sampling(
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    incumbent: Float[Array, ""],
    *,
    final: FinalScores,
    key: PRNGKeyArray,
    leader: float = 0.5,
) -> Values:
    r"""A joint draw of all final scores whose best is the leader, or one whose best is another.

    The leader is \(I = \arg\max_c \theta_c\) of a draw \(\theta\) as in `thompson_sampling`. With
    the probability `leader` it is trained: the values are \(\theta\). Else its challenger is: the
    values are the first of further draws \(\theta'\) with \(\arg\max_c \theta'_c \ne I\), or after
    31 without one the last, and that of I is -inf, or the smallest where nothing else is left. So
    it is where I has been trained to the end.
    Thompson sampling trains the best again and again, when it is known to be; top-two sampling
    compares it with what may still beat it.

    ```python
    tuner = amt.Tuner(sources, 0, acquisition="top_two")
    ```

    Source: Russo (2016), Simple Bayesian Algorithms for Best Arm Identification, section 3.3
    (top-two Thompson sampling; beta is `leader`), with a bound on its draws.
    """
    del posterior, incumbent
    of_draws, of_coin = jax.random.split(key)
    draws = final.draws(of_draws, DRAWS)
    best = jnp.argmax(draws, axis=1)
    differs = (best != best[0]).at[-1].set(True)
    can = remaining.any(1)
    leads = jax.random.bernoulli(of_coin, leader) & can[best[0]]
    others = draws[jnp.argmax(differs)]
    others = others.at[best[0]].set(jnp.min(others) - 1)
    return jnp.where(can, jnp.where(leads, draws[0], others), -jnp.inf)
