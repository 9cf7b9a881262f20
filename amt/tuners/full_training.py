"""Pure tuners that train a configuration to its end before they choose the next.

What they choose by is a function of what was learned before the loop, and of the best score of each
configuration so far,

```python
def choose(learned, scores: Float[Array, "config"]) -> Float[Array, "config"]: ...
```

scores being -inf where there is none; it gives the value of training each configuration. The best
observed is recommended, before there is one the configuration that is being trained.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from amt.search.replay import Decision, Feedback


class State(eqx.Module):
    """Prior of a tuner, the configuration in training, and the best score of each."""

    learned: Any
    current: Int[Array, ""]
    scores: Float[Array, "config"]


def start(learned: Any, num_configs: int, dtype: Any) -> State:
    """Start without scores."""
    return State(learned, jnp.asarray(0), jnp.full(num_configs, -jnp.inf, dtype))


def step(
    state: State, feedback: Feedback, *, choose: Callable[[Any, Array], Array]
) -> tuple[State, Decision]:
    """Go on with the configuration in training, or choose the next."""
    before = state.scores[feedback.config]
    score = jnp.where(feedback.observed, jnp.maximum(before, feedback.score), before)
    scores = state.scores.at[feedback.config].set(score)
    can_start = feedback.remaining.any(1)
    values = choose(state.learned, scores)
    best = jnp.argmax(jnp.where(can_start, values, -jnp.inf))
    goes_on = feedback.observed & can_start[state.current]
    current = jnp.where(goes_on, state.current, best)
    recommended = jnp.where(jnp.isfinite(scores).any(), jnp.argmax(scores), current)
    return State(state.learned, current, scores), Decision(current, recommended)


def scored(
    scores: Float[Array, "config"], capacity: int
) -> tuple[Int[Array, "obs"], Bool[Array, "obs"], Float[Array, "obs"]]:
    """Configurations with a score, whether there is one, and the scores; 0 in what is padding."""
    (configs,) = jnp.nonzero(jnp.isfinite(scores), size=capacity, fill_value=0)
    mask = jnp.arange(capacity) < jnp.isfinite(scores).sum()
    return configs, mask, jnp.where(mask, scores[configs], 0)


def capacity(budget: int, num_epochs: int) -> int:
    """Number of configurations that a budget allows for, each to its end but the last."""
    return budget // num_epochs + 1
