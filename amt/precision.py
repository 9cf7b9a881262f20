"""Floating-point precision.

Linear algebra runs in float64 by default; float32 is an option everywhere. Importing `amt` never
changes JAX's global configuration: a program either calls
`jax.config.update("jax_enable_x64", True)` once (the experiments do), or wraps its calls in
`with amt.precision("float64"):`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


@contextmanager
def precision(dtype: DTypeLike = "float64") -> Iterator[None]:
    """Run a block with JAX arrays of up to `dtype` ("float32" or "float64"), thread-locally.

    Raises:
        ValueError: for any other dtype.
    """
    with jax.enable_x64(check_dtype(dtype) == jnp.float64):
        yield


def check_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The floating dtype meant by `dtype`: float32 or float64."""
    try:
        checked = jnp.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"dtype must be float32 or float64, not {dtype}") from error
    if checked not in (jnp.float32, jnp.float64):
        raise ValueError(f"dtype must be float32 or float64, not {checked}")
    return checked


def require_dtype(dtype: DTypeLike) -> jnp.dtype:
    """`check_dtype`, and an error where JAX would silently make float32 out of float64.

    Raises:
        ValueError: a dtype other than float32 and float64.
        RuntimeError: float64 is requested and x64 is off.
    """
    checked = check_dtype(dtype)
    if jax.dtypes.canonicalize_dtype(checked) != checked:
        raise RuntimeError(
            "float64 was requested, but JAX's x64 mode is off: wrap the call in "
            "`with amt.precision('float64'):`, call jax.config.update('jax_enable_x64', True) "
            "at the start of the program, or pass dtype='float32'."
        )
    return checked
