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

from functools import cache
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, Normal

from amt.files import read_json
from amt.parameters import Learned, learned

Priors = Literal["declared", "learned"]
"""Which priors a fit uses: "declared" for those that the fields of a model declare, "learned" for
those fitted to past databases, where a parameter has one."""

LEARNED = Path(__file__).parent / "learned_priors.json"
"""The priors learned from databases, with their origin: `scripts/learn_priors.py` writes it."""


@cache
def learned_priors() -> dict[tuple[str, str], Distribution]:
    """Priors of unconstrained values of task regression by name and declaration of a leaf.

    They come from fits to HyperRec and the bundled database; `LEARNED` has the numbers and all
    that they were made of.
    """
    return {
        (name, entry["declared"]): Normal(entry["mean"], entry["deviation"])
        for name, entry in read_json(LEARNED)["priors"].items()
    }


def log_prior(model: Any, priors: Priors = "declared") -> Float[Array, ""]:
    r"""Log prior density of what `model` learns, on the unconstrained values.

    For a positive \(\theta\) this is the density of \(\log \theta\), as an optimiser or sampler
    that works there needs it: that of \(\theta\) with the Jacobian \(\theta\) included. The mode
    of a log-normal prior is then its median, and a maximum a posteriori does not depend on whether
    a scale is written as a variance or as a standard deviation.

    Args:
        priors: "learned" for those of `learned_priors` where a leaf has one.

    Raises:
        ValueError: a parameter is declared to have no prior.
    """
    known = learned_priors() if priors == "learned" else {}

    def prior_of(leaf: Learned) -> Distribution:
        return known.get((leaf.name, leaf.declared)) or leaf.prior

    pairs = [(prior_of(leaf), leaf.free) for leaf in learned(model)]
    normal = [(prior, free) for prior, free in pairs if type(prior) is Normal]
    others = [jnp.sum(prior.log_prob(free)) for prior, free in pairs if type(prior) is not Normal]
    total = jnp.asarray(sum(others))
    if normal:  # as one distribution: one for each leaf makes a large program

        def row(free: Array, *numbers: Any) -> list[Array]:
            return [jnp.full(free.shape, x, free.dtype).ravel() for x in (free, *numbers)]

        rows = [row(free, prior.loc, prior.scale) for prior, free in normal]
        values, means, deviations = (jnp.concatenate(c) for c in zip(*rows, strict=True))
        total += jnp.sum(Normal(means, deviations).log_prob(values))
    return total
