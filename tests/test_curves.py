"""What learning curves accept, what they refuse and in which words, and their parts."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from amt.curves import LearningCurves
from amt.outcome import Outcome
from amt.space import Encoder
from tests.problems import small_configs, small_curves, small_space

NAN = np.nan
SHAPE = 3, 4, 5


def arguments(**changes):
    """Legal arguments of 3 tasks, 4 configurations, 5 epochs, and the changes to them."""
    rng = np.random.default_rng(0)
    legal = {
        "configs": small_configs(4),
        "space": small_space(),
        "tasks": ["a", "b", "c"],
        "scores": rng.normal(size=SHAPE),
        "epochs": [2, 3, 5, 7, 11],
        "cost": rng.uniform(size=SHAPE),
    }
    return legal | changes


def with_entry(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


# Errors


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinite_score_is_refused_by_task_configuration_and_epoch(value):
    scores = with_entry(np.zeros(SHAPE), (1, 2, 3), value)
    message = rf"score of task 'b', configuration 2, epoch 7 is {value} \(1 such in all\)"
    with pytest.raises(ValueError, match=message):
        LearningCurves(**arguments(scores=scores))


def test_the_first_and_the_number_of_the_infinite_scores_are_named():
    scores = with_entry(np.zeros(SHAPE), (slice(1, 3), 3, 4), np.inf)
    with pytest.raises(ValueError, match=r"task 'b', configuration 3, epoch 11 .*\(2 such in all"):
        LearningCurves(**arguments(scores=scores))


def test_an_infinite_repeat_is_refused_even_where_others_are_finite():
    repeats = with_entry(np.zeros((2, *SHAPE)), (1, 2, 0, 1), -np.inf)
    with pytest.raises(ValueError, match="score of task 'c', configuration 0, epoch 3 is -inf"):
        LearningCurves(**arguments(scores=None, repeats=repeats))


@pytest.mark.parametrize("value", [-0.5, np.inf])
def test_a_negative_or_infinite_cost_is_refused_by_task_configuration_and_epoch(value):
    cost = with_entry(np.ones(SHAPE), (2, 1, 0), value)
    with pytest.raises(ValueError, match=f"cost of task 'c', configuration 1, epoch 2 is {value}"):
        LearningCurves(**arguments(cost=cost))


def test_missing_costs_and_costs_of_zero_are_fine():
    cost = with_entry(np.zeros(SHAPE), (2, 1, 0), NAN)
    assert_array_equal(LearningCurves(**arguments(cost=cost)).cost, cost)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": None}, "either scores or repeats"),
        ({"repeats": np.zeros((2, *SHAPE))}, "either scores or repeats"),
        ({"scores": np.zeros((4, 5))}, r"shape \(4, 5\), not \(task, config, epoch\)"),
        ({"scores": np.zeros((3, 4, 0))}, r"shape \(3, 4, 0\), not \(task, config, epoch\)"),
        ({"scores": None, "repeats": np.zeros(SHAPE)}, r"not \(repeat, task, config, epoch\)"),
        ({"tasks": ["a", "b", "a"]}, r"names repeat: \['a', 'a'\]"),
        ({"tasks": ["a", "b"]}, "there are 2 tasks, 4 configurations and 5 epochs"),
        ({"configs": small_configs(3)}, "there are 3 tasks, 3 configurations and 5 epochs"),
        ({"epochs": [1, 2, 3]}, "there are 3 tasks, 4 configurations and 3 epochs"),
        ({"epochs": [0, 1, 2, 3, 4]}, "positive and increase"),
        ({"epochs": [1, 2, 2, 3, 4]}, "positive and increase"),
        ({"epochs": [[1, 2, 3, 4, 5]]}, "positive and increase"),
        ({"epochs": []}, "epochs"),
        ({"cost": np.zeros((3, 4, 4))}, r"costs have shape \(3, 4, 4\), scores \(3, 4, 5\)"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        LearningCurves(**arguments(**changes))


def test_an_illegal_configuration_is_refused_by_position():
    configs = small_configs(4)
    configs[2] = configs[2] | {"depth": 100}
    with pytest.raises(ValueError, match=r"configuration 2 is not legal.*depth"):
        LearningCurves(**arguments(configs=configs))


# Arrays


def test_epochs_are_numbered_from_1_by_default():
    assert_array_equal(LearningCurves(**arguments(epochs=None)).epochs, [1, 2, 3, 4, 5])


def test_arrays_and_fields_cannot_be_changed():
    repeats = np.zeros((2, *SHAPE))
    curves = LearningCurves(**arguments(scores=None, repeats=repeats))
    for name in ("scores", "epochs", "cost", "repeats"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(curves, name)[...] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        curves.tasks = ("x", "y", "z")


def test_what_the_caller_passed_is_neither_frozen_nor_shared():
    passed = arguments(epochs=np.arange(1, 6))
    curves = LearningCurves(**passed)
    for name in ("scores", "epochs", "cost"):
        before = np.array(passed[name])
        passed[name][...] = 9  # an error if it were frozen
        assert_array_equal(getattr(curves, name), before)
    passed["configs"][0]["depth"] = 100
    passed["tasks"][0] = "z"
    assert curves.configs[0]["depth"] == small_configs(4)[0]["depth"]
    assert curves.tasks == ("a", "b", "c")


def test_the_caller_s_repeats_are_neither_frozen_nor_shared():
    repeats = np.zeros((2, *SHAPE))
    curves = LearningCurves(**arguments(scores=None, repeats=repeats))
    repeats[...] = 9
    assert_array_equal(curves.repeats, np.zeros((2, *SHAPE)))
    assert_array_equal(curves.scores, np.zeros(SHAPE))


def test_scores_are_the_mean_of_the_repeats_that_there_are(recwarn):
    repeats = np.zeros((2, *SHAPE))
    repeats[1] = 1
    repeats[0, 0, 0, 0] = NAN
    repeats[:, 1, 1, 1] = NAN
    curves = LearningCurves(**arguments(scores=None, repeats=repeats))
    expected = np.full(SHAPE, 0.5)
    expected[0, 0, 0] = 1
    expected[1, 1, 1] = NAN
    assert_array_equal(curves.scores, expected)
    assert not recwarn.list


def test_sizes_and_features():
    curves = LearningCurves(**arguments())
    assert (curves.num_tasks, curves.num_configs, curves.num_epochs) == SHAPE
    assert_array_equal(curves.features, Encoder(small_space())(small_configs(4)))


# Parts


@pytest.fixture
def curves():
    """Curves with repeats and costs, every entry different."""
    repeats = np.arange(2.0 * np.prod(SHAPE)).reshape(2, *SHAPE)
    return LearningCurves(**arguments(scores=None, repeats=repeats))


def test_select_takes_parts_in_the_order_asked_for(curves):
    part = curves.select(tasks=["c", "a"], configs=[3, 0, 1], epochs=[3, 11])
    assert part.tasks == ("c", "a")
    assert part.configs == tuple(curves.configs[c] for c in (3, 0, 1))
    assert_array_equal(part.epochs, [3, 11])
    for name in ("scores", "cost", "repeats"):
        expected = getattr(curves, name)[..., [2, 0], :, :][..., [3, 0, 1], :][..., [1, 4]]
        assert_array_equal(getattr(part, name), expected)


def test_select_keeps_what_is_not_chosen(curves):
    part = curves.select(epochs=[5])
    assert part.tasks == curves.tasks
    assert part.configs == curves.configs
    assert_array_equal(part.scores, curves.scores[:, :, 2:3])


def test_select_without_costs_and_repeats():
    part = small_curves().select(tasks=["task 2"])
    assert part.cost is None
    assert part.repeats is None
    assert_array_equal(part.scores, small_curves().scores[2:3])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"tasks": ["a", "d"]}, "no task 'd'; there are a, b, c"),
        ({"configs": [0, 4]}, "no configuration 4; there are 0, 1, 2, 3"),
        ({"configs": [-1]}, "no configuration -1"),
        ({"epochs": [1]}, "no epoch 1; there are 2, 3, 5, 7, 11"),
    ],
)
def test_select_names_what_is_not_there(curves, chosen, message):
    with pytest.raises(KeyError, match=message):
        curves.select(**chosen)


def test_a_task_chosen_twice_is_refused(curves):
    with pytest.raises(ValueError, match=r"names repeat: \['b', 'b'\]"):
        curves.select(tasks=["b", "b"])


def test_repeat_is_one_of_the_repeats(curves):
    one = curves.repeat(1)
    assert_array_equal(one.scores, curves.repeats[1])
    assert one.repeats is None
    assert_array_equal(one.cost, curves.cost)
    assert_array_equal(one.epochs, curves.epochs)
    assert (one.tasks, one.configs) == (curves.tasks, curves.configs)


@pytest.mark.parametrize("index", [-1, 2])
def test_no_such_repeat(curves, index):
    with pytest.raises(KeyError, match=f"no repeat {index}; there are 2"):
        curves.repeat(index)


def test_curves_without_repeats_have_none():
    with pytest.raises(KeyError, match="no repeat 0; there are 0"):
        small_curves().repeat(0)


def test_split_is_sources_and_target(curves):
    sources, target = curves.split(["c", "b"], "a")
    assert (sources.tasks, target.tasks) == (("c", "b"), ("a",))
    assert_array_equal(sources.scores, curves.scores[[2, 1]])
    assert_array_equal(target.scores, curves.scores[:1])


def test_split_refuses_the_target_among_the_sources_and_no_sources(curves):
    with pytest.raises(ValueError, match=r"target 'a' .* sources \['a', 'b'\]"):
        curves.split(["a", "b"], "a")
    with pytest.raises(ValueError, match=r"target 'a' .* sources \[\]"):
        curves.split([], "a")
    with pytest.raises(KeyError, match="no task 'd'"):
        curves.split(["a"], "d")


def test_leave_one_out_has_each_task_as_the_target_once(curves):
    splits = [(sources.tasks, target.tasks) for sources, target in curves.leave_one_out()]
    assert splits == [(("b", "c"), ("a",)), (("a", "c"), ("b",)), (("a", "b"), ("c",))]


def test_leave_one_out_of_one_task_is_an_error(curves):
    with pytest.raises(ValueError, match="target 'a'"):
        list(curves.select(tasks=["a"]).leave_one_out())


def test_scores_that_can_hardly_be_of_the_same_metric():
    accuracies = small_curves()
    assert accuracies.expected_range == (0.0, 1.0)
    assert accuracies.unexpected(0.01) is accuracies.unexpected(0.999) is None
    assert "is 85, where those of the sources are from 0." in str(accuracies.unexpected(85.0))
    metric = 100 * accuracies.scores
    outcome = Outcome.fit(metric)
    percent = dataclasses.replace(accuracies, scores=outcome.forward(metric), outcome=outcome)
    lower, upper = percent.expected_range
    worst, best = percent.scores.min(), percent.scores.max()
    assert_allclose([lower, upper], [4 * worst - 3 * best, 4 * best - 3 * worst])
    assert percent.unexpected(85.0) is None
    assert percent.unexpected(8500.0) is not None
    constant = dataclasses.replace(accuracies, scores=np.full_like(metric, 200.0))
    assert constant.unexpected(200.1) is None
    assert constant.unexpected(0.9) is not None


def test_tasks_are_found_by_their_text_too():
    curves = dataclasses.replace(small_curves(num_tasks=3), tasks=["3", "31", "53"])
    assert curves.split([3, 31], 53)[1].tasks == ("53",)
    numbers = dataclasses.replace(curves, tasks=[3, 31, 53])
    assert numbers.split(["3"], 53)[0].tasks == (3,)
    ambiguous = dataclasses.replace(curves, tasks=[3, "3", 5])
    assert ambiguous.split([3], 5)[0].tasks == (3,)
    with pytest.raises(KeyError, match="no task 4; there are 3, 31, 53"):
        curves.split([3, 4], 53)
    with pytest.raises(ValueError, match="target 3 must not be among the sources"):
        curves.split(["3", "31"], 3)


def test_a_source_by_itself_is_a_task():
    curves = dataclasses.replace(small_curves(num_tasks=2), tasks=["breast", "wine"])
    assert curves.split("breast", "wine")[0].tasks == ("breast",)
    with pytest.raises(ValueError, match="sources must be a list of tasks, not 'brest'; there"):
        curves.split("brest", "wine")


def test_before_the_first_task_there_are_configurations_and_epochs():
    space = small_space()
    curves = LearningCurves.without_tasks(space, 5, num_configs=7, seed=1)
    assert curves.scores.shape == (0, 7, 5)
    assert curves.configs[0] == dict(space.get_default_configuration())
    assert len({tuple(sorted(config.items())) for config in curves.configs}) == 7
    assert curves.configs == LearningCurves.without_tasks(space, 5, num_configs=7, seed=1).configs
    assert curves.epochs.tolist() == [1, 2, 3, 4, 5]
    assert curves.unexpected(1.01) is not None
    assert curves.unexpected(0.99) is None
    loss = Outcome.fit(np.array([0.1, 1.0, 5.0]), minimise=True)
    losses = LearningCurves.without_tasks(space, [1, 3, 9], outcome=loss, num_configs=1)
    assert losses.unexpected(85.0) is None
    assert losses.epochs.tolist() == [1, 3, 9]
    with pytest.raises(ValueError, match="num_configs must be a whole number from 1, not 0"):
        LearningCurves.without_tasks(space, 5, num_configs=0)
