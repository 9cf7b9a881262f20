"""The defining behaviour of each tuner that learns from final scores of past tasks."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

from amt.tuners.past_tasks.portfolio import portfolio
from amt.tuners.past_tasks.quantile_copula import normal_quantiles
from amt.tuners.past_tasks.source_surrogates import discordant
from tests.tuners.problems import (
    BEST,
    NUM_CONFIGS,
    NUM_EPOCHS,
    SOURCES,
    host_tuner,
    in_order,
    trajectory_of,
)


def scored(name, source, configs):
    """A tuner that has seen the final scores of one of the sources."""
    tuner = host_tuner(name)
    for config in configs:
        for epoch in range(NUM_EPOCHS):
            tuner.tell(config, epoch, SOURCES.scores[source, config, epoch])
    return tuner


def test_a_portfolio_complements_what_it_has():
    scores = np.array([[1.0, 0.9, 0.8, 0.0], [0.0, 0.2, 0.3, 1.0], [1.0, 0.8, 0.9, 0.0]])
    # Alone 2 has the smallest mean regret 1/3; 1 has 1.1 / 3, 0 has 1/3, 3 has 2/3.
    regrets = 1 - scores
    order = portfolio(scores)
    assert order[0] == np.argmin(regrets.mean(0))
    assert set(order[:2].tolist()) == {0, 3} or order[1] == 3
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    together = np.minimum(regrets[:, order[0]], regrets[:, order[1]]).mean()
    others = [np.minimum(regrets[:, order[0]], regrets[:, c]).mean() for c in range(4)]
    assert together == min(others)
    assert in_order(trajectory_of("portfolio")) == portfolio(BEST).tolist()


def test_rush_opens_with_the_best_of_each_source_and_raises_the_bar():
    best = set(np.argmax(BEST, 1).tolist())
    assert set(in_order(trajectory_of("rush"))[: len(best)]) == best
    tuner = host_tuner("rush")
    tuner.ask(np.ones((NUM_CONFIGS, NUM_EPOCHS), bool))
    other = next(c for c in range(NUM_CONFIGS) if c not in best)
    first = tuner.opening[0]
    tuner.results[0] = {first: 0.5, other: 0.4}
    assert tuner.may_rise(first, 0)
    assert not tuner.may_rise(other, 0)
    tuner.results[0][other] = 0.5
    assert tuner.may_rise(other, 0)


def test_the_box_of_the_best_is_searched_first():
    best = np.argmax(BEST, 1)
    for name in ("bounding_box", "bounding_box_gp"):
        inside = host_tuner(name).inside
        assert inside[best].all()
        assert not inside.all()
        assert set(in_order(trajectory_of(name))[: inside.sum()]) == set(np.flatnonzero(inside))


def test_quantiles_are_normal_and_the_copula_starts_at_their_mean():
    z = normal_quantiles(BEST)
    assert_array_equal(np.argsort(z[0]), np.argsort(BEST[0]))
    middle = np.sort(z[0])[10:20]
    assert_allclose(middle, norm.ppf((np.arange(10, 20) + 0.5) / NUM_CONFIGS))
    assert in_order(trajectory_of("copula_gp"))[0] == np.argmax(z.mean(0))
    tuner = host_tuner("copula_thompson")
    draws = [int(np.argmax(tuner.choose())) for _ in range(50)]
    assert len(set(draws)) > 1
    assert np.mean(z.mean(0)[draws]) > np.sort(z.mean(0))[-10]


def test_discordant_pairs():
    assert discordant(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == 1 / 3
    assert discordant(np.array([1.0]), np.array([1.0])) == 0


def test_rgpe_trusts_the_source_that_ranks_as_the_target_does():
    weights = scored("rgpe", 2, [0, 3, 8, 12, 17, 21, 25, 28]).weights()
    assert np.argmax(weights[:-1]) == 2
    assert weights[2] > 1.5 / 7
    assert_allclose(weights.sum(), 1)
    assert_allclose(scored("rgpe", 2, [0]).weights(), 1 / 7)


def test_two_stage_surrogate_weighs_by_wrongly_ranked_pairs():
    tuner = scored("two_stage_surrogate", 2, [0, 3, 8, 12, 17, 21, 25, 28])
    weights = tuner.weights()
    distances = discordant(tuner.means[:, tuner.scored], tuner.scores)
    assert np.argmin(distances) == 2
    assert_allclose(weights[:-1], 0.75 * np.maximum(1 - (distances / 0.4) ** 2, 0))
    assert weights[-1] == 0.75


def test_surrogates_of_sources_say_where_to_start():
    tuner = host_tuner("rgpe")
    start = int(np.argmax(tuner.means.mean(0)))
    for name in ("rgpe", "two_stage_surrogate", "transfer_acquisition"):
        assert in_order(trajectory_of(name))[0] == start
    assert np.corrcoef(tuner.means[0], BEST[0])[0, 1] > 0.9


def test_transfer_acquisition_counts_improvement_on_sources():
    tuner = scored("transfer_acquisition", 2, [0])
    tuner.deviations[:] = 1e-3
    values = tuner.choose()
    without = tuner.means[:, 0].copy()
    tuner.means[:] = without[:, None]  # no source improves on what has been trained
    own = tuner.choose()
    assert (values >= own).all()
    better = BEST.mean(0) > BEST.mean(0)[0] + 0.1
    assert (values[better] > own[better]).all()


def test_a_warm_start_is_the_head_of_the_portfolio():
    order = in_order(trajectory_of("warm_started_gp"))
    assert order[:2] == portfolio(BEST)[:2].tolist()


def test_factorization_completes_the_row_of_a_source():
    tuner = host_tuner("matrix_factorization")
    design = tuner.design.tolist()
    assert len(set(design)) == 5
    assert in_order(trajectory_of("matrix_factorization"))[:5] == design
    tuner = scored("matrix_factorization", 3, design)
    left = [c for c in range(NUM_CONFIGS) if c not in design]
    # Five scores and five factors say all there is of a source of six.
    error = tuner.predictions()[left] - BEST[3, left]
    assert np.abs(error).max() < 0.1 * np.ptp(BEST[3])
    assert_allclose(tuner.predictions()[design], BEST[3, design])
    assert tuner.recommend() == np.argmax(tuner.predictions())
