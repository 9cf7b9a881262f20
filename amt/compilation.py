"""Compiling in less time: programs kept on disk, and programs that are worth no optimisation.

Experiments and commands call `use_compilation_cache` first of all. The library never does: where
a program that imports `amt` keeps its files is for that program to say.
"""

import os
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import platformdirs

Function = TypeVar("Function", bound=Callable[..., Any])

# Of XLA, for CPUs. Fusion emitters take a third of the time of compilation.
_QUICK = {"xla_cpu_use_fusion_emitters": False}
_QUICKEST = {**_QUICK, "xla_backend_optimization_level": 0}

MIN_COMPILE_SECONDS = 0.05  # a file is read in 1 to 10 ms; JAX keeps only what took a second


def use_compilation_cache() -> Path | None:
    """Turn JAX's persistent compilation cache on, and return its folder; None if it stays off.

    The folder is, in this order,

    - where the user has set JAX's own cache already, by `JAX_COMPILATION_CACHE_DIR` or
      `jax.config`, of which nothing is changed,
    - `$AMT_CACHE_DIR`; an empty value turns the cache off,
    - `jax` in the user's cache directory of amt, such as `~/.cache/amt/jax`.

    A program's file is found again by its operations, the versions of jax and jaxlib, XLA's flags
    and the kind of processor, so that nothing old is ever used; the folder, a megabyte for an
    experiment, can be deleted at any time. On some processors with AVX-512, XLA prints that a
    program which was compiled there "doesn't match the machine type" when it reads it
    (https://github.com/jax-ml/jax/issues/38445): turn the cache off on those.
    """
    users: str | None = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    if users is not None:
        return Path(users) if users else None
    chosen = os.environ.get("AMT_CACHE_DIR")
    if chosen == "":
        return None
    folder = Path(chosen) if chosen else platformdirs.user_cache_path("amt") / "jax"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
    return folder


def compiler_options(*, optimise: bool = True) -> dict[str, Any]:
    """Options of XLA, empty but on a CPU, with which programs are compiled in less time."""
    if jax.default_backend() != "cpu":
        return {}
    return _QUICK if optimise else _QUICKEST


def quick_jit(function: Function, *, optimise: bool = True) -> Function:
    """`equinox.filter_jit`, on a CPU with less time spent on the program than it takes to run.

    Args:
        optimise: False for a program that runs once or twice, whose time is in its factorisations
            and products: it is compiled in a quarter of the time, and loops of it are slower.
    """

    @cache
    def compiled() -> Callable[..., Any]:
        jit: Any = eqx.filter_jit
        return jit(function, compiler_options=compiler_options(optimise=optimise))

    @wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        return compiled()(*args, **keywords)

    return call  # pyright: ignore[reportReturnType]


def quick_vmap(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.vmap` over the first axis of all arguments, which for one entry alone is no batch.

    A program of a batch of one takes twice as long to trace and to compile as that of its entry.
    """

    @wraps(function)
    def call(*args: Any) -> Any:
        if jax.tree.leaves(args)[0].shape[0] != 1:
            return jax.vmap(function)(*args)
        alone = function(*jax.tree.map(lambda leaf: leaf[0], args))
        return jax.tree.map(lambda leaf: leaf[None], alone)

    return call
