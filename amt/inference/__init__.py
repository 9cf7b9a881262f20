"""Ways to learn a model from source tasks."""

from collections.abc import Callable

from amt.inference.map import fit_map
from amt.inference.mle import Fit, fit_mle

# Of the model that comes out, the posterior is exact in both.
POINT_ESTIMATES: dict[str, Callable[..., Fit]] = {"mle": fit_mle, "map": fit_map}

__all__ = ["POINT_ESTIMATES", "Fit", "fit_map", "fit_mle"]
