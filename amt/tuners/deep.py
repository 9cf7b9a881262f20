"""Networks of tuners, and how they are trained."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray


class Network(eqx.Module):
    """Linear layers with tanh in between, and where asked behind the last."""

    layers: tuple[eqx.nn.Linear, ...]
    bounded: bool = eqx.field(static=True)

    @classmethod
    def init(
        cls, sizes: Sequence[int], key: PRNGKeyArray, dtype: Any, *, bounded: bool = False
    ) -> "Network":
        """Start at random; `sizes` are those of the input and of each layer."""
        keys = jax.random.split(key, len(sizes) - 1)
        pairs = zip(sizes[:-1], sizes[1:], keys, strict=True)
        layers = (eqx.nn.Linear(m, n, key=k, dtype=dtype) for m, n, k in pairs)
        return cls(tuple(layers), bounded)

    def __call__(self, x: Float[Array, "*point input"]) -> Float[Array, "*point output"]:
        for number, layer in enumerate(self.layers):
            assert layer.bias is not None
            x = x @ layer.weight.T + layer.bias
            if self.bounded or number < len(self.layers) - 1:
                x = jnp.tanh(x)
        return x


def train(
    model: Any,
    loss: Callable[[Any, PRNGKeyArray], Float[Array, ""]],
    key: PRNGKeyArray,
    *,
    steps: int,
    learning_rate: float,
) -> Any:
    """The model after steps of Adam on a loss that may draw from a key."""
    chain = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(learning_rate))
    optimizer = optax.flatten(chain)
    arrays, static = eqx.partition(model, eqx.is_inexact_array)

    def of_arrays(arrays: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        return loss(eqx.combine(arrays, static), key)

    def step(carry: Any, key: PRNGKeyArray) -> tuple[Any, None]:
        arrays, state = carry
        updates, state = optimizer.update(jax.grad(of_arrays)(arrays, key), state)
        return (optax.apply_updates(arrays, updates), state), None

    start = arrays, optimizer.init(arrays)
    (arrays, _), _ = jax.lax.scan(step, start, jax.random.split(key, steps))
    return eqx.combine(arrays, static)


def negative_log_likelihood(
    gram: Float[Array, "config config"], residuals: Float[Array, "task config"]
) -> Float[Array, ""]:
    """Negative log density of normal rows of one covariance, per entry and but for a constant."""
    root = jnp.linalg.cholesky(gram)
    whitened = solve_triangular(root, residuals.T, lower=True)
    return jnp.mean(jnp.square(whitened)) / 2 + jnp.mean(jnp.log(jnp.diagonal(root)))
