"""Epochs as a file counts them, and as few fidelities as the model needs of them.

A product kernel has a covariance of all epochs that are on the grid. Runs that log at steps of
their own have thousands in all, few of which two runs share: these are put together.
"""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from amt.databases.long_form.columns import combine
from amt.databases.long_form.findings import Finding

if TYPE_CHECKING:
    import pandas as pd

FIDELITIES = 100


def fidelities_of(epochs: Int[np.ndarray, "epoch"], count: int) -> Int[np.ndarray, "fidelity"]:
    r"""At most `count` of some epochs, the last one in each of as many intervals.

    Intervals are log-spaced, with ends \(e_1 (e_n / e_1)^{k / (K - 1)}\), k = 0 to K - 1; where no
    epoch is, there is no fidelity.

    Args:
        epochs: different ones from 1, in ascending order.
    """
    if len(epochs) <= count:
        return epochs
    ends = np.geomspace(epochs[0], epochs[-1], count) if count > 1 else epochs[-1:]
    last = np.searchsorted(epochs, np.round(ends), side="right") - 1
    last[-1] = len(epochs) - 1
    return epochs[np.unique(last)]


def bin_epochs(table: "pd.DataFrame", count: int) -> tuple["pd.DataFrame", list[Finding]]:
    """A table of at most `count` epochs, each run's last score up to one for it, and a note.

    A run that diverges between two of them does so at the latter; costs in between are added.
    """
    epochs = np.unique(table["epoch"].to_numpy()[table["score"].notna()])
    if len(epochs) <= count:
        return table, []
    fidelities = fidelities_of(epochs, count)
    what = (
        f"runs have scores at {len(epochs)} different epochs, which are put together as "
        f"{len(fidelities)} fidelities from {fidelities[0]} to {fidelities[-1]}, log-spaced: of "
        "each run, the last score up to one stands for it (fidelities=, --fidelities)"
    )
    table = table.loc[table["epoch"].to_numpy() <= fidelities[-1]]
    bins = np.searchsorted(fidelities, table["epoch"].to_numpy())
    runs = combine([table[c] for c in ("task", "config", "seed") if c in table])
    groups = runs * len(fidelities) + bins
    score = table["score"].to_numpy()
    order = np.lexsort((table["epoch"].to_numpy(), ~np.isnan(score), groups))
    groups = groups[order]
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    last = order[np.append(starts[1:], len(order)) - 1]
    diverges = np.logical_or.reduceat(np.isinf(score[order]), starts)
    binned = table.iloc[last].assign(
        epoch=fidelities[bins[last]], score=np.where(diverges, np.inf, score[last])
    )
    if "cost" in table:
        binned["cost"] = np.add.reduceat(table["cost"].to_numpy()[order], starts)
    return binned, [Finding(what)]
