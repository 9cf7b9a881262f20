"""Statistics of results: means over cells, and their standard errors."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from amt.search.replay import Forecast
from amt.tuners import TUNERS

CELL = ["split", "repeat", "seed"]
METRICS = ("rank", "regret", "normalized_regret", *Forecast._fields)
BUDGETS = (10, 25, 50, 100)
"""Epochs spent on the target after which tables show results, unless they are given others."""


def mean_and_standard_error(
    values: Float[np.ndarray, "cell *batch"],
) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
    """Mean over cells and its standard error, which is NaN for a single cell."""
    values = np.asarray(values, np.float64)
    count = len(values)
    mean = values.mean(0)
    if count < 2:
        return mean, np.full_like(mean, np.nan)
    return mean, values.std(0, ddof=1) / np.sqrt(count)


def summarize(results: pd.DataFrame) -> pd.DataFrame:
    """Mean over cells and standard error of every metric, by method and query.

    A method's random orders are averaged within a cell first. Columns are `method`, `query`, and
    for each of `METRICS` its mean under its name and its standard error under the name with
    `_error` appended. Methods are in the order of `methods_of`.
    """
    parts = []
    for method in methods_of(results):
        rows = results.loc[results["method"] == method]
        orders = rows["order"].nunique()
        columns: dict[str, Any] = {"method": method}
        for metric in METRICS:
            by_order = rows.pivot(index=[*CELL, "order"], columns="query", values=metric)
            columns["query"] = by_order.columns
            by_cell = by_order.to_numpy().reshape(-1, orders, by_order.shape[1]).mean(1)
            mean, error = mean_and_standard_error(by_cell)
            columns |= {metric: mean, f"{metric}_error": error}
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def methods_of(results: pd.DataFrame) -> list[str]:
    """The methods of results in the order of `TUNERS`, behind them others by name."""
    present = set(results["method"])
    return [name for name in TUNERS if name in present] + sorted(present - set(TUNERS))


def label_of(method: str) -> str:
    """A method's label: that of its record, where it is registered."""
    return TUNERS[method].label if method in TUNERS else method.replace("_", " ")


def shown_budgets(queries: Collection[int], budgets: Sequence[int] = BUDGETS) -> list[int]:
    """Select the budgets that results have, for tables; the largest query if there is none."""
    return [budget for budget in budgets if budget in queries] or [max(queries)]
