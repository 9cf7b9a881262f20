"""The encoding of configurations, column by column, and what counts as a legal one."""

import numpy as np
import pytest
from ConfigSpace import (
    Categorical,
    Configuration,
    ConfigurationSpace,
    Constant,
    EqualsCondition,
    Float,
    ForbiddenEqualsClause,
    Integer,
)
from ConfigSpace.hyperparameters import BetaFloatHyperparameter, OrdinalHyperparameter
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from amt.space import Encoder, check_configs, on_step
from tests.problems import small_configs, small_space


def encode(hyperparameter, *values):
    """The columns of a space of one hyperparameter."""
    space = ConfigurationSpace()
    space.add(hyperparameter)
    encoder = Encoder(space)
    return encoder.columns, encoder([{hyperparameter.name: value} for value in values])


@pytest.mark.parametrize(
    ("hyperparameter", "values", "expected"),
    [
        (Float("x", (-2, 6)), [-2, 0, 6], [0, 0.25, 1]),
        (Float("x", (1e-4, 1), log=True), [1e-4, 1e-3, 0.1, 1], [0, 0.25, 0.75, 1]),
        (
            BetaFloatHyperparameter("x", lower=-2, upper=6, alpha=2, beta=3),
            [-2, 0, 6],
            [0, 0.25, 1],
        ),
        (Integer("x", (1, 5)), [1, 2, 5], [0, 0.25, 1]),
        (Integer("x", (1, 256), log=True), [1, 4, 256], [0, 0.25, 1]),
        (OrdinalHyperparameter("x", ["low", "mid", "high"]), ["low", "mid", "high"], [0, 0.5, 1]),
        (OrdinalHyperparameter("x", ["only"]), ["only"], [0]),
    ],
)
def test_a_number_is_one_column_between_0_and_1(hyperparameter, values, expected):
    columns, features = encode(hyperparameter, *values)
    assert columns == ("x",)
    assert_allclose(features[:, 0], expected, atol=1e-12)


def test_a_categorical_is_one_hot():
    columns, features = encode(Categorical("x", ["c", "a", "b"]), "a", "c", "b")
    assert columns == ("x=c", "x=a", "x=b")
    assert_array_equal(features, [[0, 1, 0], [1, 0, 0], [0, 0, 1]])


def test_a_constant_has_no_column_and_may_be_left_out():
    space = ConfigurationSpace()
    space.add([Float("x", (0, 1)), Constant("seed", 7)])
    encoder = Encoder(space)
    configs = [{"x": 0.5, "seed": 7}, {"x": 0.5}]
    assert check_configs(space, configs) == tuple(configs)
    assert encoder.columns == ("x",)
    assert_array_equal(encoder(configs), [[0.5], [0.5]])


def test_numbers_come_first_then_groups_then_activity():
    encoder = Encoder(small_space())
    assert encoder.columns == (
        "depth",
        "rate",
        "momentum",
        "optimizer=adam",
        "optimizer=sgd",
        "momentum is active",
    )
    assert encoder.numeric == 3
    assert encoder.categories == (2,)
    assert encoder.conditional == ("momentum",)
    assert encoder.num_features == 6


def test_inactive_values_are_0_and_activity_tells_them_from_the_lower_end():
    inactive = {"optimizer": "adam", "rate": 1e-2, "depth": 3}
    lowest = {"optimizer": "sgd", "rate": 1e-2, "depth": 3, "momentum": 0.0}
    features = Encoder(small_space())([inactive, lowest])
    assert_allclose(features, [[0.25, 0.5, 0, 1, 0, 0], [0.25, 0.5, 0, 0, 1, 1]])


def test_an_inactive_categorical_is_all_zeros():
    space = ConfigurationSpace()
    parent, child = Categorical("parent", ["on", "off"]), Categorical("child", ["a", "b"])
    space.add([parent, child, EqualsCondition(child, parent, "on")])
    encoder = Encoder(space)
    assert encoder.columns[-1] == "child is active"
    features = encoder([{"parent": "off"}, {"parent": "on", "child": "b"}])
    child_columns = [encoder.columns.index("child=a"), encoder.columns.index("child=b")]
    assert_array_equal(features[:, child_columns], [[0, 0], [0, 1]])
    assert_array_equal(features[:, -1], [0, 1])


def shared_column_space():
    """A learning rate whose range depends on the optimizer, and that LBFGS has not."""
    space = ConfigurationSpace()
    optimizer = Categorical("optimizer", ["adam", "lbfgs", "sgd"])
    adam = Float("adam_rate", (1e-4, 1e-2), log=True, meta={"column": "rate"})
    sgd = Float("sgd_rate", (0.0, 2.0), meta={"column": "rate"})
    space.add([optimizer, adam, sgd])
    space.add(EqualsCondition(adam, optimizer, "adam"), EqualsCondition(sgd, optimizer, "sgd"))
    return space


def test_branches_of_one_hyperparameter_share_a_column():
    encoder = Encoder(shared_column_space())
    configs = [
        {"optimizer": "adam", "adam_rate": 1e-3},
        {"optimizer": "lbfgs"},
        {"optimizer": "sgd", "sgd_rate": 1.5},
    ]
    assert check_configs(shared_column_space(), configs) == tuple(configs)
    columns = ("rate", "optimizer=adam", "optimizer=lbfgs", "optimizer=sgd", "rate is active")
    assert encoder.columns == columns
    assert encoder.conditional == ("rate",)
    assert_allclose(
        encoder(configs), [[0.5, 1, 0, 0, 1], [0, 0, 1, 0, 0], [0.75, 0, 0, 1, 1]], atol=1e-12
    )


def test_meta_position_orders_the_columns():
    space = ConfigurationSpace()
    space.add(
        [
            Float("a", (0, 1), meta={"position": 3}),
            Categorical("b", ["x", "y"], meta={"position": 4}),
            Float("c", (0, 1), meta={"position": 1}),
            Categorical("d", ["x", "y"], meta={"position": 2}),
        ]
    )
    encoder = Encoder(space)
    assert encoder.columns == ("c", "a", "d=x", "d=y", "b=x", "b=y")
    assert_array_equal(
        encoder([{"a": 0.1, "b": "x", "c": 0.3, "d": "y"}]), [[0.3, 0.1, 0, 1, 1, 0]]
    )


def test_no_configurations_are_no_rows():
    assert Encoder(small_space())([]).shape == (0, 6)


def test_an_unknown_kind_of_hyperparameter_is_refused():
    class Odd:
        name, meta = "odd", None

    class Space(dict):
        conditional_hyperparameters = ()

    with pytest.raises(TypeError, match="'odd' is of unknown kind Odd"):
        Encoder(Space(odd=Odd()))


@given(st.floats(1e-4, 1), st.floats(0, 0.99))
def test_floats_are_encoded_as_in_configspace_s_unit_cube(rate, momentum):
    space = small_space()
    config = {"optimizer": "sgd", "rate": rate, "depth": 3, "momentum": momentum}
    vector = Configuration(space, values=config).get_array()
    row = dict(zip(Encoder(space).columns, Encoder(space)([config])[0], strict=True))
    for name in ("rate", "momentum"):
        assert_allclose(row[name], vector[space.index_of[name]], atol=1e-12)


# Legal configurations

LEGAL = {"optimizer": "sgd", "rate": 1e-2, "depth": 3, "momentum": 0.5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 2.0}, "rate"),
        ({"depth": 0}, "depth"),
        ({"depth": 2.5}, "depth"),
        ({"depth": "3"}, "depth"),
        ({"optimizer": "rmsprop"}, "optimizer"),
        ({"optimizer": "adam"}, "momentum"),
        ({"momentum": None}, "momentum"),
        ({"rate": float("nan")}, "rate"),
        ({"unknown": 1.0}, "unknown"),
    ],
)
def test_an_illegal_configuration_is_refused_by_position_and_hyperparameter(change, message):
    with pytest.raises(ValueError, match=f"(?s)configuration 1 is not legal.*{message}"):
        check_configs(small_space(), [LEGAL, LEGAL | change])


@pytest.mark.parametrize("missing", ["rate", "momentum"])
def test_an_active_hyperparameter_without_a_value_is_refused(missing):
    config = {name: value for name, value in LEGAL.items() if name != missing}
    with pytest.raises(ValueError, match=f"(?s)configuration 0 is not legal.*{missing}"):
        check_configs(small_space(), [config])


def test_constants_may_be_left_out_and_inactive_ones_must_be():
    space = ConfigurationSpace()
    optimizer = Categorical("optimizer", ["adam", "sgd"])
    nesterov, damping = Constant("nesterov", 1), Float("damping", (0, 1))
    space.add([optimizer, Constant("epochs", 50), nesterov, damping])
    space.add(EqualsCondition(nesterov, optimizer, "sgd"), EqualsCondition(damping, nesterov, 1))
    legal = [
        {"optimizer": "adam"},
        {"optimizer": "adam", "epochs": 50},
        {"optimizer": "sgd", "damping": 0.5},
        {"optimizer": "sgd", "damping": 0.5, "nesterov": 1, "epochs": 50},
    ]
    assert check_configs(space, legal) == tuple(legal)
    sampled = [dict(config) for config in space.sample_configuration(20)]
    assert check_configs(space, sampled) == tuple(sampled)
    for config, name in [
        ({"optimizer": "adam", "nesterov": 1}, "nesterov"),
        ({"optimizer": "adam", "damping": 0.5}, "damping"),
        ({"optimizer": "adam", "epochs": 49}, "epochs"),
        ({"optimizer": "sgd", "damping": 0.5, "nesterov": 2}, "nesterov"),
        ({"optimizer": "sgd"}, "damping"),
    ]:
        with pytest.raises(ValueError, match=f"(?s)configuration 0 is not legal.*{name}"):
            check_configs(space, [config])


def test_a_forbidden_configuration_is_refused():
    space = ConfigurationSpace()
    depth = Integer("depth", (1, 9))
    space.add([depth, ForbiddenEqualsClause(depth, 4)])
    assert check_configs(space, [{"depth": 3}]) == ({"depth": 3},)
    with pytest.raises(ValueError, match="configuration 0 is not legal"):
        check_configs(space, [{"depth": 4}])


def test_checked_values_are_plain_copies():
    config = {"optimizer": np.str_("adam"), "rate": np.float64(0.1), "depth": np.int64(3)}
    (checked,) = check_configs(small_space(), [config])
    assert checked == config
    assert [type(value) for value in checked.values()] == [str, float, int]
    config["depth"] = 5
    assert checked["depth"] == 3


def test_configurations_of_configspace_itself_are_legal():
    space = small_space()
    sampled = space.sample_configuration(20)
    features = Encoder(space)(check_configs(space, sampled))
    assert features.shape == (20, 6)
    assert features.min() >= 0
    assert features.max() <= 1
    assert_array_equal(features[:, 3:5].sum(1), np.ones(20))
    assert len(check_configs(space, small_configs(20))) == 20


# Values that come back from a file, or from another library


def mixed_space():
    space = ConfigurationSpace()
    space.add(
        Categorical("kernel", [(3, 3), (5, 5), "none"]),
        Categorical("factor", [1, 2, 0.5]),
        Categorical("nesterov", [True, False]),
        OrdinalHyperparameter("width", [16, 32]),
        Constant("shape", (1, 2)),
        Integer("depth", (1, 9)),
        Float("rate", (0, 1)),
    )
    return space


OWN = {
    "kernel": (5, 5),
    "factor": 1,
    "nesterov": True,
    "width": 32,
    "shape": (1, 2),
    "depth": 2,
    "rate": 1.0,
}


@pytest.mark.parametrize(
    "changed",
    [
        {"kernel": [5, 5], "shape": [1, 2]},  # JSON
        {"factor": 1.0, "depth": 2.0, "width": 32.0, "rate": 1, "nesterov": 1},  # tables of numbers
        {name: np.asarray(value)[()] for name, value in OWN.items()},  # NumPy
    ],
)
def test_values_come_back_as_the_space_has_them(changed):
    (checked,) = check_configs(mixed_space(), [OWN | changed])
    assert checked == OWN
    assert list(map(type, checked.values())) == list(map(type, OWN.values()))
    assert type(checked["kernel"][0]) is int
    encoder = Encoder(mixed_space())
    assert_array_equal(encoder([OWN | changed]), encoder([OWN]))
    assert encoder([OWN])[0, encoder.columns.index("kernel=(5, 5)")] == 1


def test_a_value_that_is_no_choice_is_no_row_of_zeros():
    for name, value in {"kernel": [7, 7], "width": 8, "factor": 3}.items():
        with pytest.raises(ValueError, match=name):
            check_configs(mixed_space(), [OWN | {name: value}])
        with pytest.raises(ValueError, match=f"{name} is .*, none of its choices"):
            Encoder(mixed_space())([OWN | {name: value}])


def test_values_that_are_off_a_bound_or_step_by_rounding_are_on_it():
    space = ConfigurationSpace()
    space.add(
        Float("x", (0.05, 0.05 * 3)),
        Float("step", (0, 0.9), meta={"step": 0.1}),
        Integer("whole", (1, 9), meta={"step": 2}),
    )
    (checked,) = check_configs(space, [{"x": 0.05 * 3, "step": 3 * 0.1, "whole": 3}])
    assert checked == {"x": 0.15, "step": 0.3, "whole": 3}
    (free,) = check_configs(space, [{"x": 0.12, "step": 0.25, "whole": 4}])
    assert free == {"x": 0.12, "step": 0.25, "whole": 4}
    with pytest.raises(ValueError, match="x"):
        check_configs(space, [{"x": 0.05 * 3 + 1e-12, "step": 0.3, "whole": 3}])


def test_steps_are_decimals():
    assert [on_step(0, 1, 0.1, 0.1 * k) for k in range(11)] == [k / 10 for k in range(11)]
    assert on_step(0.1, 0.7, 0.3, 0.45) == 0.4
    assert on_step(0, 1, 0.3, 0.99) == 0.9  # 1 is no step
    assert on_step(-0.5, 0.5, 0.1, -9) == -0.5
    assert on_step(1e-3, 1, 1e-3, 0.3336) == 0.334
