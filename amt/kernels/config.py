"""Kernels between configurations, on the features of `amt.space.Encoder`.

The columns are numeric values in [0, 1], then one-hot groups, then one activity column for each
conditional hyperparameter; values of inactive hyperparameters are 0.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints
from tinygp.kernels import Kernel

from amt.parameters import parameter
from amt.space import Encoder


class DeepPolynomial(Kernel):
    r"""Polynomial kernel on a learned embedding of configurations.

    \[ k(x, x') = (h(x)^\top h(x') + o)^2, \qquad
       h(x) = W_2 \tanh(W_1 [x_\text{numeric}, E_1 x_1, E_2 x_2, \dots] + b_1) + b_2 \]

    with an embedding \(E_i\) of each categorical hyperparameter, as many dimensions as it has
    values, and hidden and output layers as wide as the input. Activity columns are not used:
    the value of a parent and the zeros of its inactive children say the same.

    Source: Xiao, Xing, Neiswanger (2021), section 4.2.
    """

    embeddings: tuple[Float[Array, "category embedding"], ...] = parameter()
    hidden: eqx.nn.Linear = parameter()
    output: eqx.nn.Linear = parameter()
    offset: Float[Array, ""] = parameter(constraints.positive)

    @classmethod
    def init(cls, encoder: Encoder, key: PRNGKeyArray, dtype: jnp.dtype) -> "DeepPolynomial":
        """Starts from standard normal embeddings and uniform weights of scale 1 / sqrt(inputs)."""
        hidden, output, *embeddings = jax.random.split(key, 2 + len(encoder.categories))
        width = encoder.numeric + sum(encoder.categories)
        return cls(
            embeddings=tuple(
                jax.random.normal(k, (n, n), dtype)
                for k, n in zip(embeddings, encoder.categories, strict=True)
            ),
            hidden=eqx.nn.Linear(width, width, dtype=dtype, key=hidden),
            output=eqx.nn.Linear(width, width, dtype=dtype, key=output),
            offset=jnp.full((), jnp.log(2.0), dtype),
        )

    def encode(self, x: Float[Array, "feature"]) -> Float[Array, "embedding"]:
        """h(x)."""
        sizes = [len(embedding) for embedding in self.embeddings]
        start = self.hidden.weight.shape[1] - sum(sizes)
        parts = [x[:start]]
        for size, embedding in zip(sizes, self.embeddings, strict=True):
            parts.append(x[start : start + size] @ embedding)
            start += size
        return self.output(jnp.tanh(self.hidden(jnp.concatenate(parts))))

    def evaluate(self, X1: Float[Array, "feature"], X2: Float[Array, "feature"]) -> Array:
        return jnp.square(self.encode(X1) @ self.encode(X2) + self.offset)


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

    lengthscale: Float[Array, "feature"] = parameter(constraints.positive)

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
