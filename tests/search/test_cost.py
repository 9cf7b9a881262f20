"""Acquisition values per unit of cost."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from amt.search.acquisition import (
    expected_improvement,
    log_expected_improvement,
    upper_confidence_bound,
)
from amt.search.cost import expected_cost, per_cost
from tests.problems import small_curves

REMAINING = np.array([[True, True], [False, True], [False, False]])
COST = jnp.asarray([[2.0, 9.0], [9.0, 4.0], [1.0, 1.0]])


def test_gains_are_divided_and_scores_count_by_what_they_are_ahead():
    gains = jnp.asarray([0.3, 0.4, -jnp.inf])
    each = per_cost(expected_improvement, gains, jnp.asarray(0.0), COST, REMAINING)
    assert_allclose(each, [0.15, 0.1, -np.inf])
    logs = per_cost(log_expected_improvement, jnp.log(gains), jnp.asarray(0.0), COST, REMAINING)
    assert_allclose(logs[:2], np.log([0.15, 0.1]))
    scores = jnp.asarray([0.9, 0.2, -jnp.inf])
    ahead = per_cost(upper_confidence_bound, scores, jnp.asarray(0.5), COST, REMAINING)
    assert_allclose(ahead, [0.4 / 2, -0.3 * 4, -np.inf])


def test_expected_costs_are_those_of_the_sources_in_units_of_their_means():
    curves = small_curves(3, 4, 2)
    profile = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [2.0, 2.0]])
    cost = profile * np.array([1.0, 10.0, 100.0])[:, None, None]
    assert_allclose(expected_cost(dataclasses.replace(curves, cost=cost)), profile / 2)
    cost[0, 0] = np.nan
    assert_array_equal(expected_cost(dataclasses.replace(curves, cost=cost)) > 0, True)
    assert_array_equal(expected_cost(curves), np.ones((4, 2)))
    gaps = dataclasses.replace(curves, epochs=np.array([2, 7]))
    assert_allclose(expected_cost(gaps)[0], [2, 5])
