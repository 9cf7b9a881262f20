"""The loop around a tuner: what it trains, when it fails, is stopped, and goes on."""

from functools import cache

import pytest

import amt
from amt.search.loop import spent
from tests.problems import small_curves


@cache
def problem():
    sources = small_curves()
    return sources, amt.fit_sources(sources, 0, steps=5)[0]


class Training:
    """The metric of configurations, and what was trained."""

    def __init__(self, fails=(), stop_after=None, error=RuntimeError):
        self.level = problem()[0].scores[:, :, -1].mean(0)
        self.fails, self.stop_after, self.error = fails, stop_after, error
        self.trained = []

    def __call__(self, trial):
        if len(self.trained) == self.stop_after:
            raise self.error("stopped")
        assert trial.epoch == trial.reached + 1
        self.trained.append((trial.number, trial.epoch))
        if trial.number in self.fails:
            return float("nan")
        return float(self.level[trial.number] * (1 - 0.5**trial.epoch))


def maximize(train, budget, **options):
    sources, fit = problem()
    options = {"fit": fit, "continuous": False, "progress": False} | options
    return amt.maximize(train, None, sources, budget, **options)


def test_it_trains_for_the_budget_and_gives_the_best():
    train = Training()
    result = maximize(train, 12)
    assert len(train.trained) == 12 == spent(result.tuner)
    assert [(row["number"], row["epoch"]) for row in result.history] == train.trained
    assert result.config == result.tuner.configs[result.number]
    level = train.level[result.number]
    assert level > train.level.max() - 0.03
    assert result.curve == {e: level * (1 - 0.5**e) for e in range(1, len(result.curve) + 1)}
    assert abs(result.expected - level) < 0.1


@pytest.mark.parametrize("at_once", [1, 2])
def test_stopped_at_any_time_it_goes_on_as_if_nothing_had_happened(at_once, tmp_path):
    whole, parts = Training(), []
    expected = maximize(whole, 9, at_once=at_once).history
    for stop_after in (2, 4, None):
        train = Training(stop_after=stop_after)
        try:
            result = maximize(train, 9, at_once=at_once, state=tmp_path / "state.npz")
        except RuntimeError:
            assert stop_after is not None
        parts += train.trained
    assert result.history == expected
    assert set(parts) == {(row["number"], row["epoch"]) for row in expected}
    assert len(parts) <= len(expected) + 2 * (at_once - 1)  # what was under way, once more


def test_what_fails_is_not_trained_again_nor_recommended():
    best = int(Training().level.argmax())
    train = Training(fails={best})
    result = maximize(train, 6)
    assert train.trained.count((best, 1)) == 1
    assert len(train.trained) == 6 == spent(result.tuner)  # its epoch was spent too
    assert result.number != best
    raising = Training(stop_after=2, error=MemoryError)
    with pytest.raises(MemoryError):
        maximize(raising, 4)
    raising.trained.clear()
    assert len(maximize(raising, 5, catch=(MemoryError,)).tuner.failed) == 3


def test_it_ends_when_nothing_is_left():
    train = Training()
    maximize(train, 1000, at_once=4)
    assert sorted(train.trained) == [(c, e) for c in range(6) for e in range(1, 6)]


def test_the_direction_and_numbers_are_checked():
    sources, fit = problem()
    with pytest.raises(ValueError, match="minimize: the sources' metric is to be large; use maxi"):
        amt.minimize(Training(), None, sources, 5, fit=fit)
    for name in ("budget", "at_once"):
        with pytest.raises(ValueError, match=f"{name} must be a whole number from 1, not 0"):
            maximize(Training(), **({"budget": 5} | {name: 0}))
