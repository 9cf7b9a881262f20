"""Kernels on the three axes of a grid of learning curves, by name.

`KERNELS[axis][name]` is the class; `make_kernel(axis, name, curves, key)` starts one for given
learning curves. A new kernel is a class with an `init` classmethod and learned fields that are
declared with `amt.parameters.parameter`, registered by one line:

```python
amt.KERNELS["fidelity"]["power_law"] = PowerLaw
```

It derives from `TaskKernel`, `tinygp.kernels.Kernel` or, on the fidelity axis, `FidelityKernel`.

The scale of a product kernel is that of its task kernel (the loadings of "icm"): other kernels have
none, but for the two that are as published, "at2" of the fidelity and "deep_poly".
"""

from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PRNGKeyArray
from tinygp.kernels import Kernel

from amt.curves import LearningCurves
from amt.kernels.config import AdditiveTree, ConfigNet, DeepPolynomial, DeepRBF, Matern
from amt.kernels.fidelity import AT2Fidelity, Fabolas, FidelityKernel, FreezeThaw, LogMatern
from amt.kernels.task import ICM, AT2Task, TargetObservations, TaskKernel, task_distances
from amt.kernels.task.latent import LatentTask
from amt.kernels.task.psd import project_psd
from amt.kernels.task.rank import RankAgreement, rank_distances
from amt.precision import require_dtype
from amt.space import Encoder

KERNELS: dict[str, dict[str, type[Kernel]]] = {
    "task": {"at2": AT2Task, "icm": ICM, "rank": RankAgreement, "latent": LatentTask},
    "config": {
        "deep_poly": DeepPolynomial,
        "deep_rbf": DeepRBF,
        "matern": Matern,
        "tree": AdditiveTree,
    },
    "fidelity": {
        "at2": AT2Fidelity,
        "freeze_thaw": FreezeThaw,
        "fabolas": Fabolas,
        "matern": LogMatern,
    },
}

_BASES = {"task": TaskKernel, "config": Kernel, "fidelity": FidelityKernel}

AT2 = ("at2", "deep_poly", "at2")
"""Names of the kernels that Xiao, Xing, Neiswanger (2021) chose."""


def make_kernel(
    axis: str,
    name: str,
    curves: LearningCurves,
    key: PRNGKeyArray,
    dtype: DTypeLike = jnp.float64,
    **options: Any,
) -> Any:
    """The kernel `name` of an `axis` ("task", "config", "fidelity"), started for `curves`.

    Args:
        curves: the source tasks.
        key: varies the starting point of what is learned.
        options: passed to the kernel's `init`, such as `rank` of "icm".

    Raises:
        KeyError: no such axis or kernel; the message lists those there are.
        TypeError: the kernel is not of the class that its axis needs.
    """
    if axis not in KERNELS:
        raise KeyError(f"no kernel axis {axis!r}; there are {', '.join(KERNELS)}")
    if name not in KERNELS[axis]:
        known = ", ".join(KERNELS[axis])
        raise KeyError(f"no {axis} kernel {name!r}; there are {known}")
    kernel: Any = KERNELS[axis][name]
    base = _BASES[axis]
    if not issubclass(kernel, base):
        raise TypeError(
            f"the {axis} kernel {name!r} is {kernel.__name__}, which does not derive from "
            f"{base.__module__}.{base.__name__}"
        )
    start = kernel.init
    dtype = require_dtype(dtype)
    if axis == "task":
        return start(curves.scores, key, dtype, **options)
    if axis == "config":
        return start(Encoder(curves.space), key, dtype, **options)
    return start(key, dtype, **options)


__all__ = [
    "AT2",
    "ICM",
    "KERNELS",
    "AT2Fidelity",
    "AT2Task",
    "AdditiveTree",
    "ConfigNet",
    "DeepPolynomial",
    "DeepRBF",
    "Fabolas",
    "FidelityKernel",
    "FreezeThaw",
    "LatentTask",
    "LogMatern",
    "Matern",
    "RankAgreement",
    "TargetObservations",
    "TaskKernel",
    "make_kernel",
    "project_psd",
    "rank_distances",
    "task_distances",
]
