r"""Weak priors on everything that a model learns, for `fit_map` and the hierarchical model alike.

The prior of a parameter is found by what it is, most special entry of `PRIORS` first: the class
and field that declare it ("AT2Task.lengthscale"), the field alone ("scale"), "real" for real
numbers and "constrained" for all others. A kernel of your own has the last two at least, and one
line gives it more:

```python
PRIORS["MyKernel.period"] = dist.Normal(0.0, 0.5)
```

An entry is the distribution of one unconstrained value (`amt.parameters`: the logarithm of a
positive number), the same for all elements of an array: `Normal(0, 1)` for a positive parameter is
a log-normal prior. Or it is a function that makes the distribution from the module that declares
the field, for a prior in units of the data.

Positive parameters have log-normal priors. Most state a magnitude with a standard deviation of the
logarithm of 1 (a factor of 2.7; 95% within a factor of 7), or of 1.5 (95% within a factor of 19)
where the magnitude is a guess; variances, whose unit is that of the scores, have 3 (95% within a
factor of 360). Against the thousands of scores of a grid they decide only what these do not: a
lengthscale that is longer than the data, U of the AT2 task kernel when all tasks are complete.

| parameter | prior |
|---|---|
| scale (a variance) | LogNormal(0, 3) |
| lengthscale, on inputs in [0, 1] | LogNormal(log sqrt(features), 1.5) |
| lengthscale, bandwidth on task distances d | LogNormal(log of what makes the mean d 1, 1) |
| lengthscale on log epochs | LogNormal(log 2, 1) |
| decay shapes a, b | LogNormal(0, 1) |
| offset of a polynomial | LogNormal(0, 1) |
| U - 1 | LogNormal(log 1/2, 1) |
| noise variance, nugget | LogNormal(log 1e-3, 3) |
| noise power | Normal(0, 1) |
| coregionalization loadings, task embeddings | Normal(0, 1) |
| kappa | LogNormal(log 0.1, 2) |
| weights, biases and embeddings of an encoder | Normal(0, 1) |
| output scale of each task, without pooling | LogNormal(0, 1/2) |
| any other positive number | LogNormal(0, 1.5) |
| any other real number | Normal(0, 1) |
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, biject_to, constraints

from amt.parameters import declaration

Model = TypeVar("Model")
Prior = Distribution | Callable[[Any], Distribution]


def _mean_distance(distance: Float[Array, "task task"]) -> Float[Array, ""]:
    """Over pairs of different tasks; 1 where there is none or all are alike."""
    pairs = distance.shape[0] * (distance.shape[0] - 1)
    mean = jnp.sum(distance) / max(pairs, 1)
    return jnp.where(mean > 0, mean, 1.0)


def _matern(kernel: Any) -> Distribution:
    return dist.Normal(0.5 * jnp.log(kernel.lengthscale.size), 1.5)


def _at2_task(kernel: Any) -> Distribution:
    return dist.Normal(0.5 * jnp.log(_mean_distance(kernel.distance)), 1.0)


def _rank_agreement(kernel: Any) -> Distribution:
    return dist.Normal(jnp.log(_mean_distance(kernel.distance)), 1.0)


PRIORS: dict[str, Prior] = {
    "AT2Task.lengthscale": _at2_task,
    "AT2Task.U": dist.Normal(-0.7, 1.0),
    "RankAgreement.bandwidth": _rank_agreement,
    "ICM.kappa": dist.Normal(-2.3, 2.0),
    "ScaledTask.scales": dist.Normal(0.0, 0.5),
    "Matern.lengthscale": _matern,
    "DeepPolynomial.offset": dist.Normal(0.0, 1.0),
    "AT2Fidelity.a": dist.Normal(0.0, 1.0),
    "AT2Fidelity.b": dist.Normal(0.0, 1.0),
    "FreezeThaw.a": dist.Normal(0.0, 1.0),
    "FreezeThaw.b": dist.Normal(0.0, 1.0),
    "Fabolas.b": dist.Normal(0.0, 1.0),
    "LogMatern.lengthscale": dist.Normal(0.7, 1.0),
    "SeparableNoise.variance": dist.Normal(-6.9, 3.0),
    "nugget": dist.Normal(-6.9, 3.0),
    "scale": dist.Normal(0.0, 3.0),
    "constrained": dist.Normal(0.0, 1.5),
    "real": dist.Normal(0.0, 1.0),
}
"""Priors by "Class.field", "field" or constraint; add to it for kernels of your own."""


class Learned(NamedTuple):
    """A learned leaf of a model.

    Attributes:
        name: its place in the model, such as "config.net.hidden.weight".
        declared: class and field that declare it, such as "ConfigNet.hidden".
        value: its value.
        transform: the bijection from its unconstrained value.
        prior: of one element, unconstrained.
    """

    name: str
    declared: str
    value: Array
    transform: Any
    prior: Distribution

    @property
    def free(self) -> Array:
        """Its unconstrained value."""
        return self.transform._inverse(self.value)


def learned(model: Any) -> list[Learned]:
    """The learned leaves of `model`, in the order of `amt.parameters.unconstrain`, with priors."""
    found = []
    for path, value in jax.tree_util.tree_flatten_with_path(model)[0]:
        owner, field, constraint = declaration(model, path)
        if constraint is not None and eqx.is_array(value):
            declared = f"{type(owner).__name__}.{field}"
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            kind = "real" if constraint is constraints.real else "constrained"
            entry = next(PRIORS[key] for key in (declared, field, kind) if key in PRIORS)
            prior = entry if isinstance(entry, Distribution) else entry(owner)
            found.append(Learned(name, declared, value, biject_to(constraint), prior))
    return found


def replace(model: Model, values: dict[str, Array]) -> Model:
    """`model` with other values of leaves, by the names of `learned`.

    Raises:
        KeyError: no such leaf.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(model)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    for name in values:
        if name not in names:
            raise KeyError(f"no leaf {name!r}; there are {', '.join(names)}")
    leaves = [values.get(name, leaf) for name, (_, leaf) in zip(names, paths, strict=True)]
    return jax.tree_util.tree_unflatten(structure, leaves)


def log_prior(model: Any) -> Float[Array, ""]:
    r"""Log prior density of what `model` learns, on the unconstrained values.

    For a positive \(\theta\) this is the density of \(\log \theta\), as an optimiser or sampler
    that works there needs it: that of \(\theta\) with the Jacobian \(\theta\) included. The mode
    of a log-normal prior is then its median, and a maximum a posteriori does not depend on whether
    a scale is written as a variance or as a standard deviation.
    """
    return jnp.asarray(sum(leaf.prior.log_prob(leaf.free).sum() for leaf in learned(model)))
