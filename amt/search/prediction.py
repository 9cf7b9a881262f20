"""Predictions in units of the metric, and the weights of past tasks in them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from amt.gp.observations import TargetPosterior
from amt.outcome import Outcome, RobustOutcome

NODES = 16  # of Gauss-Hermite quadrature
HALVINGS = 50  # of the interval that has a quantile


class MetricPrediction(NamedTuple):
    """Mean and interval of the metric of each configuration after each epoch.

    Attributes:
        mean: expectation; of losses and other metrics that scores are logarithms of, the median.
        lower, upper: ends of the central interval.
    """

    mean: Float[np.ndarray, "config epoch"]
    lower: Float[np.ndarray, "config epoch"]
    upper: Float[np.ndarray, "config epoch"]


class Similarity(NamedTuple):
    r"""Weights of the past tasks in what is predicted of the target, which sum to about 1.

    Attributes:
        tasks: names of the past tasks.
        mean: expectation of each weight.
        lower, upper: ends of the central 90% interval.
        transfer: probability that the past tasks say anything about the target.
    """

    tasks: tuple[str, ...]
    mean: Float[np.ndarray, "task"]
    lower: Float[np.ndarray, "task"]
    upper: Float[np.ndarray, "task"]
    transfer: float


def predict_metric(
    posterior: TargetPosterior,
    noise: Float[np.ndarray, "*component epoch"],
    outcome: Outcome,
    *,
    level: float,
) -> MetricPrediction:
    """Mean and central interval of the metric, noise included, of a mixture or a single posterior.

    The ends are quantiles of the scores' mixture, widened and transformed back.
    """
    weights, mean, deviation = _components(posterior, noise)
    *_, wider = _components(posterior.widened(), noise)
    average = _expectation(weights, mean, deviation, outcome)
    ends = [
        outcome.inverse(mixture_quantile(weights, mean, wider, share))
        for share in ((1 - level) / 2, (1 + level) / 2)
    ]
    return MetricPrediction(average, np.minimum(*ends), np.maximum(*ends))


def expected_metric(
    posterior: TargetPosterior, outcome: Outcome
) -> Float[np.ndarray, "config epoch"]:
    """The mean of `MetricPrediction` of the noise-free score, of a mixture or a single posterior.

    Near the end of a bounded metric it is below what the mean of the score stands for, the more so
    the less is known: a score that may be beyond the end is worth no more than the end.
    """
    return _expectation(*_components(posterior, np.zeros(posterior.mean.shape[-1])), outcome)


def best_expected_score(
    posterior: TargetPosterior, outcome: Outcome
) -> Float[np.ndarray, "config"]:
    """The best expected metric of each configuration over all epochs, as a score."""
    return outcome.forward(expected_metric(posterior, outcome)).max(1)


def probability_above(
    posterior: TargetPosterior, score: float
) -> Float[np.ndarray, "config epoch"]:
    """Probability that the noise-free score is above the one given."""
    weights, mean, deviation = _components(posterior, np.zeros(posterior.mean.shape[-1]))
    least = np.finfo(deviation.dtype).tiny
    beyond = (mean - score) / np.maximum(deviation, least)
    return np.tensordot(weights, ndtr(beyond), 1)


def _components(
    posterior: TargetPosterior, noise: Float[np.ndarray, "*component epoch"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, means and standard deviations of the scores of all components, or of one."""
    single = posterior.log_weights is None
    mean = np.asarray(posterior.mean)[None] if single else np.asarray(posterior.mean)
    variance = np.asarray(posterior.variance).reshape(mean.shape)
    deviation = np.sqrt(variance + np.asarray(noise).reshape(-1, 1, mean.shape[-1]))
    weights = np.ones(1) if single else np.exp(np.asarray(posterior.log_weights))
    return weights, mean, deviation


def _expectation(
    weights: Float[np.ndarray, "component"],
    mean: Float[np.ndarray, "component config epoch"],
    deviation: Float[np.ndarray, "component config epoch"],
    outcome: Outcome,
) -> Float[np.ndarray, "config epoch"]:
    r"""\(\sum_k w_k\, E[g^{-1}(z_k)]\) by quadrature; the median for a `RobustOutcome` with a tail.

    g is the outcome transform, z_k the normal score of component k. The expectation of a metric
    that grows exponentially, or faster, in the score hangs on what is hardly possible.
    """
    if isinstance(outcome, RobustOutcome) and not (
        outcome.softening is None and np.isinf(outcome.knee)
    ):
        return outcome.inverse(mixture_quantile(weights, mean, deviation, 0.5))
    nodes, mass = np.polynomial.hermite_e.hermegauss(NODES)
    values = outcome.inverse(mean[..., None] + deviation[..., None] * nodes)
    return np.einsum("k,kcei,i->ce", weights, values, mass / mass.sum())


def mixture_quantile(
    weights: Float[np.ndarray, "component"],
    mean: Float[np.ndarray, "component *value"],
    deviation: Float[np.ndarray, "component *value"],
    share: float,
) -> Float[np.ndarray, "*value"]:
    """Quantiles of mixtures of normal distributions, by bisection."""
    lower, upper = (mean - 10 * deviation).min(0), (mean + 10 * deviation).max(0)
    width = np.maximum(deviation, np.finfo(float).tiny)
    for _ in range(HALVINGS):
        middle = (lower + upper) / 2
        below = np.tensordot(weights, ndtr((middle - mean) / width), 1) < share
        lower, upper = np.where(below, middle, lower), np.where(below, upper, middle)
    return (lower + upper) / 2


def similarity_of(
    tasks: tuple[str, ...],
    weights: Float[np.ndarray, "component"],
    mean: Float[np.ndarray, "component task"],
    deviation: Float[np.ndarray, "component task"],
) -> Similarity:
    """Summarise the weights under each component; without transfer they are 0 for certain."""
    has = (deviation > 0).any(1)
    transfer = weights[has].sum()
    given = weights[has] / max(transfer, np.finfo(float).tiny)
    lower, upper = (
        mixture_quantile(given, mean[has], deviation[has], share) for share in (0.05, 0.95)
    )
    return Similarity(tasks, given @ mean[has], lower, upper, min(float(transfer), 1.0))
