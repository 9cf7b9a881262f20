"""Ways to learn a model from source tasks, by name, with one interface.

```python
fitted = INFERENCE["mle"](starts, grid, key)  # starting points, stacked along a leading axis
source = fitted.posterior(grid)  # what the sources say of any target
```

Options have the same names in Python and on the command line of the experiments. `fitted.model` is
the model (of "nuts" and "svi" one for each draw), and `fitted.diagnostics()` says how it went.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.solvers.dense import DenseFit, fit_dense
from amt.inference.draws import Draws
from amt.inference.map import fit_map
from amt.inference.mle import Fit, Optimizer, fit_mle
from amt.inference.nuts import sample_nuts
from amt.inference.svgp import PRESETS, SparseFit, fit_svgp
from amt.inference.variational import fit_svi


def _svgp(
    starts: MultiTaskGP,
    grid: CurveGrid,
    key: PRNGKeyArray,
    *,
    preset: str = "light",
    num_inducing: int | None = None,
    batch_size: int | None = None,
    passes: int | None = None,
    learning_rate: float | None = None,
) -> SparseFit:
    """`fit_svgp` from the first start; what is not None takes the place of the preset's."""
    changes: dict[str, Any] = {
        "num_inducing": num_inducing,
        "batch_size": batch_size,
        "passes": passes,
        "learning_rate": learning_rate,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    start = jax.tree.map(lambda leaf: leaf[0], starts)
    return fit_svgp(start, grid, key, settings=replace(PRESETS[preset], **changes))


def _nuts(
    starts: MultiTaskGP,
    grid: CurveGrid,
    key: PRNGKeyArray,
    *,
    optimizer: Optimizer = "adam",
    steps: int = 300,
    learning_rate: float = 0.05,
    chains: int = 4,
    warmup: int = 450,
    draws: int = 500,
    thinning: int = 1,
    target_accept: float = 0.9,
    max_tree_depth: int = 8,
    kept: int = 16,
) -> Draws:
    """`sample_nuts` from the mode that `fit_map` finds; the posterior is of `kept` of the draws."""
    fit = fit_map(starts, grid, optimizer=optimizer, steps=steps, learning_rate=learning_rate)
    posterior = sample_nuts(
        fit.model,
        grid,
        key,
        chains=chains,
        warmup=warmup,
        draws=draws,
        thinning=thinning,
        target_accept=target_accept,
        max_tree_depth=max_tree_depth,
    )
    return posterior.thin(kept)


def _svi(
    starts: MultiTaskGP,
    grid: CurveGrid,
    key: PRNGKeyArray,
    *,
    optimizer: Optimizer = "adam",
    map_steps: int = 300,
    map_learning_rate: float = 0.05,
    steps: int = 3000,
    learning_rate: float = 0.01,
    kept: int = 16,
) -> Draws:
    """`fit_svi` (mean field) around the mode that `fit_map` finds, and `kept` draws from it."""
    fit = fit_map(
        starts, grid, optimizer=optimizer, steps=map_steps, learning_rate=map_learning_rate
    )
    return fit_svi(fit.model, grid, key, steps=steps, learning_rate=learning_rate, draws=kept)


Fitted = Fit | SparseFit | DenseFit | Draws
INFERENCE: dict[str, Callable[..., Fitted]] = {
    "mle": fit_mle,
    "map": fit_map,
    "svgp": _svgp,
    "dense": fit_dense,
    "nuts": _nuts,
    "svi": _svi,
}

__all__ = [
    "INFERENCE",
    "DenseFit",
    "Draws",
    "Fit",
    "Fitted",
    "SparseFit",
    "fit_dense",
    "fit_map",
    "fit_mle",
    "fit_svgp",
    "fit_svi",
    "sample_nuts",
]
