"""Figures of experiments.

They are drawn with Matplotlib's object interface, so that nothing global changes, in colours that
remain distinct with the common colour vision deficiencies (Okabe and Ito 2008), each with a line
style of its own.
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from amt.results import summarize

LABELS = {
    "amt": "amt",
    "random_search": "random search",
    "source_best": "best on sources",
    "one_epoch_each": "one epoch each",
}
STYLES = {
    "amt": ("#0072B2", "-"),
    "random_search": ("#D55E00", "--"),
    "source_best": ("#009E73", "-."),
    "one_epoch_each": ("#CC79A7", ":"),
}


def recommendation_figure(results: pd.DataFrame, *, log_x: bool = False) -> Figure:
    """Rank and regret of the recommended configuration against the epochs spent.

    One line a method, the mean over cells, its standard error shaded.

    Args:
        results: rows of `amt.results`, of one database.
        log_x: epochs on a logarithmic axis.
    """
    summary = summarize(results)
    figure = Figure(figsize=(7.0, 2.9), layout="constrained")
    panels = {
        "rank": "rank of the recommended (0: best)",
        "normalized_regret": "normalized regret",
    }
    axes = figure.subplots(1, len(panels))
    for axis, (metric, label) in zip(axes, panels.items(), strict=True):
        for method, rows in summary.groupby("method", sort=False):
            color, line = STYLES[str(method)]
            query = rows["query"].to_numpy()
            mean, error = rows[metric].to_numpy(), rows[f"{metric}_error"].to_numpy()
            axis.plot(
                query, mean, color=color, linestyle=line, linewidth=1.6, label=LABELS[str(method)]
            )
            axis.fill_between(query, mean - error, mean + error, color=color, alpha=0.15, lw=0)
        axis.set(xlabel="epochs spent on the target", ylabel=label, ylim=(0, None))
        axis.set_xlim(1, summary["query"].max())
        if log_x:
            axis.set_xscale("log")
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure as PDF or PNG, by the ending of `path`; the same figure is the same bytes."""
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
    figure.savefig(path, dpi=200, metadata=metadata)
