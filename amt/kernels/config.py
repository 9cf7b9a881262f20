"""Kernels between configurations, on the features of `amt.space.Encoder`.

The columns are numeric values in [0, 1], then one-hot groups, then one activity column for each
conditional hyperparameter; values of inactive hyperparameters are 0.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpyro.distributions import constraints
from tinygp.kernels import Kernel

from amt.parameters import parameter
from amt.space import Encoder, Group


def _weight() -> Any:
    """Declaration of the weights, biases and embeddings of an encoder."""
    return parameter(constraints.real, prior=dist.Normal(0.0, 1.0), role="weight")


class ConfigNet(eqx.Module):
    r"""A learned embedding of configurations, shared by the deep kernels.

    \[ h(x) = W_2 \tanh(W_1 [x_\text{numeric}, E_1 x_1, E_2 x_2, \dots] + b_1) + b_2 \]

    with an embedding \(E_i\) of each categorical hyperparameter, as many dimensions as it has
    values, and hidden and output layers as wide as the input. Activity columns are not used:
    the value of a parent and the zeros of its inactive children say the same.

    Source: Xiao, Xing, Neiswanger (2021), section 4.2.
    """

    embeddings: tuple[Float[Array, "category embedding"], ...] = _weight()
    hidden: eqx.nn.Linear = _weight()
    output: eqx.nn.Linear = _weight()

    @classmethod
    def init(
        cls, encoder: Encoder, key: PRNGKeyArray, dtype: jnp.dtype, *, output_bias: bool = True
    ) -> "ConfigNet":
        """Starts from standard normal embeddings and uniform weights of scale 1 / sqrt(inputs).

        Without `output_bias`, b_2 is left out.
        """
        hidden, output, *embeddings = jax.random.split(key, 2 + len(encoder.categories))
        width = encoder.numeric + sum(encoder.categories)
        return cls(
            embeddings=tuple(
                jax.random.normal(k, (n, n), dtype)
                for k, n in zip(embeddings, encoder.categories, strict=True)
            ),
            hidden=eqx.nn.Linear(width, width, dtype=dtype, key=hidden),
            output=eqx.nn.Linear(width, width, output_bias, dtype=dtype, key=output),
        )

    def __call__(self, x: Float[Array, "feature"]) -> Float[Array, "embedding"]:
        sizes = [len(embedding) for embedding in self.embeddings]
        start = self.hidden.weight.shape[1] - sum(sizes)
        parts = [x[:start]]
        for size, embedding in zip(sizes, self.embeddings, strict=True):
            parts.append(x[start : start + size] @ embedding)
            start += size
        return self.output(jnp.tanh(self.hidden(jnp.concatenate(parts))))


class DeepPolynomial(Kernel):
    r"""Polynomial kernel \(k(x, x') = (h(x)^\top h(x') + o)^2\) on the embedding of `ConfigNet`.

    Source: Xiao, Xing, Neiswanger (2021), section 4.2.
    """

    net: ConfigNet
    offset: Float[Array, ""] = parameter(constraints.positive, prior=dist.Normal(0.0, 1.0))

    @classmethod
    def init(cls, encoder: Encoder, key: PRNGKeyArray, dtype: jnp.dtype) -> "DeepPolynomial":
        """Starts at `ConfigNet.init` and o = log 2."""
        return cls(
            net=ConfigNet.init(encoder, key, dtype), offset=jnp.full((), jnp.log(2.0), dtype)
        )

    def evaluate(self, X1: Float[Array, "feature"], X2: Float[Array, "feature"]) -> Array:
        return jnp.square(self.net(X1) @ self.net(X2) + self.offset)


class DeepRBF(Kernel):
    r"""Deep kernel: \(k(x, x') = \exp(-\tfrac12 \lVert h(x) - h(x') \rVert^2)\), h a `ConfigNet`.

    The output layer takes the place of lengthscales, its bias would cancel; the variance is 1.

    Source: Wilson, Hu, Salakhutdinov, Xing (2016), equation 5; across tasks, Wistuba and Grabocka
    (2021).
    """

    net: ConfigNet

    @classmethod
    def init(cls, encoder: Encoder, key: PRNGKeyArray, dtype: jnp.dtype) -> "DeepRBF":
        """Starts at `ConfigNet.init`."""
        return cls(net=ConfigNet.init(encoder, key, dtype, output_bias=False))

    def evaluate(self, X1: Float[Array, "feature"], X2: Float[Array, "feature"]) -> Array:
        return jnp.exp(-jnp.sum(jnp.square(self.net(X1) - self.net(X2))) / 2)


def _lengthscale_prior(kernel: "Matern") -> dist.Distribution:
    """Log-normal around sqrt(features), for features in [0, 1]."""
    return dist.Normal(0.5 * jnp.log(kernel.lengthscale.size), 1.5)


class Matern(Kernel):
    r"""Matern-5/2 with one lengthscale for each feature (ARD).

    \[ k(x, x') = (1 + \sqrt5 r + \tfrac53 r^2) e^{-\sqrt5 r}, \qquad
       r^2 = \sum_f (x_f - x'_f)^2 / \ell_f^2 \]

    on all columns, activity included: two configurations that differ in which hyperparameters
    are active are apart by the lengthscale of the activity, however their values compare. Its
    gradient is 0 where x = x'.

    Source: Rasmussen and Williams (2006), equation 4.17; on conditional spaces, Levesque,
    Durand, Gagne, Sabourin (2017).
    """

    lengthscale: Float[Array, "feature"] = parameter(
        constraints.positive, prior=_lengthscale_prior, role="per_feature"
    )

    @classmethod
    def init(cls, encoder: Encoder, key: PRNGKeyArray, dtype: jnp.dtype) -> "Matern":
        """Starts at lengthscales of sqrt(features), varied by the key."""
        shape = (encoder.num_features,)
        varied = jnp.exp(0.3 * jax.random.normal(key, shape, dtype))
        return cls(lengthscale=varied * encoder.num_features**0.5)

    def evaluate(self, X1: Float[Array, "feature"], X2: Float[Array, "feature"]) -> Array:
        squared = jnp.sum(jnp.square((X1 - X2) / self.lengthscale))
        apart = squared > 0
        r = jnp.sqrt(5.0) * jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1)), 0)
        return (1 + r + jnp.square(r) / 3) * jnp.exp(-r)


class AdditiveTree(Kernel):
    r"""Additive kernel over the nodes of a nested search space.

    \[ k(x, x') = \sum_v w_v\, a_v(x)\, a_v(x') \prod_{h \in v} k_h(x_h, x'_h) \]

    A node v is the hyperparameters of one condition (`Encoder.groups`); \(a_v\) is 1 where they
    are active, else 0. The first node, always active, has the unconditional hyperparameters and
    \(w = 1\): the kernel's scale is that of the task kernel. Each numeric hyperparameter of a node
    has a Matern-5/2 kernel with a lengthscale of its own, also where nodes share a column, and each
    categorical one \(e^{-1 / \ell}\) between different values. Configurations of different branches
    thus share what they have in common, and a value is compared only with values of its own node.

    Source: Ma and Blaschko (2020); conditional activity as in Swersky, Duvenaud, Snoek,
    Hutter, Osborne (2014).
    """

    groups: tuple[Group, ...] = eqx.field(static=True)
    weight: Float[Array, "node-1"] = parameter(constraints.positive, prior=dist.Normal(0.0, 1.5))
    numeric: Float[Array, "numeric"] = parameter(constraints.positive, prior=dist.Normal(0.0, 1.5))
    categorical: Float[Array, "categorical"] = parameter(
        constraints.positive, prior=dist.Normal(0.0, 1.5)
    )

    @classmethod
    def init(cls, encoder: Encoder, key: PRNGKeyArray, dtype: jnp.dtype) -> "AdditiveTree":
        """Starts at weights of 1 and, for a node of n hyperparameters, lengthscales of sqrt(n)
        (numeric, varied by the key) and n (categorical), as a product of n kernels decays faster.
        """
        groups = encoder.groups
        size = {group: len(group.numeric) + len(group.categorical) for group in groups}
        numeric = jnp.asarray([size[g] ** 0.5 for g in groups for _ in g.numeric], dtype)
        return cls(
            weight=jnp.ones((len(groups) - 1,), dtype),
            numeric=numeric * jnp.exp(0.3 * jax.random.normal(key, numeric.shape, dtype)),
            categorical=jnp.asarray([size[g] for g in groups for _ in g.categorical], dtype),
            groups=groups,
        )

    def evaluate(self, X1: Float[Array, "feature"], X2: Float[Array, "feature"]) -> Array:
        columns, one_hot = zip(*((g.numeric, g.categorical) for g in self.groups), strict=True)
        difference = X1 - X2
        # Logarithms of the one-dimensional kernels, those of a node summed by a 0/1 matrix.
        r = jnp.sqrt(5.0) * jnp.abs(difference[np.concatenate(columns).astype(int)]) / self.numeric
        numeric = jnp.log1p(r + jnp.square(r) / 3) - r
        differs = _indicator(sum(one_hot, ()), len(difference)) @ jnp.square(difference) / 2
        logarithm = _membership(columns) @ numeric - _membership(one_hot) @ (
            differs / self.categorical
        )
        active = _indicator([g.active for g in self.groups[1:]], len(difference))
        weight = self.weight * (active @ X1) * (active @ X2)
        return jnp.exp(logarithm[0]) + weight @ jnp.exp(logarithm[1:])


def _indicator(sets: Sequence[Sequence[int]], size: int) -> Int[np.ndarray, "set size"]:
    """Indicator matrix of sets: 1 where a column is in a set."""
    matrix = np.zeros((len(sets), size), np.int8)
    for row, columns in zip(matrix, sets, strict=True):
        row[list(columns)] = 1
    return matrix


def _membership(parts: Sequence[Sequence[Any]]) -> Int[np.ndarray, "part element"]:
    """Indicator matrix of consecutive parts: 1 where an element of all is in a part."""
    ends = np.cumsum([len(part) for part in parts])
    ranges = [range(end - len(part), end) for part, end in zip(parts, ends, strict=True)]
    return _indicator(ranges, int(ends[-1]))
