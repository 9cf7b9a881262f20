r"""Weak priors on everything that a model learns, for `fit_map` and the hierarchical model alike.

The prior of a parameter stands where its field is declared (`amt.parameters.parameter`), and

```python
print(*amt.parameters.learned(model), sep="\n")
```

lists those of a model. To give a kernel another prior, declare the field anew in a subclass:

```python
class Smooth(amt.kernels.Matern):
    lengthscale: Float[Array, "feature"] = amt.parameter(
        constraints.positive, prior=dist.Normal(1.0, 0.5), role="per_feature"
    )
```

Positive parameters have log-normal priors. Most state a magnitude with a standard deviation of the
logarithm of 1 (a factor of 2.7; 95% within a factor of 7), or of 1.5 (95% within a factor of 19)
where the magnitude is a guess; variances, whose unit is that of the scores, have 3 (95% within a
factor of 360). Against the thousands of scores of a grid they decide only what these do not: a
lengthscale that is longer than the data, U of the AT2 task kernel when all tasks are complete.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import Normal

from amt.parameters import learned


def log_prior(model: Any) -> Float[Array, ""]:
    r"""Log prior density of what `model` learns, on the unconstrained values.

    For a positive \(\theta\) this is the density of \(\log \theta\), as an optimiser or sampler
    that works there needs it: that of \(\theta\) with the Jacobian \(\theta\) included. The mode
    of a log-normal prior is then its median, and a maximum a posteriori does not depend on whether
    a scale is written as a variance or as a standard deviation.

    Raises:
        ValueError: a parameter is declared to have no prior.
    """
    pairs = [(leaf.prior, leaf.free) for leaf in learned(model)]
    normal = [pair for pair in pairs if type(pair[0]) is Normal]
    others = [jnp.sum(prior.log_prob(free)) for prior, free in pairs if type(prior) is not Normal]
    total = jnp.asarray(sum(others))
    if normal:  # as one distribution: one for each leaf makes a large program
        values = jnp.concatenate([free.ravel() for _, free in normal])
        means, deviations = (
            jnp.concatenate(
                [jnp.full(free.shape, getattr(p, name), free.dtype).ravel() for p, free in normal]
            )
            for name in ("loc", "scale")
        )
        total += jnp.sum(Normal(means, deviations).log_prob(values))
    return total
