r"""Quality of a low fidelity: what the score after an epoch says about the best score of its curve.

With \(y_t(c, e)\) the score of configuration c on task t after epoch e and
\(v_t(c) = \max_e y_t(c, e)\) its best, every epoch is described by

- *rank correlation*: Spearman's, of \(y_t(\cdot, e)\) and \(v_t\), mean over tasks;
- *top recall*: share of the k best configurations by \(v_t\) that are among the k best by
  \(y_t(\cdot, e)\), in expectation over how ties are broken, mean over tasks;
- *wrong nearest*: share of tasks whose most similar other task (the largest rank correlation over
  configurations) by the scores after that epoch is not the one by the best scores; *lost
  similarity*: how much less correlated by the best scores that one is, mean over tasks;
- *information*, an index in [0, 1]: with \(r_t\) the correlation over configurations of the normal
  scores \(\Phi^{-1}(\mathrm{rank} / (n + 1))\) of \(y_t(\cdot, e)\) and of \(v_t\),

\[ I(e) = 1 - \frac{\mathrm E\, \mathrm{var}(v \mid y(e))}{\mathrm{var}(v)}
        = \max\Big(0, \frac1T \sum_t r_t\Big)^2 , \]

the share of the variance of the best score within a task that is gone once the score after the
epoch is known and predicted from by one slope, the same for all tasks (one that a past task can
teach): 0 says nothing or misleads, 1 says all. Ranks make it the same for any metric, and no
diverged configuration outweighs others.

*Cost* is that of training to the epoch as a share of training to the last, of epochs where costs
are not known. *Information per cost* is their ratio. Recommended is the cheapest epoch that is good
enough: the first with at least a given share of the information of the best epoch, both by the
lower ends of their intervals. Intervals are of 95%, by the bootstrap over tasks.

Source: Spearman (1904); van der Waerden (1952) for normal scores; Efron (1979) for the bootstrap.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy.stats import bootstrap, norm, rankdata

from amt import databases
from amt.curves import LearningCurves
from amt.evaluation.figures import COLORS, TITLE, WIDTH, finish, title_of
from amt.evaluation.metrics import configuration_values
from amt.evaluation.output import write_output
from amt.tuners.checks import check_choice, check_positive

_INTERVALS = {
    "rank_correlation": "rank correlation",
    "top_recall": "recall of the best",
    "information": "information",
}


def fidelity_quality(
    curves: LearningCurves, *, top: int = 10, good_enough: float = 0.9, seed: int = 0
) -> pd.DataFrame:
    """One row an epoch, with the columns that the module names.

    Those with an interval have its ends under their name with `_lower` and `_upper` appended;
    `recommended` is true of one row.

    Args:
        top: k, at most the number of configurations.
        good_enough: share of the information of the best epoch.
        seed: of the bootstrap.

    Raises:
        ValueError: fewer than three tasks, or a number out of range.
    """
    check_positive("top", top)
    if top > curves.num_configs:
        raise ValueError(f"top must be at most {curves.num_configs}, not {top}")
    if curves.num_tasks < 3:
        raise ValueError(f"similar tasks need at least 3 tasks, not {curves.num_tasks}")
    if not 0 < good_enough < 1:
        raise ValueError(f"good_enough must be between 0 and 1, not {good_enough}")
    values = np.stack([configuration_values(of_task) for of_task in curves.scores])
    nearest = similarity(values)
    rows, by_task = [], {name: [] for name in _INTERVALS}
    by_epoch = np.moveaxis(curves.scores, 2, 0)
    for epoch, cost, scores in zip(curves.epochs, relative_costs(curves), by_epoch, strict=True):
        by_task["rank_correlation"].append(correlation(*_ranks(scores, values)))
        by_task["information"].append(correlation(*_normal_scores(scores, values)))
        by_task["top_recall"].append(top_recall(scores, values, top))
        chosen = np.argmax(similarity(scores), axis=1)
        lost = nearest.max(1) - nearest[np.arange(len(chosen)), chosen]
        # Of equally similar tasks, any is right.
        rows.append({"epoch": epoch, "cost": cost, "wrong_nearest": (lost > 0).mean()})
        rows[-1]["lost_similarity"] = lost.mean()
    table = pd.DataFrame(rows)
    rng = np.random.default_rng(seed)
    for name, of_epochs in by_task.items():
        sample = np.stack(of_epochs)
        drawn = bootstrap(
            (sample,), np.mean, axis=1, n_resamples=2000, method="percentile", rng=rng
        )
        ends = sample.mean(1), *drawn.confidence_interval
        if name == "information":
            ends = tuple(np.square(np.maximum(end, 0)) for end in ends)
        table[name], table[f"{name}_lower"], table[f"{name}_upper"] = ends
    table["information_per_cost"] = table["information"] / table["cost"]
    lower = table["information_lower"].to_numpy()
    table["recommended"] = np.arange(len(table)) == np.argmax(lower >= good_enough * lower.max())
    return table


def relative_costs(curves: LearningCurves) -> Float[np.ndarray, "epoch"]:
    """Cost of training to each epoch, summed over all curves, as a share of that to the last."""
    if curves.cost is None:
        return curves.epochs / curves.epochs[-1]
    spent = np.cumsum(np.nansum(curves.cost, (0, 1)))
    return spent / spent[-1]


def correlation(
    a: Float[np.ndarray, "*batch config"], b: Float[np.ndarray, "*batch config"]
) -> Float[np.ndarray, "*batch"]:
    """Pearson's correlation along the last axis of what both have; 0 where one is constant."""
    known = np.isfinite(a) & np.isfinite(b)
    count = np.maximum(known.sum(-1, keepdims=True), 1)
    a, b = (np.where(known, x, 0.0) for x in (a, b))
    a, b = (np.where(known, x - x.sum(-1, keepdims=True) / count, 0.0) for x in (a, b))
    scale = np.sqrt(np.square(a).sum(-1) * np.square(b).sum(-1))
    return np.where(scale > 0, (a * b).sum(-1) / np.where(scale > 0, scale, 1.0), 0.0)


def similarity(scores: Float[np.ndarray, "task config"]) -> Float[np.ndarray, "task task"]:
    """Spearman's correlation of the scores of each pair of tasks; -inf of a task with itself."""
    similar = np.stack(
        [correlation(*_ranks(np.broadcast_to(a, scores.shape), scores)) for a in scores]
    )
    np.fill_diagonal(similar, -np.inf)
    return similar


def top_recall(
    scores: Float[np.ndarray, "task config"], values: Float[np.ndarray, "task config"], top: int
) -> Float[np.ndarray, "task"]:
    """Share of the best configurations by value that are among the best by score."""
    return (_membership(scores, top) * _membership(values, top)).sum(1) / top


def _membership(
    scores: Float[np.ndarray, "task config"], top: int
) -> Float[np.ndarray, "task config"]:
    """Probability of each configuration to be among the best when ties are broken at random."""
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    threshold = np.sort(scores, axis=1)[:, [-min(top, scores.shape[1])]]
    above, tied = scores > threshold, scores == threshold
    share = (top - above.sum(1, keepdims=True)) / tied.sum(1, keepdims=True)
    return np.where(above, 1.0, np.where(tied & np.isfinite(scores), np.minimum(share, 1), 0.0))


def _ranks(*both: np.ndarray) -> list[np.ndarray]:
    """Ranks along the last axis, from 1, among what both have."""
    known = np.isfinite(both[0]) & np.isfinite(both[1])
    ranked = (np.where(known, x, np.nan) for x in both)
    return [rankdata(x, axis=-1, nan_policy="omit") for x in ranked]


def _normal_scores(*both: np.ndarray) -> list[np.ndarray]:
    ranks = _ranks(*both)
    count = np.isfinite(ranks[0]).sum(-1, keepdims=True)
    return [norm.ppf(rank / (count + 1)) for rank in ranks]


def fidelity_figure(table: pd.DataFrame, title: str) -> Figure:
    """The columns of `fidelity_quality` against epochs, intervals shaded, the recommended dotted.

    The last panel shows information against cost.
    """
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    epochs: Any = table["epoch"]
    best: Any = table.loc[table["recommended"]].iloc[0]
    panels = "rank_correlation", "top_recall", "wrong_nearest", "information"
    for axis, name in zip(axes, panels, strict=True):
        x = table["cost"] if name == "information" else epochs
        axis.plot(x, table[name], color=COLORS[0], marker="o", markersize=2.5, lw=1.4)
        if name in _INTERVALS:
            ends = table[f"{name}_lower"], table[f"{name}_upper"]
            axis.fill_between(x, *ends, color=COLORS[0], alpha=0.2, lw=0)
        axis.axvline(best["cost"] if name == "information" else best["epoch"], color="0.3", ls=":")
        axis.set_xscale("log")
        axis.set_ylim(min(0.0, table[name].min()), 1.02)
        cost = "cost, as a share of training to the last epoch"
        ylabel = _INTERVALS.get(name, "wrong most similar task")
        finish(axis, cost if name == "information" else "epoch", ylabel)
    figure.suptitle(
        f"{title}; bands: 95% bootstrap over tasks; dotted: recommended, epoch {best['epoch']}",
        fontsize=TITLE,
    )
    return figure


def fidelity_output(settings: Mapping[str, Any]) -> tuple[pd.DataFrame, Figure]:
    """Table and figure of the epochs of a database.

    Args:
        settings: of `experiments/conf/fidelity_quality.yaml`, as plain dicts and values.
    """
    curves = databases.load(str(settings["database"]), **settings["database_options"])
    if settings["repeat"] is not None and curves.repeats is not None:
        check_choice("repeat", settings["repeat"], range(len(curves.repeats)))
        curves = curves.repeat(settings["repeat"])
    options = {name: settings[name] for name in ("top", "good_enough", "seed")}
    table = fidelity_quality(curves, **options)
    title = f"{title_of(settings['database'])}, {curves.num_tasks} tasks"
    return table, fidelity_figure(table, title)


def fidelity_run(settings: Mapping[str, Any]) -> tuple[Path, pd.DataFrame]:
    """Describe the epochs of a database, and write table and figure.

    Args:
        settings: as of `fidelity_output`.

    Returns:
        The folder, and the table.
    """
    table, figure = fidelity_output(settings)
    folder = Path(settings["output"]).resolve() / Path(settings["database"]).stem
    write_output(folder, "fidelity_quality", table, figure)
    return folder, table
