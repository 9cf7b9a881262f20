"""A small problem that the tests of tuners share."""

from functools import cache

import numpy as np

from amt.search.replay import Trajectory
from amt.tuners import TUNERS, Host, HostProblem
from amt.tuners.replay import replay_host
from tests.problems import small_curves

CURVES = small_curves(7, num_configs=30, num_epochs=9)
SOURCES, TARGET = CURVES.split(CURVES.tasks[:6], CURVES.tasks[6])
SCORES = TARGET.scores[0]
NUM_CONFIGS, NUM_EPOCHS = SCORES.shape
BEST = SOURCES.scores.max(2)
"""Best score of each source's configurations."""


def host_tuner(name: str, seed: int = 0, budget: int = NUM_CONFIGS * NUM_EPOCHS):
    """A tuner on the host at the start of the problem."""
    tuner = TUNERS[name].make()
    assert isinstance(tuner, Host)
    return tuner.start(seed, HostProblem("small", SOURCES, budget))


@cache
def trajectory_of(name: str, budget: int = NUM_CONFIGS * NUM_EPOCHS) -> Trajectory:
    """The queries of a tuner on the host."""
    return replay_host(host_tuner(name, budget=budget), SCORES, budget=budget)


def in_order(trajectory: Trajectory) -> list[int]:
    """Configurations in the order in which each was first trained."""
    return list(dict.fromkeys(np.asarray(trajectory.config).tolist()))


def stretches(trajectory: Trajectory) -> list[tuple[int, int]]:
    """Each configuration and the epochs it has had when another is trained."""
    done, pairs = np.zeros(NUM_CONFIGS, int), []
    for config in np.asarray(trajectory.config).tolist():
        done[config] += 1
        if pairs and pairs[-1][0] == config:
            pairs.pop()
        pairs.append((config, int(done[config])))
    return pairs
