"""The defining behaviour of each tuner with a model of the target alone."""

import numpy as np
import pytest

from amt.tuners.final_score_gp import expected_improvement
from amt.tuners.replay import replay_host
from tests.tuners.problems import (
    NUM_CONFIGS,
    NUM_EPOCHS,
    SCORES,
    SOURCES,
    host_tuner,
    in_order,
)

EVERY = np.ones((NUM_CONFIGS, NUM_EPOCHS), bool)
SMOOTH = -np.square(SOURCES.features[:, 1] - 0.4) + 0.2 * SOURCES.features[:, 3]


def told(name, configs, seed=0):
    """A tuner that has seen the smooth values of some configurations."""
    tuner = host_tuner(name, seed)
    for config in configs:
        for epoch in range(NUM_EPOCHS):
            tuner.tell(config, epoch, SMOOTH[config])
    return tuner


@pytest.mark.parametrize("name", ["gp_ei", "gp_ucb", "gp_thompson"])
def test_a_gaussian_process_asks_for_what_its_rule_says(name):
    tuner = told(name, range(0, 12))
    assert len(set(tuner.scored)) == 12
    posterior, left = tuner.posterior(), np.arange(12, NUM_CONFIGS)
    mean, deviation = posterior.mean[left], posterior.deviation[left]
    value = {
        "gp_ei": expected_improvement(mean, deviation, tuner.scores.max()),
        "gp_ucb": mean + 2 * deviation,
    }
    asked = {told(name, range(0, 12), seed).ask(EVERY) for seed in range(6)}
    if name in value:
        assert asked == {left[np.argmax(value[name])]}
    else:
        assert len(asked) > 1
    # What it asks for is expected to be good: it is in the better half, or not known.
    for config in asked:
        assert SMOOTH[config] > np.median(SMOOTH[left]) or deviation.max() > 0.5


def test_starts_are_random():
    assert len({host_tuner("gp_ei", seed).ask(EVERY) for seed in range(8)}) > 3


@pytest.mark.parametrize("name", ["tpe", "tpe_hyperband"])
def test_optuna_learns_from_what_was_trained(name):
    budget = 60
    tuner = host_tuner(name)
    trajectory = replay_host(tuner, SCORES, budget=budget)
    states = [trial.state.name for trial in tuner.study.trials]
    trials = [t for t in tuner.study.trials if t.state.name in ("COMPLETE", "PRUNED")]
    assert states[::2] == ["FAIL"] * len(states[::2])
    configs = in_order(trajectory)
    for trial, config in zip(trials, configs, strict=False):
        assert trial.params == SOURCES.configs[config]
        epochs = max(trial.intermediate_values)
        assert list(trial.intermediate_values.values()) == SCORES[config, :epochs].tolist()
        if trial.state.name == "COMPLETE":
            assert trial.value == SCORES[config].max()
            assert epochs == NUM_EPOCHS
    assert len(trials) >= (budget // NUM_EPOCHS)
    assert ("PRUNED" in states) == (name == "tpe_hyperband")
