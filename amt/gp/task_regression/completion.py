r"""Source curves that are not complete, filled in with what is expected, and how uncertain that is.

In units of its task's scale, a curve is normal with the task's mean course \(\mu_t\) and a
covariance V between epochs that all curves share, both found by expectation maximisation. What is
missing of a curve with some scores o is

\[ E[z_m \mid z_o] = \mu_m + V_{mo} V_{oo}^{-1} (z_o - \mu_o), \qquad
   V_{mm} - V_{mo} V_{oo}^{-1} V_{om} . \]

A whole curve is predicted from those of other configurations and tasks, by the covariance

\[ \big(\rho + (1 - \rho)\, 1[t = t']\big) \big(s\, k(x, x') + (1 - s)\, 1[x = x']\big)\, V \]

between the curves (t, x) and (t', x'), k a Matern-5/2 kernel. Its three numbers are those of a few
with the largest likelihood.

This is done once, on the host, before anything is learned: the likelihood of what is filled in is
no evidence, and `fit_task_regression` gives a task the share of its scores that are known.

Source: Little, Rubin (2002), Statistical Analysis with Missing Data, section 11.2, for the
expectation maximisation.
"""

from itertools import product, starmap
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist

ITERATIONS = 30
PRIOR_CURVES = 3  # that the prior of V weighs as much as
FEW = 400  # curves that numbers are chosen by
MOST = 4000  # curves that others are predicted from


class Completed(NamedTuple):
    """Scores without a gap, and the variance of those filled in; 0 of others."""

    scores: Float[np.ndarray, "task config epoch"]
    variance: Float[np.ndarray, "task config epoch"]


def complete(
    scores: Float[np.ndarray, "task config epoch"],
    features: Float[np.ndarray, "config feature"],
    epochs: Float[np.ndarray, "epoch"],
) -> Completed:
    """Fill in scores that are missing; every task has one at least.

    Args:
        features: encoded configurations.
        epochs: as a share of the last.
    """
    known = np.isfinite(scores)
    if known.all():
        return Completed(scores, np.zeros_like(scores))
    started: Any = known.any(2)
    best = np.where(started, np.where(known, scores, -np.inf).max(2), np.nan)
    level, scale = np.nanmean(best, 1), np.nanstd(best, 1)
    typical = np.median(scale[scale > 0]) if (scale > 0).any() else 1.0
    scale = np.maximum(scale, 0.1 * typical)
    level, scale = level[:, None, None], scale[:, None, None]
    standard = (scores - level) / scale

    task, config = np.nonzero(started)
    curves = _extrapolate(standard[started], known[started], task, np.log(epochs))
    filled = np.repeat(curves.mean[:, None], scores.shape[1], 1)
    variance = np.zeros_like(scores)
    filled[started], variance[started] = curves.filled, curves.variance
    if not started.all():
        residual = curves.filled - curves.mean[task]
        gone: Any = np.nonzero(~started)
        predicted, left = _whole_curves(residual, (task, config), gone, features)
        filled[~started] += predicted
        variance[~started] = left[:, None] * np.diagonal(curves.covariance)
    return Completed(np.where(known, scores, level + scale * filled), scale**2 * variance)


class _Curves(NamedTuple):
    """Curves with at least one score, filled in; the courses of their tasks, and V."""

    filled: Float[np.ndarray, "curve epoch"]
    variance: Float[np.ndarray, "curve epoch"]
    mean: Float[np.ndarray, "task epoch"]
    covariance: Float[np.ndarray, "epoch epoch"]


def _extrapolate(
    scores: Float[np.ndarray, "curve epoch"],
    known: Bool[np.ndarray, "curve epoch"],
    task: Int[np.ndarray, "curve"],
    log_epochs: Float[np.ndarray, "epoch"],
) -> _Curves:
    """Expectation maximisation over the means of tasks and the covariance of epochs."""
    patterns, of_curve = np.unique(known, axis=0, return_inverse=True)
    tasks = np.arange(task.max() + 1)
    covered = np.stack([known[task == t].any(0) for t in tasks])
    shape = np.exp(-np.abs(log_epochs[:, None] - log_epochs) / 2)
    covariance = 0.95 * shape + 0.05 * np.eye(len(shape))
    counts = known.sum(0)
    overall = np.where(known, scores, 0).sum(0) / np.maximum(counts, 1)
    overall = np.interp(log_epochs, log_epochs[counts > 0], overall[counts > 0])
    mean = np.stack([overall] * len(tasks))
    filled, variance = scores.copy(), np.zeros_like(scores)
    for _ in range(ITERATIONS):
        spread = np.zeros_like(covariance)
        for index, have in enumerate(patterns):
            rows = np.flatnonzero(of_curve == index)
            miss = ~have
            if not miss.any():
                continue
            gain = _regress(covariance, have)
            center = mean[task[rows]]
            filled[np.ix_(rows, miss)] = (
                center[:, miss] + (scores[np.ix_(rows, have)] - center[:, have]) @ gain
            )
            left = covariance[np.ix_(miss, miss)] - gain.T @ covariance[np.ix_(have, miss)]
            spread[np.ix_(miss, miss)] += len(rows) * left
            variance[np.ix_(rows, miss)] = np.maximum(np.diagonal(left), 0)
        for t in tasks:
            seen = covered[t]
            mean[t, seen] = filled[task == t][:, seen].mean(0)
        overall = mean.mean(0)
        for t in tasks[~covered.all(1)]:
            seen = covered[t]
            gain = _regress(covariance, seen)
            mean[t, ~seen] = overall[~seen] + (mean[t, seen] - overall[seen]) @ gain
        residual = filled - mean[task]
        total = residual.T @ residual + spread
        size = np.mean(np.diagonal(total)) / len(scores)
        prior = PRIOR_CURVES * size * (0.95 * shape + 0.05 * np.eye(len(shape)))
        covariance = (total + prior) / (len(scores) + PRIOR_CURVES)
    return _Curves(filled, variance, mean, covariance)


def _regress(
    covariance: Float[np.ndarray, "epoch epoch"], have: Bool[np.ndarray, "epoch"]
) -> Float[np.ndarray, "have miss"]:
    """Coefficients of the epochs that are missing on those that are there."""
    among = covariance[np.ix_(have, have)]
    ridge = 1e-9 * np.trace(among) / len(among) * np.eye(len(among))
    return cho_solve(cho_factor(among + ridge), covariance[np.ix_(have, ~have)])


class _Numbers(NamedTuple):
    """Numbers of the covariance between curves: rho, s and the lengthscale."""

    shared: float
    smooth: float
    lengthscale: float


def _whole_curves(
    residual: Float[np.ndarray, "curve epoch"],
    at: tuple[Int[np.ndarray, "curve"], Int[np.ndarray, "curve"]],
    missing: tuple[Int[np.ndarray, "missing"], Int[np.ndarray, "missing"]],
    features: Float[np.ndarray, "config feature"],
) -> tuple[Float[np.ndarray, "missing epoch"], Float[np.ndarray, "missing"]]:
    """Predict curves of other tasks and configurations, and the share of V that is left of each."""
    order = np.random.default_rng(0).permutation(len(residual))
    distance = cdist(features, features)
    typical = np.median(distance[distance > 0]) if (distance > 0).any() else 1.0
    few = order[:FEW]
    lengthscales = 0.3 * typical, typical, 3 * typical
    choices = product((0.0, 0.3, 0.6, 0.9), (0.3, 0.6, 0.9), lengthscales)

    def log_likelihood(numbers: _Numbers) -> float:
        some = at[0][few], at[1][few]
        gram = _covariance(numbers, some, some, distance)
        factor = cho_factor(gram + 1e-6 * np.eye(len(gram)), lower=True)
        values = residual[few]
        squares = np.maximum((values * cho_solve(factor, values)).sum(0), 1e-12)
        log_det = 2 * np.log(np.diagonal(factor[0])).sum()
        # Epochs say much the same: together they count as one.
        return -0.5 * (len(few) * np.log(squares).mean() + log_det)

    numbers = max(starmap(_Numbers, choices), key=log_likelihood)
    kept = order[:MOST]
    some = at[0][kept], at[1][kept]
    gram = _covariance(numbers, some, some, distance)
    factor = cho_factor(gram + 1e-6 * np.eye(len(gram)))
    cross = _covariance(numbers, missing, some, distance)
    explained = (cross * cho_solve(factor, cross.T).T).sum(1)
    return cross @ cho_solve(factor, residual[kept]), np.clip(1 - explained, 0, 1)


def _covariance(
    numbers: _Numbers,
    first: tuple[Int[np.ndarray, "first"], Int[np.ndarray, "first"]],
    second: tuple[Int[np.ndarray, "second"], Int[np.ndarray, "second"]],
    distance: Float[np.ndarray, "config config"],
) -> Float[np.ndarray, "first second"]:
    """Covariance between curves, in units of V."""
    r = np.sqrt(5) * distance[np.ix_(first[1], second[1])] / numbers.lengthscale
    smooth = (1 + r + r**2 / 3) * np.exp(-r)
    same = first[1][:, None] == second[1]
    configs = numbers.smooth * smooth + (1 - numbers.smooth) * same
    return np.where(first[0][:, None] == second[0], 1, numbers.shared) * configs
