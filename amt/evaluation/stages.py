"""Stages: functions of one cell that run on many, compiled ahead of time.

Compilation is ahead of time so that its seconds are counted apart, and is shared by all
experiments of a process.
"""

from collections.abc import Callable
from functools import cache, partial
from time import perf_counter
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from amt.compilation import compiler_options, quick_vmap


class Run(NamedTuple):
    """One run of a stage.

    Attributes:
        output: of each cell, along a leading axis.
        compiling: seconds, tracing included.
        running: seconds.
        memory: bytes of arguments, output and what is in between, on all devices.
    """

    output: Any
    compiling: float
    running: float
    memory: float


class Stage:
    """A function of one cell that runs on many, side by side on all devices.

    It is compiled ahead of time, once for each shape of its arguments and each value of its
    keywords, for the whole process.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self._compiled: dict[Any, Any] = {}

    @property
    def compilations(self) -> int:
        """How often it was compiled."""
        return len(self._compiled)

    def __call__(self, mesh: Mesh, *args: Any, **static: Any) -> Run:
        """Run it.

        Args:
            mesh: devices to spread the cells over, evenly.
            args: with a leading axis of cells.
            static: hashable.
        """
        by_cell = PartitionSpec(mesh.axis_names)
        args = jax.device_put(args, NamedSharding(mesh, by_cell))
        leaves, structure = jax.tree.flatten(args)
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        key = mesh, structure, shapes, tuple(static.items())
        start = perf_counter()
        if key not in self._compiled:
            function = jax.shard_map(
                quick_vmap(partial(self._function, **static)),
                mesh=mesh,
                in_specs=by_cell,
                out_specs=by_cell,
                check_vma=False,
            )
            lowered = jax.jit(function).lower(*args)
            self._compiled[key] = lowered.compile(compiler_options=compiler_options())
        compiled = perf_counter()
        program = self._compiled[key]
        output = jax.block_until_ready(program(*args))
        sizes = program.memory_analysis()
        memory = sum(
            getattr(sizes, f"{kind}_size_in_bytes") for kind in ("argument", "output", "temp")
        )
        return Run(output, compiled - start, perf_counter() - compiled, mesh.size * memory)


@cache
def stage_of(function: Callable[..., Any]) -> Stage:
    """The stage of a function, the same for the whole process."""
    return Stage(function)
