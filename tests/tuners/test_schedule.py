import numpy as np
import pytest
from numpy.testing import assert_array_equal

from amt.tuners import TUNERS, Host, HostProblem
from amt.tuners.replay import replay_host
from amt.tuners.schedule import Schedule, rungs
from tests.tuners.problems import NUM_CONFIGS, NUM_EPOCHS, SCORES, SOURCES, trajectory_of

SCHEDULES = [
    name
    for name, record in TUNERS.items()
    if record.missing() is None and not record.settings and isinstance(record.make(), Host)
]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_cell_is_trained_whatever_is_missing(name):
    trajectory = trajectory_of(name)
    assert np.isfinite(trajectory.score).all()
    again = trajectory_of.__wrapped__(name)
    assert_array_equal(again.config, trajectory.config)
    scores = SCORES.copy()
    scores[3, 2], scores[5] = np.nan, np.nan
    reachable = (NUM_CONFIGS - 2) * NUM_EPOCHS + 2
    tuner = TUNERS[name].make().start(1, HostProblem("holes", SOURCES, reachable + 3))
    trajectory = replay_host(tuner, scores, budget=reachable + 3)
    assert np.isfinite(trajectory.score).tolist() == [True] * reachable + [False] * 3


class TwoOfThem(Schedule):
    def schedule(self):
        yield from self.train(4, 2)
        yield from self.train(7)


def test_a_schedule_says_what_to_train_and_the_best_observed_goes_on():
    tuner = TwoOfThem(0, HostProblem("small", SOURCES, 20))
    assert tuner.recommend() == 0
    trajectory = replay_host(tuner, SCORES, budget=12)
    expected = [4] * 2 + [7] * NUM_EPOCHS
    assert trajectory.config[:11].tolist() == expected
    best = np.where(SCORES[4, :2].max() > SCORES[7].max(), 4, 7)
    assert trajectory.recommended[10] == best
    assert trajectory.config[11] == 4  # the only one with scores that has epochs left
    assert_array_equal(tuner.trained[[4, 7, 0]], [3, NUM_EPOCHS, 0])
    assert tuner.score_at(4, 2) == SCORES[4, 1]
    assert tuner.score_at(4, 9) == -np.inf
    assert 4 not in tuner.untried
    assert tuner.nearest_untried(SOURCES.features[9]) == 9
    assert tuner.nearest_untried(SOURCES.features[7]) != 7


def test_rungs_divide_the_last_epoch():
    assert rungs(81, 3) == [1, 3, 9, 27, 81]
    assert rungs(52, 3) == [2, 6, 17, 52]
    assert rungs(1, 3) == [1]
