import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from amt.search.replay import Decision, replay
from amt.tuners import TUNERS, Host, HostProblem, Problem, Pure, Record, register
from amt.tuners.replay import replay_all, replay_host, replay_pure
from tests.problems import METHODS, small_curves

CURVES = small_curves()
SOURCES, TARGET = CURVES.split(CURVES.tasks[:3], CURVES.tasks[3])
SCORES = TARGET.scores[0].copy()
SCORES[2, 1], SCORES[4] = np.nan, np.nan
REACHABLE = 4 * 5 + 1
BUDGET = REACHABLE + 2
PROBLEM = HostProblem("split 0", SOURCES, BUDGET)


class InNumberOrder:
    """Trains configurations by number, and takes note of everything that it is told."""

    def __init__(self, seed, problem):
        self.seed, self.problem, self.heard = seed, problem, []

    def ask(self, remaining):
        self.heard.append(remaining)
        return int(np.argmax(remaining.any(1)))

    def tell(self, config, epoch, score):
        self.heard.append((config, epoch, score))

    def recommend(self):
        told = [entry for entry in self.heard if isinstance(entry, tuple)]
        return max(told, key=lambda entry: entry[2])[0]


def pure_in_number_order():
    def init(key, problem):
        assert problem.scores.shape == SOURCES.scores.shape
        return jnp.asarray(-jnp.inf), jnp.asarray(0)

    def step(state, feedback):
        best, config = state
        better = feedback.observed & (feedback.score > best)
        state = jnp.where(better, feedback.score, best), jnp.where(better, feedback.config, config)
        return state, Decision(jnp.argmax(feedback.remaining.any(1)), state[1])

    return Pure(init, step)


def test_a_host_tuner_does_what_the_same_pure_one_does():
    tuner = InNumberOrder(0, PROBLEM)
    host = replay_host(tuner, SCORES, budget=BUDGET)
    init, step, _ = pure_in_number_order()
    keys, problem = jax.random.split(jax.random.key(0), 2), Problem.of(PROBLEM)
    how = {"init": init, "step": step, "budget": BUDGET}
    pure = replay_pure(keys, problem, jnp.asarray(SCORES), **how)
    for order in range(2):
        for name in ("config", "score", "recommended"):
            left = slice(REACHABLE) if name == "config" else slice(None)
            alone = getattr(pure, name)[order][left]
            assert_array_equal(alone, getattr(host, name)[left])
    assert np.isfinite(host.score[:REACHABLE]).all()
    assert np.isnan(host.score[REACHABLE:]).all()
    told = [entry for entry in tuner.heard if isinstance(entry, tuple)]
    assert told == list(zip(host.config, host.epoch, host.score, strict=True))[:REACHABLE]
    assert len(tuner.heard) == 2 * REACHABLE


def test_several_targets_and_seeds_are_the_leading_axes():
    seeds = [[3, 1], [4, 1]]
    targets = [SCORES, SCORES + 1]
    runs = replay_all(None, Host(InNumberOrder), seeds, [PROBLEM] * 2, targets)
    assert runs.seconds > 0
    assert not runs.memory < 0  # NaN where the system does not say it
    many = runs.trajectory
    assert many.score.shape == (2, 2, BUDGET)
    assert_array_equal(many.config[1, 0], many.config[0, 1])
    assert_allclose(many.score[1, 0] - 1, many.score[0, 1])


class Wrong(InNumberOrder):
    def ask(self, remaining):
        return 4

    def recommend(self):
        return 99


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (SCORES, "asked for configuration 4, which has no epoch left"),
        (TARGET.scores[0], "recommends configuration 99; there are 6"),
    ],
)
def test_a_host_tuner_that_cannot_be_followed_is_named_with_its_problem(scores, message):
    with pytest.raises(RuntimeError, match=f"split 0, seed 7: ValueError.*{message}"):
        replay_all(None, Host(Wrong), [[7]], [PROBLEM], [scores])


def test_a_decision_that_is_not_valid_is_not_answered():
    def step(state, feedback):
        return state + 1, Decision(jnp.asarray(1), jnp.asarray(1), state != 1)

    trajectory = replay(jnp.asarray(0), step, jnp.asarray(TARGET.scores[0]), budget=3)
    assert_array_equal(np.isnan(trajectory.score), [False, True, False])


def test_tuners_are_in_the_order_of_tables():
    assert tuple(TUNERS)[: len(METHODS)] == METHODS
    assert all(record.name == name and record.source for name, record in TUNERS.items())


def test_a_name_has_one_module():
    taken = Record(name="amt", label="mine", source="none", make=pure_in_number_order)
    with pytest.raises(ValueError, match=r"amt.tuners.amt has a tuner 'amt' already"):
        register(taken)


def test_what_is_not_installed_is_said():
    record = Record(
        name="x", label="x", source="none", make=pure_in_number_order, packages=("not_there",)
    )
    assert record.missing() == "needs not_there"
    assert TUNERS["amt"].missing() is None
