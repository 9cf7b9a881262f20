"""The defining behaviour of each tuner without a model."""

import numpy as np
from scipy.stats import qmc

from amt.space import Encoder
from amt.tuners.no_model.median_stopping import MedianStopping
from amt.tuners.no_model.pasha import is_stable, noise
from amt.tuners.no_model.regularized_evolution import columns_of
from tests.tuners.problems import (
    NUM_CONFIGS,
    NUM_EPOCHS,
    SCORES,
    SOURCES,
    host_tuner,
    in_order,
    stretches,
    trajectory_of,
)


def test_quasi_random_search_goes_to_the_nearest_of_each_point():
    trajectory = trajectory_of("quasi_random")
    configs = in_order(trajectory)
    assert trajectory.config[:NUM_EPOCHS].tolist() == [configs[0]] * NUM_EPOCHS
    sobol = qmc.Sobol(SOURCES.features.shape[1], rng=np.random.default_rng(0))
    left = list(range(NUM_CONFIGS))
    for config in configs[:8]:
        distances = np.linalg.norm(SOURCES.features[left] - sobol.random(1)[0], axis=1)
        assert config == left[np.argmin(distances)]
        left.remove(config)


def test_successive_halving_keeps_the_best_third_of_each_rung():
    pairs = stretches(trajectory_of("successive_halving"))
    first, second, third = pairs[:9], pairs[9:12], pairs[12]
    assert {epochs for _, epochs in first} == {1}
    by_score = sorted((config for config, _ in first), key=lambda c: -SCORES[c, 0])
    assert second == [(config, 3) for config in by_score[:3]]
    assert third == (max(by_score[:3], key=lambda c: SCORES[c, 2]), 9)
    assert {epochs for _, epochs in pairs[13:22]} == {1}


def test_hyperband_goes_on_with_fewer_configurations_for_longer():
    pairs = stretches(trajectory_of("hyperband"))
    assert pairs[:13] == stretches(trajectory_of("successive_halving"))[:13]
    assert [epochs for _, epochs in pairs[13:18]] == [3] * 5  # ceil(3 / 2 * 3)
    best = max(pairs[13:18], key=lambda pair: SCORES[pair[0], 2])[0]
    assert pairs[18] == (best, 9)
    assert [epochs for _, epochs in pairs[19:22]] == [9] * 3


def test_asha_promotes_as_soon_as_a_third_is_better():
    pairs = stretches(trajectory_of("asha"))
    assert [epochs for _, epochs in pairs[:4]] == [1, 1, 1, 3]
    assert pairs[3][0] == max(pairs[:3], key=lambda pair: SCORES[pair[0], 0])[0]
    trained, reached = np.zeros(NUM_CONFIGS, int), {1: [], 3: [], 9: []}
    for config in trajectory_of("asha").config[:80].tolist():
        below = reached.get(int(trained[config]), [])
        if below:  # it has just been promoted
            by_score = sorted(below, key=lambda c, e=trained[config]: -SCORES[c, e - 1])
            assert config in by_score[: len(below) // 3]
        trained[config] += 1
        if trained[config] in reached:
            reached[int(trained[config])].append(config)
    assert reached[9]


def test_pasha_adds_rungs_only_when_rankings_change():
    upper, lower = np.array([3.0, 2.0, 1.0]), np.array([0.3, 0.1, 0.2])
    assert is_stable(upper, 3 * upper, 0.0)
    assert not is_stable(upper, lower, 0.05)
    assert is_stable(upper, lower, 0.11)
    crossing = np.array([[1.0, 3.0, 1.0, 3.0], [2.0, 2.0, 2.0, 2.9]])
    assert np.isclose(noise(crossing), 0.1)
    assert noise(crossing[:, :2]) == 0
    tuner = host_tuner("pasha")
    tuner.ask(np.ones(SCORES.shape, bool))
    assert tuner.height == 2
    tuner.results[1] = {0: 0.9, 1: 0.8}
    tuner.results[0] = {0: 0.7, 1: 0.6}
    assert tuner.height == 2
    tuner.results[0] = {0: 0.6, 1: 0.7}
    assert tuner.height == 3


def test_median_stopping_compares_the_best_with_running_means():
    tuner = host_tuner("median_stopping")
    assert isinstance(tuner, MedianStopping)
    tuner.curves[0, :3], tuner.curves[1, :3] = [0.1, 0.5, 0.9], [0.3, 0.3, 0.3]
    tuner.curves[2, :2] = [0.35, 0.34]  # means until then: 0.3 and 0.3
    assert not tuner.falls_behind(2)
    tuner.curves[2, :2] = [0.29, 0.2]
    assert tuner.falls_behind(2)
    tuner.curves[2, :4] = 0.1  # none was trained as long
    assert not tuner.falls_behind(2)
    lengths = [epochs for _, epochs in stretches(trajectory_of("median_stopping"))[:NUM_CONFIGS]]
    assert lengths[0] == NUM_EPOCHS
    assert min(lengths) < NUM_EPOCHS


def test_evolution_changes_one_hyperparameter_of_the_best_of_a_sample():
    columns = columns_of(Encoder(SOURCES.space))
    assert columns == [[0], [1], [2], [3, 4]]
    configs = in_order(trajectory_of("regularized_evolution"))
    features = SOURCES.features

    def apart(place):
        return np.square(features[configs[:place]] - features[configs[place]]).sum(1).min()

    # Children are nearer to those before them than two random ones are.
    any_two = np.square(features[:, None] - features).sum(2).mean()
    assert np.mean([apart(place) for place in range(10, 16)]) < any_two / 2


def test_dehb_evolves_after_its_first_bracket():
    tuner = host_tuner("dehb")
    pairs = stretches(trajectory_of("dehb"))
    assert {epochs for _, epochs in pairs[:9]} == {1}
    by_score = sorted((config for config, _ in pairs[:9]), key=lambda c: -SCORES[c, 0])
    assert [config for config, _ in pairs[9:12]] == by_score[:3]
    tuner.populations = [[0, 1, 2, 3], [0, 1], [0]]
    tuner.curves[[0, 1, 2, 3], 0] = [0.1, 0.4, 0.2, 0.3]
    assert tuner.best_of(0) == [1, 3, 2, 0]
    children = np.array([tuner.evolve(5, 0, True) for _ in range(20)])
    assert ((children >= 0) & (children <= 1)).all()
    kept = (children == SOURCES.features[5])[:, :3].mean()
    assert 0.3 < kept < 0.7  # the crossover rate is a half
    assert tuner.nearest(SOURCES.features[0], 1) != 0  # it has an epoch already
    assert tuner.nearest(SOURCES.features[0], 3) == 0
