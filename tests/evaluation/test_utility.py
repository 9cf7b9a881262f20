"""Regret of utility, on curves small enough to go through by hand."""

import dataclasses

import numpy as np
import pandas as pd
from numpy.testing import assert_allclose

from amt.evaluation.utility import utility_regrets, utility_table
from amt.search.stopping import UTILITIES, Utility
from tests.problems import small_curves

A = Utility(0.5, 1.0)
CURVES = dataclasses.replace(
    small_curves(2, 2, 2), scores=np.array([[[0.2, 0.9], [0.6, 0.6]], [[0, 0.5], [0.1, 0.2]]])
)


def results(stop=-1, method="amt"):
    """Task 0: configuration 1 for an epoch, then 0 for two, and nothing more."""
    return pd.DataFrame(
        {
            "database": "made up",
            "target": "task 0",
            "split": 0,
            "repeat": 0,
            "seed": 0,
            "method": method,
            "order": 0,
            "query": np.arange(1, 5),
            "config": [1, 0, 0, 0],
            "epoch": [1, 1, 2, 1],
            "score": [0.6, 0.2, 0.9, np.nan],
            "stop": stop,
        }
    )


def test_regret_is_of_the_best_single_configuration_and_of_the_stop():
    # Best: configuration 0 to its end, 0.9 - 0.5 / 2; worst: 0.6 - 0.5 after the whole budget.
    row = utility_regrets(results(), CURVES, [A]).iloc[0]
    assert_allclose(row["regret"], (0.65 - (0.9 - 0.375)) / 0.55)
    assert_allclose(row["best"], (0.65 - (0.9 - 0.375)) / 0.55)
    assert_allclose(row["spent"], 0.75)
    row = utility_regrets(results(stop=[0, 1, 1, 1]), CURVES, [A]).iloc[0]
    assert_allclose(row["regret"], (0.65 - (0.6 - 0.25)) / 0.55)
    assert (row["stops"], row["spent"]) == (1, 0.5)
    row = utility_regrets(results(stop=0), CURVES, [A]).iloc[0]
    assert_allclose(row["regret"], (0.65 - (0.9 - 0.375)) / 0.55)


def test_known_costs_count_in_units_of_the_mean_epoch():
    cost = np.array([[[3.0, 3.0], [1.0, 1.0]]] * 2)
    row = utility_regrets(results(), dataclasses.replace(CURVES, cost=cost), [A]).iloc[0]
    assert_allclose(row["spent"], (0.5 + 1.5 + 1.5) / 4)
    # Configuration 1 costs 1/8 of the budget for an epoch, configuration 0 3/4 for two.
    assert_allclose(row["regret"], (0.6 - 0.5 / 8 - (0.9 - 0.5 * 3.5 / 4)) / (0.5375 - 0.1))


def test_the_table_has_a_row_for_each_tuner_the_best_first():
    stop = np.where(np.arange(4) < 2, 0, 2 ** len(UTILITIES) - 2)
    both = pd.concat([results(), results(stop, "task_regression_stopping")])
    table = utility_table(utility_regrets(both, CURVES))
    assert table["method"].tolist() == ["amt", "task_regression_stopping"]
    assert table["stops"].tolist() == [False, True]
    assert table.loc[0, "a=0"] == table.loc[1, "a=0"]
    assert len([c for c in table if c.startswith("a=")]) == len(UTILITIES)
    assert_allclose(table["spent"], [75, 75])
