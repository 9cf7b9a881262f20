r"""Gaussian processes on the final scores of configurations, by exact search over their parameters.

Scores of n configurations, standardised to mean 0 and standard deviation 1, are

\[ y = f(x) + \varepsilon, \qquad f \sim GP(0, s^2 k_\ell), \qquad
   \varepsilon \sim N(0, s^2 \lambda), \]

\(k_\ell\) being Matern-5/2 with one lengthscale for all features. The scale has the prior
\(s^{-2} \sim \mathrm{Gamma}(1, 1)\) and its best value in closed form,

\[ s^2 = \frac{y^\top (K_\ell + \lambda I)^{-1} y + 2}{n + 4}, \]

and \(\ell\), which is log-normal around the median distance of configurations, and \(\lambda\) are
the best of a grid: no optimiser can fail on a handful of scores, and one eigendecomposition for a
lengthscale serves all \(\lambda\) and all tasks with the same configurations.

Source: Rasmussen and Williams (2006), sections 2.2, 4.2 and 5.4.
"""

from abc import abstractmethod
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import norm

from amt.curves import LearningCurves
from amt.tuners.schedule import Schedule

LENGTHSCALES = 2.0 ** np.arange(-2, 3.5, 0.5)
"""As multiples of the median distance of configurations."""

NOISES = np.array([1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0])
"""Noise variances as multiples of the signal's."""


class Posterior(NamedTuple):
    """Posterior of the noise-free scores of all configurations, in standardised units.

    Attributes:
        left_out: mean of each configuration that has a score given the others, in their order.
    """

    mean: Float[np.ndarray, "config"]
    covariance: Float[np.ndarray, "config config"]
    left_out: Float[np.ndarray, "scored"]

    @property
    def deviation(self) -> Float[np.ndarray, "config"]:
        return np.sqrt(np.maximum(np.diagonal(self.covariance), 1e-12))


class FinalScoreGP:
    """Gaussian processes on the scores of configurations with given features."""

    def __init__(self, features: Float[np.ndarray, "config feature"]):
        squared = np.square(features[:, None] - features).sum(2)
        apart = np.sqrt(squared[np.triu_indices(len(features), 1)])
        unit = float(np.median(apart)) if apart.size and np.median(apart) > 0 else 1.0
        r = np.sqrt(5 * squared) / (unit * LENGTHSCALES[:, None, None])
        self._grams = (1 + r + np.square(r) / 3) * np.exp(-r)

    def posterior(
        self, configs: Int[np.ndarray, "scored"], scores: Float[np.ndarray, "scored"]
    ) -> Posterior:
        """Fit to some scores, which are standardised, and condition on them."""
        return self.posteriors(configs, np.asarray(scores)[None])[0]

    def posteriors(
        self, configs: Int[np.ndarray, "scored"], scores: Float[np.ndarray, "task scored"]
    ) -> list[Posterior]:
        """Fit to each of several tasks with scores of the same configurations, and condition."""
        count = len(configs)
        y = standardized(scores)
        if not count:
            gram = self._grams[len(LENGTHSCALES) // 2]
            return [Posterior(np.zeros(len(gram)), gram, y[0])] * len(y)
        values, vectors = np.linalg.eigh(self._grams[:, configs][:, :, configs])
        spectrum = np.maximum(values, 0)[:, None] + NOISES[:, None]
        rotated = np.einsum("lij,ti->ltj", vectors, y)
        quadratic = np.einsum("ltj,lnj->tln", np.square(rotated), 1 / spectrum)
        scale = (quadratic + 2) / (count + 4)
        log_prior = -0.5 * np.square(np.log(LENGTHSCALES))[:, None]
        half_log_det = 0.5 * np.log(spectrum).sum(2)
        density = log_prior - half_log_det - (0.5 * count + 2) * np.log(scale)
        posteriors = []
        for task, of_task in enumerate(density):
            at, noise = np.unravel_index(np.argmax(of_task), of_task.shape)
            root = vectors[at] / np.sqrt(spectrum[at, noise])
            precise = root @ root.T
            weights = precise @ y[task]
            cross = self._grams[at][:, configs]
            explained = cross @ root
            covariance = scale[task, at, noise] * (self._grams[at] - explained @ explained.T)
            left_out = y[task] - weights / np.diagonal(precise)
            posteriors.append(Posterior(cross @ weights, covariance, left_out))
        return posteriors


def standardized(scores: Float[np.ndarray, "*task scored"]) -> Float[np.ndarray, "*task scored"]:
    """Scores with mean 0 and standard deviation 1, of each task; 0 where all are the same."""
    if not scores.shape[-1]:
        return scores
    deviation = scores.std(-1, keepdims=True)
    centered = scores - scores.mean(-1, keepdims=True)
    return centered / np.where(deviation > 1e-12, deviation, 1)


def final_scores(sources: LearningCurves) -> Float[np.ndarray, "task config"]:
    """Score of each source's configurations at their best epoch, the worst where it has none."""
    known = np.isfinite(sources.scores)
    best = np.max(sources.scores, axis=2, initial=-np.inf, where=known)
    worst = np.min(np.where(np.isfinite(best), best, np.inf), axis=1, keepdims=True)
    return np.where(np.isfinite(best), best, worst)


def expected_improvement(
    mean: Float[np.ndarray, "config"], deviation: Float[np.ndarray, "config"], incumbent: Any
) -> Float[np.ndarray, "config"]:
    """Expected improvement over the incumbent (Jones, Schonlau, Welch 1998, equation 15)."""
    z = (mean - incumbent) / deviation
    return deviation * (z * norm.cdf(z) + norm.pdf(z))


class OnFinalScores(Schedule):
    """A tuner that chooses by final scores, and trains a configuration to its end.

    `choose` gives one value for each configuration, and the untried one of the largest is next.
    """

    @abstractmethod
    def choose(self) -> Float[np.ndarray, "config"]:
        """The value of training each configuration."""

    def schedule(self):
        while self.untried.size:
            values = self.choose()[self.untried]
            yield from self.train(int(self.untried[np.argmax(values)]))

    @property
    def scored(self) -> Int[np.ndarray, "scored"]:
        """Configurations that have been trained."""
        return np.flatnonzero(self.trained)

    @property
    def scores(self) -> Float[np.ndarray, "scored"]:
        """Their scores, standardised."""
        return standardized(self.values[self.scored])

    @cached_property
    def gp(self) -> FinalScoreGP:
        return FinalScoreGP(self.sources.features)

    def posterior(self) -> Posterior:
        """Condition the Gaussian process on the target's own scores."""
        return self.gp.posterior(self.scored, self.scores)
