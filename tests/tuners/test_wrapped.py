"""The defining behaviour of each tuner of another library; without the extra `zoo`, none runs."""

import numpy as np
import pytest

from amt.tuners import TUNERS
from amt.tuners.replay import replay_host
from amt.tuners.unconditional import active, completed
from tests.tuners.problems import (
    BEST,
    NUM_EPOCHS,
    SCORES,
    SOURCES,
    host_tuner,
    in_order,
    stretches,
)


def needs(name):
    """Skip a test of a tuner whose library is not there."""
    for package in TUNERS[name].packages:
        pytest.importorskip(package, reason=f"{name} {TUNERS[name].missing()}")


@pytest.mark.parametrize("name", ["ifbo", "cfbo"])
def test_tuners_without_weights_are_rows_with_the_reason(name):
    assert "weights" in TUNERS[name].missing()
    with pytest.raises(RuntimeError, match="weights"):
        TUNERS[name].make()


def test_spaces_without_conditions_keep_configurations():
    space = SOURCES.space
    for config in SOURCES.configs:
        values = completed(space, config)
        assert set(values) == set(space)
        assert active(space, values) == config


@pytest.mark.parametrize("name", ["smac", "hebo", "bore", "cqr", "copula_syne_tune"])
def test_plain_ones_train_to_the_end_and_repeat_themselves(name):
    needs(name)
    budget = 5 * NUM_EPOCHS
    first, again = (replay_host(host_tuner(name), SCORES, budget=budget) for _ in range(2))
    assert [epochs for _, epochs in stretches(first)] == [NUM_EPOCHS] * 5
    assert np.array_equal(first.config, again.config)
    other = replay_host(host_tuner(name, seed=1), SCORES, budget=budget)
    assert in_order(first) != in_order(other)


@pytest.mark.parametrize("name", ["bohb", "asha_bore", "asha_cqr", "smac_multi_fidelity"])
def test_halving_ones_stop_at_rungs_and_repeat_themselves(name):
    needs(name)
    budget = 100
    first, again = (replay_host(host_tuner(name), SCORES, budget=budget) for _ in range(2))
    epochs = [epochs for _, epochs in stretches(first)][:-1]
    assert {*epochs} <= {1, 3, 9}
    assert epochs.count(1) > epochs.count(9) > 0
    assert np.array_equal(first.config, again.config)


def test_smac_learns_from_all_that_was_trained_and_ranks_the_rest():
    needs("smac")
    tuner = host_tuner("smac", budget=20 * NUM_EPOCHS)
    trajectory = replay_host(tuner, SCORES, budget=20 * NUM_EPOCHS)
    history = tuner.facade.runhistory
    configs = in_order(trajectory)
    for key, value in list(history.items())[:-1]:
        config = tuner.numbers[history.get_config(key.config_id)]
        assert config == configs[key.config_id - 1]
        np.testing.assert_allclose(value.cost, tuner.ceiling - SCORES[config].max())
    # A quarter is random; after it, what SMAC expects to be good is trained.
    assert SCORES.max(1)[configs[6:]].mean() > SCORES.max(1)[configs[:5]].mean()


def test_hyperband_of_smac_has_its_brackets():
    needs("smac_multi_fidelity")
    budget = 9 * 1 + 3 * 2 + 1 * 6  # configurations of each rung, and the epochs they then lack
    tuner = host_tuner("smac_multi_fidelity", budget=90)
    trajectory = replay_host(tuner, SCORES, budget=budget)
    epochs = np.asarray(trajectory.epoch)
    assert [int((epochs == epoch).sum()) for epoch in (0, 2, 8)] == [9, 3, 1]
    first = np.asarray(trajectory.config)[:9]
    best = first[np.argsort(-SCORES[first, 0])][:3]
    assert {*np.asarray(trajectory.config)[9:].tolist()} == {*best.tolist()}


def test_hebo_opens_at_random_and_is_told_what_was_trained():
    needs("hebo")
    tuner = host_tuner("hebo")
    opening = 1 + len(SOURCES.space)
    assert tuner.hebo.rand_sample == opening
    configs = in_order(replay_host(tuner, SCORES, budget=3 * NUM_EPOCHS + 1))
    told = tuner.hebo.X.to_dict("records")
    assert told == [completed(SOURCES.space, SOURCES.configs[config]) for config in configs[:3]]
    np.testing.assert_allclose(-tuner.hebo.y[:, 0], SCORES.max(1)[configs[:3]])


def test_bohb_models_the_best_and_the_rest():
    needs("bohb")
    tuner = host_tuner("bohb")
    trajectory = replay_host(tuner, SCORES, budget=60)
    searcher = tuner.scheduler.searcher
    configs, losses = searcher.make_input_target()
    stopped = stretches(trajectory)[: len(configs)]
    for (config, epochs), values, loss in list(zip(stopped, configs, losses, strict=True))[:-1]:
        assert values == completed(SOURCES.space, SOURCES.configs[config])
        np.testing.assert_allclose(loss, -SCORES[config, epochs - 1])
    assert type(searcher.searcher).__name__ == "KernelDensityEstimator"


def test_the_copula_of_syne_tune_ranks_as_the_sources_do():
    needs("copula_syne_tune")
    tuner = host_tuner("copula_syne_tune")
    mean = ((BEST - BEST.mean(1, keepdims=True)) / BEST.std(1, keepdims=True)).mean(0)
    assert np.corrcoef(tuner.mean, mean)[0, 1] < -0.8
    assert tuner.deviation > 0
