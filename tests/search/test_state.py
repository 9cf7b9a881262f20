"""The state of a tuner, its file, and acquisition functions by name."""

import json
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from amt.search.acquisition import (
    ACQUISITIONS,
    expected_improvement,
    get_acquisition,
    upper_confidence_bound,
)
from amt.search.state import Saved, State, acquisition_of, describe, digest, read, write


def mean_at_the_end(posterior, remaining, best):
    return jnp.where(remaining.any(1), posterior.mean[:, -1], -jnp.inf)


def test_acquisition_functions_are_described_by_their_name():
    assert describe(upper_confidence_bound) == ["ucb", {}]
    nested = partial(partial(upper_confidence_bound, beta=1), beta=2)
    assert describe(nested) == ["ucb", {"beta": 2}]
    again = acquisition_of(*describe(nested))
    assert (again.func, again.keywords) == (upper_confidence_bound, {"beta": 2})
    assert acquisition_of("ei", {}) is expected_improvement
    assert acquisition_of(*describe(nested)) is again


def test_a_function_of_ones_own_is_described_by_its_module_until_it_is_registered(monkeypatch):
    name = f"{__name__}.mean_at_the_end"
    assert describe(mean_at_the_end) == [name, {}]
    monkeypatch.setitem(ACQUISITIONS, "mean", mean_at_the_end)
    monkeypatch.setitem(ACQUISITIONS, "bold", partial(upper_confidence_bound, beta=9))
    assert describe(mean_at_the_end) == ["mean", {}]
    assert get_acquisition("mean") is mean_at_the_end
    assert get_acquisition(mean_at_the_end) is mean_at_the_end
    assert describe(get_acquisition("bold")) == ["ucb", {"beta": 9}]


def test_an_unknown_name_is_an_error_that_lists_the_others():
    with pytest.raises(KeyError, match="no acquisition function 'x'; there are ucb, ei, log_ei"):
        get_acquisition("x")


STATE = State(
    added=[{"rate": 0.5}],
    told=[(0, 2, 0.5), (0, 4, 0.75), (3, 2, 0.25)],
    pending=[(1, 2), (0, 6)],
    failed=[4],
    stopped=[5, 6],
    asked=7,
)


def test_a_file_has_what_was_written(tmp_path):
    arrays = [np.arange(3.0), np.zeros((), np.float32), np.array([True])]
    path = tmp_path / "state.npz"
    write(path, Saved({"acquisition": ["ucb", {}], "key": [0, 1]}, STATE, arrays))
    settings, state, again = read(path)
    earlier = {"model": "multi_task", "by_cost": False}
    assert settings == {"acquisition": ["ucb", {}], "key": [0, 1]} | earlier
    assert state == STATE
    for ours, theirs in zip(again, arrays, strict=True):
        assert ours.dtype == theirs.dtype
        assert_array_equal(ours, theirs)


def test_files_with_former_names_of_functions_are_read(tmp_path):
    path = tmp_path / "state.npz"
    for name, current in {
        "amt.acquisition.upper_confidence_bound": "ucb",
        "amt.acquisition.log_expected_improvement": "log_ei",
        "amt.search.acquisition.expected_improvement": "ei",
        "project.mean_only": "project.mean_only",
    }.items():
        write(path, Saved({"acquisition": [name, {"beta": 1}]}, STATE, []))
        with np.load(path) as file:
            assert json.loads(str(file["settings"]))["acquisition"][0] == name
        assert read(path).settings["acquisition"] == [current, {"beta": 1}]


def test_files_that_lack_something_are_refused(tmp_path):
    path = tmp_path / "state.npz"
    write(path, Saved({"acquisition": ["ucb", {}]}, STATE, []))
    with np.load(path) as file:
        content = dict(file)
    for name, text in {"state": '{"asked": 1}', "settings": "{}"}.items():
        np.savez(path, **{**content, name: np.array(text)})
        with pytest.raises(ValueError, match="is not the state of a tuner"):
            read(path)


def test_a_trial_ends_with_a_score_of_its_epoch_or_a_later_one():
    state = State(pending=[(1, 4), (2, 4), (1, 6)])
    state.end(1, 3)
    assert len(state.pending) == 3
    state.end(1, 5)
    assert state.pending == [(2, 4), (1, 6)]


def test_the_latest_epoch_told_counts_in_whatever_order():
    state = State(told=[(0, 6, 0.5), (0, 2, 0.4), (1, 2, 0.3)])
    assert [state.latest(number) for number in range(3)] == [6, 2, 0]


def test_the_digest_differs_with_values_shapes_types_and_names():
    contents = [
        [np.zeros(4)],
        [np.ones(4)],
        [np.zeros((2, 2))],
        [np.zeros(4, np.float32)],
        [np.zeros(4), "a"],
        ["a"],
    ]
    assert len({digest(*content) for content in contents}) == len(contents)
    assert digest(np.zeros(4), "a") == digest(np.zeros(4), "a")
