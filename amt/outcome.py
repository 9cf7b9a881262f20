r"""Outcome transforms: from a metric, such as a loss, to the scores that the model sees.

The model wants scores of which larger are better, with a scale near 1, and that differ between
tasks by no more than a mean. Accuracies are like that; losses are not, and neither is a metric in
other units. An `Outcome` is a transform with an inverse; one of your own is a class with these
methods, given to `LearningCurves`, such as

```python
class Logit(Outcome):  # of an accuracy
    sign: float = 1.0

    def forward(self, metric):
        return np.log(metric) - np.log1p(-np.asarray(metric))

    def inverse(self, score):
        return 1 / (1 + np.exp(-np.asarray(score)))

    def __str__(self):
        return "score = logit(y)"
```

`Outcome.fit` chooses a `RobustOutcome` for a metric y, from its values on all source tasks:

- maximised, within [0, 1] (accuracies, AUC): the metric itself,
- minimised, never negative (losses, error rates): \(g(y) = -\operatorname{arcsinh}(y / \delta)\),
  with \(\delta\) the 1% quantile of the positive values. It is a logarithm above \(\delta\), so
  that tasks whose losses differ by a factor differ by a constant, which the task means absorb, and
  passes linearly through 0, where a logarithm ends,
- any other: \(g(y) = \pm y\), negative where it is minimised.

The last two are then standardised robustly, \(z = (g(y) - \operatorname{median}) / \sigma\) with
\(\sigma\) the interquartile range over that of a standard normal, and below -k (k = 5), on the bad
side only, z becomes \(-k - \log(1 + (-k - z))\): a run that blows up no longer sets the scale, and
the good ones are not compressed.

Every step is strictly increasing in how good the metric is, and has an inverse: rankings stay as
they are, and medians and quantiles of the model's predictions are transformed back exactly. All
constants are shared by all tasks, because a new task's own are not known before it is tuned.

Sources: Eriksson, Poloczek (2021), Scalable Constrained Bayesian Optimization, section 3.2, for
logarithmic tails; Burbidge, Magee, Robb (1988), Alternative Transformations to Handle Extreme
Values of the Dependent Variable, for arcsinh.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_NORMAL_IQR = 1.3489795003921634
_KNEE = 5.0
_SOFTENING_QUANTILE = 0.01


class Outcome(eqx.Module):
    """A strictly monotone transform between a metric and scores, of which larger are better.

    Attributes:
        sign: -1 if the metric is minimised, 1 if it is maximised.
    """

    sign: eqx.AbstractVar[float]

    @abstractmethod
    def forward(self, metric: Any) -> Any:
        """Scores of values of the metric, a number or a NumPy array."""

    @abstractmethod
    def inverse(self, score: Any) -> Any:
        """Values of the metric that have these scores.

        For a posterior with mean m and standard deviation s, `inverse(m)` is the metric's median,
        `inverse(m - 2 * s)` and `inverse(m + 2 * s)` are quantiles; its mean is another number.
        """

    @abstractmethod
    def __str__(self) -> str:
        """The formula, to print."""

    @staticmethod
    def fit(metric: Float[np.ndarray, "..."], *, minimise: bool = False) -> "RobustOutcome":
        """The transform for a metric, from its values on all source tasks; NaN are left out.

        Raises:
            ValueError: there is no value, or one is infinite.
        """
        values = np.asarray(metric, np.float64)
        values = values[~np.isnan(values)]
        if not values.size or np.isinf(values).any():
            raise ValueError("an outcome transform needs values of the metric, and finite ones")
        if not minimise and values.min() >= 0 and values.max() <= 1:
            return RobustOutcome()
        softening = None
        if minimise and values.min() >= 0 and values.max() > 0:
            softening = float(np.quantile(values[values > 0], _SOFTENING_QUANTILE))
        plain = RobustOutcome(sign=-1.0 if minimise else 1.0, softening=softening)
        scores = plain.forward(values)
        lower, location, upper = np.quantile(scores, [0.25, 0.5, 0.75])
        rounding = 1e-12 * np.abs(scores).max()
        spreads = (upper - lower) / _NORMAL_IQR, scores.std()
        scale = next((float(spread) for spread in spreads if spread > rounding), 1.0)
        return RobustOutcome(plain.sign, softening, float(location), scale, _KNEE)


class RobustOutcome(Outcome):
    """Standardisation by median and interquartile range, with logarithmic tails; by default none.

    For NumPy arrays it computes by NumPy, for JAX arrays by JAX.

    Attributes:
        sign: -1 if the metric is minimised, 1 if it is maximised.
        softening: below it arcsinh is linear, above it a logarithm; None for no arcsinh.
        location, scale: of the standardisation.
        knee: standardised scores below -knee are compressed.
    """

    sign: float = 1.0
    softening: float | None = None
    location: float = 0.0
    scale: float = 1.0
    knee: float = np.inf

    def forward(self, metric: Any) -> Any:
        xp, y = _array(metric)
        if self.softening is not None:
            y = xp.arcsinh(y / self.softening)
        z = (self.sign * y - self.location) / self.scale
        return xp.maximum(z, -self.knee) - xp.log1p(xp.maximum(-self.knee - z, 0.0))

    def inverse(self, score: Any) -> Any:
        xp, score = _array(score)
        z = xp.maximum(score, -self.knee) - xp.expm1(xp.maximum(-self.knee - score, 0.0))
        y = self.sign * (z * self.scale + self.location)
        return y if self.softening is None else xp.sinh(y) * self.softening

    def __str__(self) -> str:
        sign = "-" if self.sign < 0 else ""
        y = "y" if self.softening is None else f"arcsinh(y / {self.softening:.4g})"
        if self.knee == np.inf and (self.location, self.scale) == (0, 1):
            return f"score = {sign}{y}"
        tail = "" if self.knee == np.inf else f", logarithmic below -{self.knee:g}"
        shift = "+" if self.location < 0 else "-"
        return f"score = ({sign}{y} {shift} {abs(self.location):.4g}) / {self.scale:.4g}{tail}"


class ArcsineOutcome(Outcome):
    r"""\(\arcsin \sqrt y\) of an accuracy y in [0, 1], which spreads accuracies near 0 and 1.

    The scores of k of n examples that are right have nearly the same variance, 1 / (4 n), whatever
    the accuracy. Every score has an accuracy: `inverse` takes those beyond the ends as the ends.

    Source: Bartlett (1947), The Use of Transformations.
    """

    sign: float = 1.0

    def forward(self, metric: Any) -> Any:
        xp, y = _array(metric)
        return xp.arcsin(xp.sqrt(xp.clip(y, 0.0, 1.0)))

    def inverse(self, score: Any) -> Any:
        xp, z = _array(score)
        return xp.square(xp.sin(xp.clip(z, 0.0, np.pi / 2)))

    def __str__(self) -> str:
        return "score = arcsin(sqrt(y))"


def _array(values: Any) -> tuple[Any, Float[np.ndarray, "..."] | Float[Array, "..."]]:
    """The array library of some values, NumPy or jax.numpy, and the values as its array."""
    if isinstance(values, jax.Array):
        return jnp, values
    return np, np.asarray(values, np.float64)
