"""Ways to learn a model from source tasks."""

from amt.inference.mle import Fit, fit_mle

__all__ = ["Fit", "fit_mle"]
