"""The live tuner with task regression, its default model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import amt
from amt.gp.task_regression.model import TaskRegression
from amt.outcome import ArcsineOutcome, Outcome
from amt.search.cost import expected_cost
from amt.search.fitting import as_modelled, source_grid
from amt.search.prediction import best_expected_score
from amt.search.replay import replay
from amt.search.stopping import UTILITIES, Utility
from amt.tuners.task_regression import Learned, init, task_regression
from tests.problems import RISE, peaked, small_curves, small_space

CONFIGS, EPOCHS = 12, 20  # of which a search predicts 16
FIT = {"steps": 30, "restarts": 2}
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def split():
    every = small_curves(num_tasks=5, num_configs=CONFIGS, num_epochs=EPOCHS)
    return every.split(every.tasks[:4], every.tasks[4])


@pytest.fixture(scope="module")
def fit(split):
    return amt.fit_sources(split[0], KEY, **FIT)[0]


@pytest.fixture(scope="module")
def simulated(split, fit):
    """The closed loop of 20 epochs on the target, by a rule and options of the step."""
    sources, target = split
    scores = jnp.asarray(target.scores[0])
    grid = source_grid(as_modelled(sources, "task_regression"), "task_regression")
    prior = jax.jit(lambda model: TaskRegression.target_prior(model, grid))(fit.model)
    learned = Learned(prior, ArcsineOutcome(), 20, jnp.asarray(expected_cost(sources)))

    def run(rule, **options):
        step = task_regression(rule, **options).step
        return jax.jit(lambda: replay(init(KEY, learned), step, scores, budget=20))()

    return run


def test_tuner_and_closed_loop_ask_and_stop_the_same(split, fit, simulated):
    utilities = (*UTILITIES, Utility(1.0))  # the last stops before the budget is spent
    trajectory = simulated("vpi", utilities=utilities)
    tuner = amt.Tuner(split[0], KEY, fit=fit, continuous=False)
    assert not tuner.should_stop(Utility(1e9), 20)
    for query in range(20):
        trial = tuner.ask()
        assert (trial.number, trial.epoch - 1) == (
            trajectory.config[query],
            trajectory.epoch[query],
        )
        tuner.tell(trial.number, trial.epoch, float(trajectory.score[query]))
        expected = best_expected_score(tuner.posterior(), tuner.outcome)
        mine, theirs = expected[tuner.recommend()], expected[trajectory.recommended[query]]
        # The loop has seen 16 epochs of the 20.
        assert_allclose(theirs, mine, atol=1e-4)
        stops = [tuner.should_stop(utility, 20) for utility in utilities]
        assert_array_equal(stops, trajectory.stop[query])
    assert trajectory.stop[-1].sum() == len(utilities) - 1  # the budget is spent
    assert 0 < np.argmax(trajectory.stop[:, -1]) < 19
    assert tuner.expected_gain(UTILITIES[0], 40) > 0 > tuner.expected_gain(Utility(100.0), 40)


@pytest.mark.parametrize("rule", ["log_ei_remaining", "kg"])
def test_rules_ask_the_same_in_both(split, fit, simulated, rule):
    trajectory = simulated(rule, by_cost=rule == "kg")
    tuner = amt.Tuner(split[0], KEY, fit=fit, continuous=False, acquisition=rule)
    for query in range(8):
        trial = tuner.ask()
        assert (trial.number, trial.epoch - 1) == (
            trajectory.config[query],
            trajectory.epoch[query],
        )
        tuner.tell(trial.number, trial.epoch, float(trajectory.score[query]))


@pytest.mark.parametrize("rule", ["thompson", "top_two"])
def test_random_rules_go_on_with_curves(simulated, rule):
    asked = set(zip(*map(np.asarray, simulated(rule)[:2]), strict=True))
    assert len(asked) == 20
    assert all(epoch == 0 or (config, epoch - 1) in asked for config, epoch in asked)


def test_random_rules_follow_from_the_key(split, fit):
    options = {"fit": fit, "continuous": False, "acquisition": "top_two"}
    asked = [amt.Tuner(split[0], key, **options).ask().number for key in (0, 0, 1, 2, 3)]
    assert asked[0] == asked[1]
    assert len({*asked}) > 1


def test_it_is_fitted_by_default_and_goes_on_from_its_file(split, fit, tmp_path):
    path = tmp_path / "state.npz"
    tuner = amt.Tuner(split[0], KEY, **FIT, state=path)
    jax.tree.map(assert_array_equal, tuner.fit, fit)
    for score in (0.3, 0.5):
        trial = tuner.ask()
        tuner.tell(trial.number, trial.epoch, score)
    tuner.ask()
    again = amt.Tuner.resume(path, split[0])
    assert again.pending == tuner.pending
    assert again.ask() == tuner.ask()
    assert again.recommend() == tuner.recommend()
    with pytest.raises(ValueError, match="other acquisition, model"):
        amt.Tuner(split[0], KEY, model="multi_task", **FIT, state=path)


def test_a_loss_is_told_as_it_is_measured(split):
    sources, target = split
    metric = 3 * (1 - sources.scores)
    outcome = Outcome.fit(metric, minimise=True)
    sources = dataclasses.replace(sources, scores=outcome.forward(metric), outcome=outcome)
    tuner = amt.Tuner(sources, KEY, continuous=False, **FIT)
    for number in range(4):
        tuner.tell(number, 1, float(3 * (1 - target.scores[0, number, 0])))
    assert tuner.outcome == outcome
    mean = tuner.posterior().matched().mean[:4, 0]
    assert_allclose(mean, outcome.forward(3 * (1 - target.scores[0, :4, 0])), atol=0.3)


# Searches off the grid, of sources with the shapes of the others


def test_the_search_leaves_the_grid_for_better_configurations(split):
    sources, _ = split
    scores = np.array([[peaked(c) * RISE for c in sources.configs]] * sources.num_tasks)
    scores += 0.003 * np.random.default_rng(0).normal(size=scores.shape)
    sources = dataclasses.replace(sources, scores=scores, epochs=[2, 4, 6, 8, 10, 12])
    tuner = amt.Tuner(sources, KEY, **FIT)
    for _ in range(40):
        trial = tuner.ask()
        assert trial.config == tuner.configs[trial.number]
        tuner.tell(trial.number, trial.epoch, peaked(trial.config) * RISE[trial.epoch // 2 - 1])
    amt.space.check_configs(sources.space, tuner.configs)
    assert len(set(map(str, tuner.configs))) == len(tuner.configs) > CONFIGS + 2
    best = tuner.recommend()
    assert best >= CONFIGS
    assert peaked(tuner.configs[best]) > max(map(peaked, sources.configs)) + 0.005


def test_the_search_leaves_a_region_that_fails(split):
    """The sources are best at large rates, where the target crashes."""
    sources, _ = split
    rate = np.log10([config["rate"] for config in sources.configs])
    value = 0.6 + 0.3 * (rate + 4) / 4
    scores = value[:, None] * np.linspace(0.6, 1, EPOCHS) + np.zeros((sources.num_tasks, 1, 1))
    scores = scores + 0.005 * np.random.default_rng(0).normal(size=scores.shape)
    tuner = amt.Tuner(dataclasses.replace(sources, scores=scores), KEY, **FIT)
    crashed = []
    for _ in range(25):
        trial = tuner.ask()
        crashed.append(trial.config["rate"] > 0.03)
        if crashed[-1]:
            tuner.fail(trial.number)
        else:
            tuner.tell(trial.number, trial.epoch, 0.5 + 0.02 * trial.epoch)
    assert crashed[0]
    assert sum(crashed) < 4
    assert tuner.configs[tuner.recommend()]["rate"] <= 0.03


def test_without_past_tasks_the_target_alone_is_learned_from(tmp_path):
    known = amt.LearningCurves.without_tasks(small_space(), EPOCHS, num_configs=CONFIGS)
    value = np.linspace(0.2, 0.9, CONFIGS)[np.argsort(np.argsort(known.features[:, 0]))]
    path = tmp_path / "tuner.npz"
    tuner = amt.Tuner(known, KEY, continuous=False, state=path)
    for _ in range(20):
        trial = tuner.ask()
        if trial.number == 0 and trial.epoch == 3:
            tuner.fail(trial.number)
            continue
        tuner.tell(trial.number, trial.epoch, value[trial.number] - 0.1 / trial.epoch)
    assert value[tuner.recommend()] > 0.75
    prediction = tuner.predict()
    assert ((prediction.lower >= 0) & (prediction.upper <= 1)).all()
    again = amt.Tuner.resume(path, known)
    assert again.ask() == tuner.ask()
    with pytest.raises(ValueError, match="without past tasks there is no similarity"):
        tuner.similarity()
    with pytest.raises(ValueError, match="'multi_task' needs past tasks, and there is none"):
        amt.Tuner(known, KEY, model="multi_task")
    with pytest.warns(UserWarning, match="is 85, where an accuracy is from 0 to 1"):
        again.tell(trial.number, EPOCHS, 85)
