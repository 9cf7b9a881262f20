"""Ways to learn a model from source tasks, by name, with one interface.

```python
fitted = INFERENCE["mle"].fit(starts, grid, key)  # starting points, stacked along a leading axis
source = fitted.posterior(grid)  # conditioned on the sources, for any target
```

Options have the same names in Python and on the command line of the experiments. `fitted.model` is
the model (of "nuts" and "svi" one for each draw), and `fitted.diagnostics()` says how it went.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
from jaxtyping import PRNGKeyArray

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.observations import SourcePosterior
from amt.inference.draws import Draws
from amt.inference.mle import Fit, Optimizer, fit_dense, fit_map, fit_mle
from amt.inference.nuts import sample_nuts
from amt.inference.svgp import PRESETS, SparseFit, fit_svgp
from amt.inference.variational import fit_svi


class Fitted(Protocol):
    """The result of inference on source tasks."""

    @property
    def model(self) -> Any: ...

    def diagnostics(self) -> dict[str, float]:
        """How inference went, in numbers."""
        ...

    def posterior(self, grid: CurveGrid, rank: int | None = None) -> SourcePosterior:
        """Condition on the source curves, for any target; `rank` as in `amt.gp.posterior`."""
        ...


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
    """Run `fit_svgp` from the first start; what is not None takes the place of the preset's."""
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
    """Run `sample_nuts` from the mode that `fit_map` finds, and keep `kept` of the draws."""
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
    """Run `fit_svi` (mean field) around the mode that `fit_map` finds, and `kept` draws from it."""
    fit = fit_map(
        starts, grid, optimizer=optimizer, steps=map_steps, learning_rate=map_learning_rate
    )
    return fit_svi(fit.model, grid, key, steps=steps, learning_rate=learning_rate, draws=kept)


@dataclass(frozen=True, kw_only=True)
class Inference:
    """A way to learn a model from source tasks, and what it can take.

    Attributes:
        fit: called with starting points, the source curves, a key, and options by keyword.
        nugget: whether the model can have a nugget.
        incomplete: whether source curves can be incomplete.
        live: whether a live tuner fits by itself; what takes minutes is fitted before.
    """

    fit: Callable[..., Fitted]
    nugget: bool = False
    incomplete: bool = False
    live: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The options by keyword of `fit`, and their defaults."""
        parameters = inspect.signature(self.fit).parameters.values()
        keywords = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "solver"]
        return {parameter.name: parameter.default for parameter in keywords}


INFERENCE: dict[str, Inference] = {
    "mle": Inference(fit=fit_mle, nugget=True, incomplete=True, live=True),
    "map": Inference(fit=fit_map, nugget=True, incomplete=True, live=True),
    "svgp": Inference(fit=_svgp),
    "dense": Inference(fit=fit_dense),
    "nuts": Inference(fit=_nuts),
    "svi": Inference(fit=_svi),
}

__all__ = [
    "INFERENCE",
    "Draws",
    "Fit",
    "Fitted",
    "Inference",
    "SparseFit",
    "fit_dense",
    "fit_map",
    "fit_mle",
    "fit_svgp",
    "fit_svi",
    "sample_nuts",
]
