"""The stopping rule against Monte Carlo and loops."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from amt.gp.observations import TargetPosterior
from amt.outcome import ArcsineOutcome, RobustOutcome
from amt.search.replay import Trajectory, until_stop
from amt.search.stopping import UTILITIES, expected_gains, expected_improvement, stops

CONFIGS, EPOCHS = 4, 5
RNG = np.random.default_rng(0)
POSTERIOR = TargetPosterior(
    RNG.uniform(0.6, 1.2, (2, CONFIGS, EPOCHS)),
    RNG.uniform(1e-6, 0.02, (2, CONFIGS, EPOCHS)),
    np.log([0.7, 0.3]),
)
NOISE = RNG.uniform(0.001, 0.01, (2, EPOCHS))
improve = jax.jit(expected_improvement)


def test_expected_improvement_in_the_metric_is_that_of_monte_carlo():
    normal = RNG.normal(size=(200_000, 1, 1, 1))
    deviation = np.sqrt(POSTERIOR.variance + NOISE[:, None])
    scores = POSTERIOR.mean + deviation * normal
    weights = np.exp(POSTERIOR.log_weights)
    loss = RobustOutcome(sign=-1.0, softening=0.5, location=0.3, scale=0.8, knee=5.0)
    for outcome, best in ((ArcsineOutcome(), 0.7), (None, 0.9), (loss, -0.2)):
        value = scores if outcome is None else outcome.sign * outcome.inverse(scores)
        each = np.maximum(value - best, 0)
        error = 6 * each.std(0).max() / np.sqrt(len(normal))
        expected = np.tensordot(weights, each.mean(0), 1)
        actual = improve(POSTERIOR, NOISE, jnp.asarray(best), outcome)
        assert_allclose(actual, expected, atol=error)


def test_the_quadrature_is_the_closed_form_where_there_is_one():
    identity = improve(POSTERIOR, NOISE, jnp.asarray(0.9), RobustOutcome())
    assert_allclose(identity, improve(POSTERIOR, NOISE, jnp.asarray(0.9), None), atol=1e-7)


def test_the_gain_is_that_of_the_best_plan_within_the_budget():
    improvement = RNG.uniform(0, 0.1, (CONFIGS, EPOCHS))
    cost = RNG.uniform(0.5, 2, (CONFIGS, EPOCHS))
    remaining = np.arange(EPOCHS) >= np.array([0, 2, 4, 5])[:, None]
    spent, budget = 3.0, 9.0
    compiled = jax.jit(expected_gains, static_argnums=5)
    gains = np.asarray(compiled(improvement, remaining, cost, spent, budget, UTILITIES))
    for utility, gain in zip(UTILITIES, gains, strict=True):
        best = -np.inf
        for c in range(CONFIGS):
            b = spent
            for e in np.flatnonzero(remaining[c]):
                b += cost[c, e]
                if b <= budget:
                    paid = (b / budget) ** utility.power - (spent / budget) ** utility.power
                    best = max(best, improvement[c, e] - utility.weight * paid)
        assert_allclose(gain, best)
    assert_array_equal(stops(0 * gains, UTILITIES, True), [u.weight > 0 for u in UTILITIES])
    assert not stops(-gains, UTILITIES, False).any()
    ends = np.array([1, 3, EPOCHS - 1])  # of plans
    some = compiled(improvement[:, ends], remaining, cost, spent, budget, UTILITIES, ends)
    elsewhere = np.delete(np.arange(EPOCHS), ends)
    improvement[:, elsewhere] = -np.inf
    assert_allclose(some, compiled(improvement, remaining, cost, spent, budget, UTILITIES))
    nothing = compiled(improvement, remaining, cost, 9.0, budget, UTILITIES)
    assert np.isneginf(nothing).all()


def test_a_stopped_trajectory_repeats_its_last_recommendation_and_spends_nothing():
    index = np.arange(4)
    stop = np.array([[False, False], [True, False], [False, False], [True, False]])
    trajectory = Trajectory(index, index, index / 4, index + 10, None, stop)
    compiled = jax.jit(until_stop)
    stopped = compiled(trajectory, 0)
    assert_array_equal(stopped.recommended, [10, 11, 11, 11])
    assert_array_equal(stopped.score, [0, 0.25, np.nan, np.nan])
    assert_array_equal(compiled(trajectory, 1).score, trajectory.score)
