"""Parameters of a model: which of its leaves are learned, under which constraint and prior.

Kernels and models hold their parameters as they are meant (a lengthscale is a positive number). A
field declared with `parameter` is learned; every other leaf is data. Optimisers and samplers work
on unconstrained values, reached through the bijection that NumPyro associates with the constraint
(the logarithm for positive numbers).
"""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey
from jaxtyping import Array
from numpyro.distributions import Distribution, Normal, biject_to, constraints
from numpyro.distributions.constraints import Constraint
from numpyro.distributions.transforms import Transform

Model = TypeVar("Model")

Prior = Distribution | Callable[[Any], Distribution]
"""The distribution of one unconstrained value, the same for all elements of an array, or a function
that makes it from the module that declares the field, for a prior in units of the data."""

Role = Literal[
    "shape", "scale", "task_scale", "noise", "per_feature", "loadings", "embedding", "weight"
]
"""The part that a parameter has in its model, for inference that needs to know.

- "shape": none of the others, such as a lengthscale or an exponent.
- "scale": a factor of its whole kernel; a product of kernels needs only one.
- "task_scale": a positive factor of each task's scores.
- "noise": the noise variance, one for all tasks or one for each.
- "per_feature": a lengthscale for each column of the features, which enter the kernel as
  \\(\\sum_f (x_f - x'_f)^2 / \\ell_f^2\\) only.
- "loadings": a row for each task, which the kernel knows up to a rotation of all. The length of a
  row scales its task. The prior of an element is normal with mean 0.
- "embedding": a row for each task, which the kernel knows up to a rotation and a shift of all. The
  prior of an element is normal with mean 0.
- "weight": of a network whose hidden units can change places and signs.
"""

_CONSTRAINT_OF_ROLE: dict[Role, Constraint] = {
    "task_scale": constraints.positive,
    "noise": constraints.positive,
    "loadings": constraints.real,
    "embedding": constraints.real,
}
_METADATA = "amt.parameters"
_FORGOTTEN: Any = object()


class Declaration(NamedTuple):
    """Constraint, prior and role of the leaves that a field declared with `parameter` holds."""

    constraint: Constraint
    prior: Prior | None
    role: Role


def parameter(
    constraint: Constraint,
    *,
    prior: Prior | None = _FORGOTTEN,
    role: Role = "shape",
    **options: Any,
) -> Any:
    """Declare a field of an `equinox.Module` as learned.

    ```python
    class RBF(tinygp.kernels.Kernel):
        lengthscale: Float[Array, ""] = amt.parameter(
            constraints.positive, prior=numpyro.distributions.Normal(0.0, 1.0)
        )
    ```

    A field that holds a module or a tuple passes its declaration on to all array leaves inside,
    unless a field further inside has its own.

    Args:
        constraint: on the values, such as `constraints.positive` or `constraints.real`.
        prior: of an unconstrained value, which for a positive number is its logarithm: the
            lengthscale above has a log-normal prior with median 1. None, written out, for what has
            no prior: maximum likelihood learns it, and `amt.inference.priors.log_prior` refuses it.
        role: see `Role`.
        options: passed to `equinox.field`, such as `default`.

    Raises:
        TypeError: no prior is given, or what is given is none.
        ValueError: no such role, or not the constraint or prior that the role has.
    """
    if prior is _FORGOTTEN:
        raise TypeError(
            "a learned field states its prior, the distribution of one unconstrained value: write "
            "amt.parameter(constraint, prior=numpyro.distributions.Normal(0.0, 1.0)), which for a "
            "positive number is a log-normal prior with median 1, or prior=None for what has none"
        )
    if prior is not None and not isinstance(prior, Distribution) and not callable(prior):
        raise TypeError(
            "a prior is a numpyro distribution of one unconstrained value, a function that makes "
            f"it from the module that declares the field, or None, not {prior!r}"
        )
    if role not in get_args(Role):
        raise ValueError(f"no role {role!r}; there are {', '.join(get_args(Role))}")
    if constraint is not _CONSTRAINT_OF_ROLE.get(role, constraint):
        raise ValueError(f"the constraint of {role!r} is {_CONSTRAINT_OF_ROLE[role]}")
    centred = isinstance(prior, Normal) and prior.loc == 0
    if role in ("loadings", "embedding") and isinstance(prior, Distribution) and not centred:
        raise ValueError(f"the prior of {role!r} is normal with mean 0")
    return eqx.field(metadata={_METADATA: Declaration(constraint, prior, role)}, **options)


class Learned(NamedTuple):
    """A learned leaf of a model.

    Attributes:
        name: its place in the model, such as "config.net.hidden.weight".
        owner: the module that declares it.
        field: the field of `owner` that it is in.
        declaration: what that field says.
        value: its value.
    """

    name: str
    owner: Any
    field: str
    declaration: Declaration
    value: Array

    @property
    def declared(self) -> str:
        """Class and field that declare it, such as "ConfigNet.hidden"."""
        return f"{type(self.owner).__name__}.{self.field}"

    @property
    def role(self) -> Role:
        """The part that it has in the model."""
        return self.declaration.role

    @property
    def transform(self) -> Transform:
        """The bijection from its unconstrained value."""
        return biject_to(self.declaration.constraint)

    @property
    def free(self) -> Array:
        """Its unconstrained value."""
        return jnp.asarray(self.transform._inverse(self.value))

    @property
    def prior(self) -> Distribution:
        """Prior of one element, unconstrained.

        Raises:
            ValueError: it is declared to have none.
        """
        prior = self.declaration.prior
        if prior is None:
            raise ValueError(
                f"{self.name} has no prior: {self.declared} is declared with prior=None, so that "
                "only inference without priors can learn it"
            )
        return prior if isinstance(prior, Distribution) else prior(self.owner)

    def __str__(self) -> str:
        """Name, declaration and prior in one line."""
        said = f"{self.name} ({self.declared}, {self.role})"
        if self.declaration.prior is None:
            return f"{said}: no prior"
        prior = self.prior
        numbers = ", ".join(f"{n}={float(getattr(prior, n)):.3g}" for n in prior.arg_constraints)
        return f"{said}: {type(self.transform).__name__} of {type(prior).__name__}({numbers})"


def learned(model: Any) -> list[Learned]:
    """The learned leaves of `model`, in the order of `unconstrain`.

    `print(*learned(model), sep="\\n")` lists them with their priors.
    """
    leaves = []
    for path, value in jax.tree_util.tree_flatten_with_path(model)[0]:
        found = _innermost(model, path)
        if found is not None and eqx.is_array(value):
            leaves.append(Learned(_name(path), *found, value))
    return leaves


def replace(model: Model, values: dict[str, Array]) -> Model:
    """`model` with other values of leaves, by the names of `learned`.

    Raises:
        KeyError: no such leaf.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(model)
    names = [_name(path) for path, _ in paths]
    for name in values:
        if name not in names:
            raise KeyError(f"no leaf {name!r}; there are {', '.join(names)}")
    leaves = [values.get(name, leaf) for name, (_, leaf) in zip(names, paths, strict=True)]
    return jax.tree_util.tree_unflatten(structure, leaves)


class Parameterization(NamedTuple, Generic[Model]):
    """The learned leaves of a model as unconstrained arrays, and the way back.

    `free` is a tuple of arrays; `constrain(free)` is the model with these values in place.
    """

    free: tuple[jax.Array, ...]
    constrain: Callable[[tuple[jax.Array, ...]], Model]


def unconstrain(model: Model) -> Parameterization[Model]:
    """Split `model` into unconstrained learned leaves and the function that rebuilds it.

    `unconstrain(m).constrain(unconstrain(m).free)` equals `m` up to rounding.
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
        jnp.asarray(transform._inverse(leaf))
        for leaf, transform in zip(leaves, transforms, strict=True)
        if transform is not None
    )
    return Parameterization(free, constrain)


def _transform(model: Any, path: tuple[Any, ...]) -> Transform | None:
    """The bijection of the leaf at `path`, None if it is not learned."""
    found = _innermost(model, path)
    return None if found is None else biject_to(found[2].constraint)


def _innermost(model: Any, path: tuple[Any, ...]) -> tuple[Any, str, Declaration] | None:
    """Owner, name and declaration of the innermost declared field on the way to a leaf.

    None where there is no such field. `path` is that of `jax.tree_util.tree_flatten_with_path`.
    """
    node, found = model, None
    for key in path:
        if isinstance(key, GetAttrKey):
            # A named tuple has names too, but declares nothing.
            known = fields(node) if is_dataclass(node) else ()
            declared = {f.name: f.metadata.get(_METADATA) for f in known}.get(key.name)
            if declared is not None:
                found = node, key.name, declared
            node = getattr(node, key.name)
        else:
            node = node[key.idx if hasattr(key, "idx") else key.key]
    return found


def _name(path: tuple[Any, ...]) -> str:
    """The place of a leaf, such as "config.net.hidden.weight"."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


@jax.jit
def stack(models: Sequence[Model]) -> Model:
    """Put models of the same structure along a leading axis, as `jax.vmap` and fits take them."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
