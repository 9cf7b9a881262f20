"""Upper confidence bounds."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from amt.gp.observations import TargetPosterior
from amt.search.acquisition.base import Values


def upper_confidence_bound(
    posterior: TargetPosterior,
    remaining: Bool[Array, "config epoch"],
    incumbent: Float[Array, ""],
    *,
    beta: float = 0.25,
) -> Values:
    r"""\(\max_e \mu(c, e) + \beta\, \sigma(c, e)\) over the remaining epochs e of c.

    ```python
    rule = functools.partial(upper_confidence_bound, beta=0.5)
    tuner = amt.Tuner(sources, 0, acquisition=rule)  # with beta 0.25: acquisition="ucb"
    ```

    Source: Xiao, Xing, Neiswanger (2021), section 4.4, with beta 0.25; Srinivas, Krause, Kakade,
    Seeger (2010).
    """
    del incumbent
    bound = posterior.mean + beta * jnp.sqrt(posterior.variance)
    return jnp.max(jnp.where(remaining, bound, -jnp.inf), axis=1)
