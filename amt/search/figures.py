"""Figures of a live tuner: predicted curves with what was told, and the past tasks' weights."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.figure import Figure

from amt.search.prediction import MetricPrediction, Similarity


def curves_figure(
    numbers: Sequence[int],
    epochs: Int[np.ndarray, "epoch"],
    prediction: MetricPrediction,
    told: Sequence[tuple[int, int, float]],
    *,
    level: float,
) -> Figure:
    """Predicted curves of some configurations, their intervals, and the metrics told of them."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for row, number in enumerate(numbers):
        color = f"C{row % 10}"
        axes.plot(epochs, prediction.mean[row], color=color, label=str(number))
        axes.fill_between(
            epochs, prediction.lower[row], prediction.upper[row], color=color, alpha=0.15, lw=0
        )
        points = [(epoch, metric) for other, epoch, metric in told if other == number]
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=color, markersize=3)
    axes.set(xlabel="epoch", ylabel="metric", title=f"Predicted curves, {level:.0%} intervals")
    axes.legend(title="configuration", fontsize="small")
    return figure


def similarity_figure(similarity: Similarity) -> Figure:
    """Weights of the past tasks with their 90% intervals, the largest on top."""
    order = np.argsort(similarity.mean)
    figure = Figure(figsize=(5, 1 + 0.22 * len(order)), layout="constrained")
    axes = figure.subplots()
    mean, rows = similarity.mean[order], np.arange(len(order))
    around = np.abs(np.stack([similarity.lower, similarity.upper])[:, order] - mean)
    axes.errorbar(mean, rows, xerr=around, fmt="o", markersize=4, capsize=2)
    axes.axvline(0, color="0.7", lw=1, zorder=0)
    # A name with two $ is no formula.
    axes.set_yticks(rows, [similarity.tasks[task] for task in order], parse_math=False)
    axes.set(xlabel="weight", title=f"Past tasks; transfer {similarity.transfer:.0%} likely")
    return figure
