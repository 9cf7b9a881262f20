"""Which leaves of a model are learned, and how they are constrained.

Kernels and models hold their parameters as they are meant (a lengthscale is a positive number).
A field declared with `parameter(constraint)` is learned; every other leaf is data. Optimisers and
samplers work on unconstrained values, reached through the bijection that NumPyro associates with
the constraint (the logarithm for positive numbers).
"""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import equinox as eqx
import jax
from jax.tree_util import GetAttrKey
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.constraints import Constraint

Model = TypeVar("Model")
_CONSTRAINT = "constraint"


def parameter(constraint: Constraint = constraints.real, **options: Any) -> Any:
    """Declare a field of an `equinox.Module` as learned, its leaves under `constraint`.

    ```python
    class RBF(tinygp.kernels.Kernel):
        lengthscale: Float[Array, ""] = amt.parameter(constraints.positive)
    ```

    Args:
        options: passed to `equinox.field`, such as `default`.
    """
    return eqx.field(metadata={_CONSTRAINT: constraint}, **options)


class Parameterization(NamedTuple, Generic[Model]):
    """The learned leaves of a model as unconstrained arrays, and the way back.

    `free` is a tuple of arrays; `constrain(free)` is the model with these values in place.
    """

    free: tuple[jax.Array, ...]
    constrain: Callable[[tuple[jax.Array, ...]], Model]


def unconstrain(model: Model) -> Parameterization[Model]:
    """Split `model` into unconstrained learned leaves and the function that rebuilds it.

    A field that holds a module or a tuple passes its constraint on to all array leaves inside,
    unless a field further inside declares its own. `unconstrain(m).constrain(unconstrain(m).free)`
    equals `m` up to rounding.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(model)
    leaves = [leaf for _, leaf in paths]
    transforms = [_transform(model, path) if eqx.is_array(leaf) else None for path, leaf in paths]

    def constrain(free: tuple[jax.Array, ...]) -> Model:
        values = iter(free)
        return jax.tree_util.tree_unflatten(
            structure,
            [
                leaf if transform is None else transform(next(values))
                for leaf, transform in zip(leaves, transforms, strict=True)
            ],
        )

    free = tuple(
        transform._inverse(leaf)
        for leaf, transform in zip(leaves, transforms, strict=True)
        if transform is not None
    )
    return Parameterization(free, constrain)


def declaration(model: Any, path: tuple[Any, ...]) -> tuple[Any, str, Constraint | None]:
    """Owner, name and constraint of the innermost field on the way to a leaf that is learned.

    `path` is that of `jax.tree_util.tree_flatten_with_path`; the constraint is None where no field
    on it is declared with `parameter`.
    """
    node, owner, name, constraint = model, None, "", None
    for key in path:
        if isinstance(key, GetAttrKey):
            # A named tuple has names too, but declares nothing.
            known = fields(node) if is_dataclass(node) else ()
            declared = {f.name: f.metadata.get(_CONSTRAINT) for f in known}.get(key.name)
            if declared is not None:
                owner, name, constraint = node, key.name, declared
            node = getattr(node, key.name)
        else:
            node = node[key.idx if hasattr(key, "idx") else key.key]
    return owner, name, constraint


def _transform(model: Any, path: tuple[Any, ...]) -> Any:
    """The bijection of the leaf at `path`, None if it is not learned."""
    _, _, constraint = declaration(model, path)
    return None if constraint is None else biject_to(constraint)
