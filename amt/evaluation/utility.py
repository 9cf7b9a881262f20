r"""Regret of the utility of score and cost, for tuners that stop and for those that do not.

The utility after spending b of the budget B is \(U(b, y_b) = y_b - a (b / B)^c\), with the best
score observed \(y_b\) (`amt.search.stopping`). A tuner that stops has that of its stop, \(U^*\),
another that of the whole budget. With the score y(e) that a configuration has at best up to epoch
e, at the cost k(e),

\[ \mathrm{regret} = \frac{U_{\max} - U^*}{U_{\max} - U_{\min}}, \qquad
   U_{\max} = \max_{c', e}\, U(k(c', e), y(c', e)), \qquad
   U_{\min} = \min_{c'} \max_e y(c', e) - a . \]

So it is 0 for training the one best configuration as far as it pays, and 1 for the worst after the
whole budget. Cost is that of the target's epochs where it is known, in units of the mean one's, and
else epochs; B is the budget in epochs. Missing scores and costs are left out.

Source: Lee et al. (2025), Cost-Sensitive Freeze-Thaw Bayesian Optimization for Efficient
Hyperparameter Tuning, section 5, with the ends of the scale as defined here.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from amt.curves import LearningCurves
from amt.evaluation.statistics import label_of
from amt.search.stopping import UTILITIES, Utility

_RUN = ["split", "repeat", "seed", "method", "order"]


def utility_regrets(
    results: pd.DataFrame, curves: LearningCurves, utilities: Sequence[Utility] = UTILITIES
) -> pd.DataFrame:
    """One row a database, target, method and utility, averaged over runs.

    Columns are `weight` and `power`, the `regret` of the module docstring, that at the `best` stop
    in hindsight, whether the tuner `stops` by itself, and the share of the budget `spent`.

    Args:
        results: rows of `amt.evaluation.rows` of one database.
        curves: of all its tasks.
    """
    budget = int(results["query"].max())
    rows = []
    keys: Any
    for keys, run in results.groupby(_RUN, sort=False):
        target, repeat = str(run["target"].iloc[0]), keys[_RUN.index("repeat")]
        task = list(map(str, curves.tasks)).index(target)
        scores = curves.scores if repeat < 0 or curves.repeats is None else curves.repeats[repeat]
        cost = _relative_cost(curves, task)
        epoch = np.searchsorted(curves.epochs, run["epoch"])
        observed = np.isfinite(run["score"].to_numpy())
        spent = np.cumsum(np.where(observed, cost[run["config"], epoch], 0)) / budget
        best = np.fmax.accumulate(run["score"].to_numpy())
        ends = _ends(scores[task], cost / budget)
        stop = run["stop"].to_numpy()
        for number, utility in enumerate(utilities):
            reached = utility(best, spent)
            at = len(run) - 1
            if stop[-1] >= 0 and stop[-1] >> number & 1:
                at = int(np.argmax(stop >> number & 1))
            highest, lowest = np.max(utility(*ends)), np.min(np.nanmax(scores[task], 1))
            scale = highest - (lowest - utility.weight)
            rows.append(
                {
                    "database": run["database"].iloc[0],
                    "target": target,
                    "method": keys[_RUN.index("method")],
                    **utility._asdict(),
                    "regret": (highest - reached[at]) / scale,
                    "best": (highest - np.nanmax(reached)) / scale,
                    "stops": stop[-1] >= 0,
                    "spent": spent[at],
                }
            )
    by = ["database", "target", "method", "weight", "power"]
    return pd.DataFrame(rows).groupby(by, sort=False).mean().reset_index()


def utility_table(regrets: pd.DataFrame) -> pd.DataFrame:
    """One row a tuner: regret in percent for each utility, and means over those that weigh cost.

    The last columns are the mean `regret`, that at the `best` stop in hindsight, and the share of
    the budget `spent`, all in percent. The best mean regret is first.
    """
    shown = regrets.assign(
        utility=[
            f"a={weight:.3g} c={power:g}" if weight else "a=0"
            for weight, power in zip(regrets["weight"], regrets["power"], strict=True)
        ]
    )
    table = 100 * shown.pivot_table("regret", "method", "utility", sort=False)
    weighed: Any = shown.loc[shown["weight"] > 0].groupby("method")
    for name in ("regret", "best", "spent"):
        table[name] = 100 * weighed[name].mean()
    table = table.sort_values("regret", kind="stable").reset_index()
    table.insert(1, "label", [label_of(method) for method in table["method"]])
    stops = shown.groupby("method")["stops"].any()
    table.insert(2, "stops", [bool(stops[method]) for method in table["method"]])
    return table


def _relative_cost(curves: LearningCurves, task: int) -> Float[np.ndarray, "config epoch"]:
    """The cost of each epoch of a task by itself, in units of its mean."""
    if curves.cost is None:
        return np.ones(curves.scores.shape[1:])
    cost = curves.cost[task]
    mean = np.nanmean(cost)
    return np.nan_to_num(cost, nan=float(mean)) / (mean if mean > 0 else 1.0)


def _ends(
    scores: Float[np.ndarray, "config epoch"], share: Float[np.ndarray, "config epoch"]
) -> tuple[Float[np.ndarray, "cell"], Float[np.ndarray, "cell"]]:
    """Best score so far, and share of the budget, of each configuration trained by itself."""
    best = np.fmax.accumulate(scores, axis=1)
    spent = np.cumsum(share, axis=1)
    known = np.isfinite(best)
    return best[known], spent[known]
