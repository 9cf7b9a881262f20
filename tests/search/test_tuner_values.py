"""A tuner takes and gives values of the search space as they are; its small model is not fitted."""

import dataclasses
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ConfigSpace import Categorical, ConfigurationSpace, Constant, Float, Integer

import amt
from amt.gp.model import MultiTaskGP
from amt.gp.solvers import Kronecker
from amt.inference import Fit
from amt.search.state import read, write
from amt.search.tuner import NothingToRecommendError, Tuner

KERNELS = {"task": "icm", "config": "matern", "fidelity": "matern"}
CONFIGS = [
    {"kernel": (3, 3), "size": 1, "x": 0.0},
    {"kernel": (5, 5), "size": 2**30, "x": 0.3},
    {"kernel": (3, 3), "size": 2**40, "x": 1.0},
]


def make_space():
    space = ConfigurationSpace()
    kernel = Categorical("kernel", [(3, 3), (5, 5), (7, 7)])
    space.add(kernel, Integer("size", (1, 2**40)), Float("x", (0, 1)))
    return space


@pytest.fixture(scope="module")
def sources():
    scores = np.random.default_rng(0).uniform(0.4, 0.9, size=(2, 3, 2))
    return amt.LearningCurves(configs=CONFIGS, space=make_space(), tasks="ab", scores=scores)


@pytest.fixture(scope="module")
def fit(sources):
    model = MultiTaskGP.init(sources, jax.random.key(0), **KERNELS)
    nothing = jnp.zeros((1, 1))
    return Fit(model, nothing, nothing, jnp.ones(1, bool), jnp.zeros((), int), Kronecker())


@pytest.fixture
def new_tuner(sources, fit):
    def new(**options):
        return Tuner(sources, jax.random.key(0), fit=fit, samples=4, **options)

    return new


# Configurations


def test_configurations_are_known_by_their_values(new_tuner):
    tuner = new_tuner()
    assert tuner.add(CONFIGS[0]) == 0
    assert tuner.add({**CONFIGS[0], "x": 2e-10}) == 3
    assert tuner.add({**CONFIGS[0], "size": 2}) == 4
    assert tuner.add({**CONFIGS[2], "size": 2**40 - 1}) == 5
    assert tuner.add({"x": np.float64(0.3), "size": float(2**30), "kernel": [5, 5]}) == 1
    assert len(tuner.configs) == 6


def test_what_is_asked_for_has_plain_values_of_the_space(new_tuner):
    tuner = new_tuner()
    trials = [tuner.ask() for _ in range(8)]
    assert any(trial.number >= 3 for trial in trials)
    for trial in (*trials, *tuner.pending):
        assert {n: type(v) for n, v in trial.config.items()} == {
            "kernel": tuple,
            "size": int,
            "x": float,
        }
        assert trial.config["kernel"] in [(3, 3), (5, 5), (7, 7)]


def test_choices_that_are_tuples_come_back_from_a_file(new_tuner, tmp_path):
    path = tmp_path / "state.npz"
    tuner = new_tuner(state=path)
    number = tuner.add({"kernel": (7, 7), "size": 3, "x": 0.5})
    tuner.tell(number, 1, 0.7)
    again = new_tuner(state=path)
    assert again.configs == tuner.configs
    assert type(again.configs[number]["kernel"]) is tuple
    assert again.add({"kernel": (7, 7), "size": 3, "x": 0.5}) == number
    np.testing.assert_array_equal(again.posterior().mean, tuner.posterior().mean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"added": [{"kernel": [9, 9], "size": 3, "x": 0.5}]}, "configuration 0 is not legal"),
        ({"added": [{"kernel": [3, 3], "size": 3, "x": 1.5}]}, "configuration 0 is not legal"),
        ({"told": [(4, 1, 0.5)]}, "configuration 4, epoch 1 is not on the grid"),
        ({"told": [(0, 3, 0.5)]}, "configuration 0, epoch 3 is not on the grid"),
        ({"told": [(0, 1, float("nan"))]}, "score of configuration 0, epoch 1 is nan"),
        ({"told": [(0, 1, 0.5), (0, 1, 0.6)]}, "configuration 0, epoch 1 is told twice"),
        ({"pending": [(0, 9)]}, "configuration 0, epoch 9 is not on the grid"),
        ({"failed": [7]}, "configuration 7, epoch 1 is not on the grid"),
    ],
)
def test_a_state_is_checked_when_it_is_read(sources, tmp_path, new_tuner, change, message):
    path = tmp_path / "state.npz"
    new_tuner(state=path)
    saved = read(path)
    write(path, saved._replace(state=dataclasses.replace(saved.state, **change)))
    with pytest.raises(ValueError, match=rf"state\.npz is not the state of a tuner: .*{message}"):
        new_tuner(state=path)


def test_choices_that_no_file_can_hold_are_refused_at_once(sources, tmp_path):
    space = ConfigurationSpace()
    space.add(Categorical("kernel", [{1: 2}, {3: 4}]))
    scores = np.array(sources.scores)[:, :2]
    curves = amt.LearningCurves(
        configs=[{"kernel": {1: 2}}, {"kernel": {3: 4}}], space=space, tasks="ab", scores=scores
    )
    assert json.loads(json.dumps({1: 2})) != {1: 2}
    with pytest.raises(ValueError, match=r"'kernel': a state file cannot hold the choice {1: 2}"):
        Tuner(curves, jax.random.key(0), state=tmp_path / "state.npz")


def test_a_score_in_another_unit_is_warned_of_and_kept(new_tuner):
    tuner = new_tuner()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuner.tell(0, 1, 0.1)
    with pytest.warns(UserWarning, match="score of configuration 1, epoch 2 is 85, where those of"):
        tuner.tell(1, 2, 85.0)
    assert tuner.told == ((0, 1, 0.1), (1, 2, 85.0))


def test_a_space_of_constants_is_named(sources):
    space = ConfigurationSpace()
    space.add(Constant("x", 1), Constant("y", "a"))
    curves = amt.LearningCurves(
        configs=[{"x": 1}, {}], space=space, tasks="ab", scores=sources.scores[:, :2]
    )
    assert curves.features.shape == (2, 0)
    with pytest.raises(ValueError, match=r"constants only \(x, y\): nothing to choose from"):
        Tuner(curves, jax.random.key(0))


# Recommendations


def test_nothing_is_recommended_where_everything_failed(new_tuner):
    tuner = new_tuner()
    for number in range(3):
        tuner.fail(number)
    with pytest.raises(NothingToRecommendError, match="of 3 configurations, 0 are outside of the"):
        tuner.recommend()
    assert tuner.ask().number == 3 == tuner.recommend()


def test_nothing_outside_of_a_narrow_space_is_recommended(new_tuner):
    space = ConfigurationSpace()
    space.add(Categorical("kernel", [(7, 7)]), Integer("size", (5, 9)), Float("x", (0.4, 0.6)))
    tuner = new_tuner(space=space)
    with pytest.raises(NothingToRecommendError, match="of 3 configurations, 3 are outside of the"):
        tuner.recommend()
    number = tuner.ask().number
    assert tuner.recommend() == number >= 3
    assert 5 <= tuner.configs[number]["size"] <= 9
    tuner.fail(number)
    with pytest.raises(NothingToRecommendError, match="and 1 in it failed"):
        tuner.recommend()


def test_an_acquisition_function_that_gives_no_numbers_is_no_end_of_the_search(new_tuner):
    tuner = new_tuner(acquisition=lambda posterior, remaining, best: posterior.mean[:, 0] * np.nan)
    with pytest.raises(FloatingPointError, match="acquisition function gives values that are NaN"):
        tuner.ask()
