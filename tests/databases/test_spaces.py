"""Search spaces inferred from texts, and texts as values."""

import re

import numpy as np
import pytest
from ConfigSpace import Categorical, ConfigurationSpace, Constant, Float, Integer
from ConfigSpace.hyperparameters import (
    CategoricalHyperparameter,
    FloatHyperparameter,
    IntegerHyperparameter,
    OrdinalHyperparameter,
)
from hypothesis import given
from hypothesis import strategies as st

from amt.databases import bundled, hyperrec, lcbench
from amt.databases.bundled import bundled_space
from amt.databases.spaces import describe_space, infer_space, is_inactive, parse, parse_number
from amt.space import check_configs


def infer(**columns) -> ConfigurationSpace:
    """The space of columns of texts."""
    rows = zip(*columns.values(), strict=True)
    return infer_space([dict(zip(columns, row, strict=True)) for row in rows])


def texts(curves) -> list[dict[str, str]]:
    return [
        {name: str(config[name]) if name in config else "" for name in curves.space}
        for config in curves.configs
    ]


def test_kinds():
    space = infer(
        real=["0.5", "1e0", "2"],
        integer=["1", "2.0", "3"],
        word=["a", "b", "a"],
        mixed=["1", "a", "1"],
        boolean=["True", "False", "True"],
        word_constant=["x"] * 3,
        real_constant=["0.5", "5e-1", "0.5"],
        integer_constant=["7"] * 3,
    )
    kinds = {
        "real": FloatHyperparameter,
        "integer": IntegerHyperparameter,
        "word": CategoricalHyperparameter,
        "mixed": CategoricalHyperparameter,
        "boolean": CategoricalHyperparameter,
    }
    for name, kind in kinds.items():
        assert isinstance(space[name], kind), name
    constants = {h.name: h.value for h in space.values() if isinstance(h, Constant)}
    assert constants == {"word_constant": "x", "real_constant": 0.5, "integer_constant": 7}
    assert (space["integer"].lower, space["integer"].upper) == (1, 3)
    assert space["mixed"].choices == ("1", "a")
    assert space["boolean"].choices == (False, True)


@pytest.mark.parametrize("size", [20, 100])
def test_log_scale(size):
    """Told apart for ranges of two decades and more."""
    random = np.random.default_rng(0)
    for _ in range(20):
        lower, decades = 10 ** random.uniform(-6, 1), random.uniform(2, 5)
        upper = lower * 10**decades
        uniform = random.uniform(lower, upper, size=size)
        log_uniform = np.exp(random.uniform(np.log(lower), np.log(upper), size=size))
        space = infer(a=[str(x) for x in uniform], b=[str(x) for x in log_uniform])
        assert not space["a"].log
        assert space["b"].log


def test_log_scale_needs_values_between_positive_extremes():
    space = infer(
        powers=["16", "32", "64", "128"],
        zero=["0", "0.001", "0.01", "1"],
        two=["0.001", "1", "1", "0.001"],
    )
    assert space["powers"].log
    assert not space["zero"].log
    assert not space["two"].log


@given(
    st.lists(
        st.floats(-1e12, 1e12).filter(lambda x: x == 0 or abs(x) > 1e-10), min_size=1, max_size=20
    )
)
def test_numbers_are_in_the_space_inferred_from_them(values):
    given = [repr(value) for value in values]
    space = infer(x=given)
    check_configs(space, [{"x": parse(space["x"], text)} for text in given])


@pytest.mark.parametrize(
    "values",
    [
        [0.05, 0.05 * 2, 0.05 * 3],
        [1e9, 1e9 + 1e-4, 1e9 + 2e-4],
        [-1e9 - 1e-4, -1e9],
        [0.1 + 0.2, 0.7, 0.1 * 7],
        [1e-12, 3.3333333333333e-12, 1e-11],
        [123456789.123456789, 987654321.987654321],
        [1 / 3, 2 / 3],
        [1e15 + 0.5, 1e15 + 1],
    ],
)
def test_no_value_is_outside_of_the_range_inferred_from_it(values):
    h = infer(x=list(map(repr, values)))["x"]
    assert h.lower <= min(values) < max(values) <= h.upper
    check_configs(infer(x=list(map(repr, values))), [{"x": value} for value in values])


def test_ranges_are_rounded_outwards():
    space = infer(x=["0.0123", "0.5", "0.971"], y=["-3.21", "7.77", "0.1"])
    assert (space["x"].lower, space["x"].upper) == (0.01, 0.98)
    assert (space["y"].lower, space["y"].upper) == (-4, 8)


def test_conditions():
    space = infer(
        schedule=["step", "cosine", "none", "step", "none"],
        layers=["1", "2", "3", "2", "1"],
        gamma=["0.1", "", "", "0.5", ""],
        decay=["0.1", "0.2", "", "0.3", ""],
        width=["", "8", "16", "9", ""],
        one=["0.5", "", "", "0.5", ""],
        kind=["a", "", "", "b", ""],
        nested=["1", "", "", "", ""],
    )
    conditions = {
        h.name: [str(c) for c in space.parent_conditions_of[h.name]] for h in space.values()
    }
    assert conditions == {
        "schedule": [],
        "layers": [],
        "gamma": ["gamma | schedule == 'step'"],
        "decay": ["decay | schedule in {'cosine', 'step'}"],
        "width": ["width | layers in {2, 3}"],
        "one": ["one | schedule == 'step'"],
        "kind": ["kind | schedule == 'step'"],
        "nested": ["nested | kind == 'a'"],
    }
    check_configs(
        space,
        [
            {"schedule": "none", "layers": 1},
            {"schedule": "cosine", "layers": 2, "decay": 0.15, "width": 10},
            {
                "schedule": "step",
                "layers": 1,
                "gamma": 0.2,
                "decay": 0.2,
                "one": 0.5,
                "kind": "a",
                "nested": 1,
            },
        ],
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": ["1", "2"], "y": ["0.5", ""], "z": ["3", "3"]}, None),  # x tells where y is
        ({"x": ["1.5", "2.5"], "y": ["0.5", ""]}, r"columns \['y'\] are empty in some"),
        ({"x": ["a", "a", "b"], "y": ["", "1", "2"]}, r"columns \['y'\] are empty in some"),
        ({"x": ["a", "b"], "y": ["", ""]}, r"columns \['y'\] are empty: ignore"),
    ],
)
def test_conditions_that_nothing_tells(columns, message):
    if message is None:
        assert infer(**columns).conditional_hyperparameters == ["y"]
    else:
        with pytest.raises(ValueError, match=message):
            infer(**columns)


def test_texts_that_stand_for_no_value():
    space = infer(
        optimizer=["adam", "sgd", "adam", "sgd"],
        rate=["NA", "0.5", "nan", "1"],
        depth=["None", "3", "", "4"],
        features=["None", "sqrt", "None", "log2"],
        schedule=["None", "None", "step", "cosine"],
    )
    assert (space["rate"].lower, space["rate"].upper) == (0.5, 1)
    assert (space["depth"].lower, space["depth"].upper) == (3, 4)
    assert space["features"].choices == ("log2", "sqrt")
    assert space["schedule"].choices == ("None", "cosine", "step")  # nothing tells where it is
    assert {str(c) for c in space.conditions} == {
        f"{name} | optimizer == 'sgd'" for name in ("rate", "depth", "features")
    }
    assert is_inactive(space["rate"], "nan")
    assert not is_inactive(space["schedule"], "None")
    assert not is_inactive(Categorical("x", [None, 1]), "None")
    with pytest.raises(ValueError, match=r"columns \['x'\] are empty in some configurations"):
        infer(x=["1", "NA", "3"], y=["0.1", "0.2", "0.3"])


def test_no_hyperparameters():
    with pytest.raises(ValueError, match="no column of a hyperparameter"):
        infer_space([{}, {}])


def test_bundled_space_from_its_configurations():
    """All scales and conditions as they are, ranges within."""
    given, space = texts(bundled()), bundled_space()
    inferred = infer_space(given)
    assert {str(c) for c in inferred.conditions} == {str(c) for c in space.conditions}
    for h in space.values():
        other = inferred[h.name]
        if isinstance(h, OrdinalHyperparameter):
            assert (other.lower, other.upper, other.log) == (16, 128, True)
        elif isinstance(h, CategoricalHyperparameter):
            assert set(other.choices) == set(h.choices)
        else:
            assert h.lower <= other.lower <= other.upper <= h.upper or h.name == "beta2"
            assert other.log == h.log or h.name == "beta2"  # of which log is nearly linear


@pytest.mark.parametrize("database", [hyperrec, lcbench])
def test_published_spaces_from_their_configurations(at2_folder, database):
    curves = database(at2_folder)
    inferred = infer_space(texts(curves))
    assert {str(c) for c in inferred.conditions} == {str(c) for c in curves.space.conditions}
    check_configs(
        inferred,
        [
            {name: parse(inferred[name], text) for name, text in config.items() if text}
            for config in texts(curves)
        ],
    )


@pytest.mark.parametrize(
    ("hyperparameter", "text", "value"),
    [
        (Float("x", (0, 1)), "1e-3", 1e-3),
        (Float("x", (0, 1)), "2", 2.0),
        (Integer("x", (0, 9)), "3.0", 3),
        (Integer("x", (0, 9)), "1e1", 10),
        (Categorical("x", ["1", "one"]), "1", "1"),
        (Categorical("x", [1, 2]), "2.0", 2),
        (Categorical("x", [True, False]), "false", False),
        (OrdinalHyperparameter("x", [16, 32]), "32", 32),
        (Constant("x", 0.5), "5e-1", 0.5),
        (Float("x", (0, 1)), "1_0", None),
        (Float("x", (0, 1)), "inf", None),
        (Float("x", (0, 1)), "True", None),
        (Integer("x", (0, 9)), "3.5", None),
        (Integer("x", (0, 9)), "three", None),
        (Categorical("x", [True, False]), "1", None),
        (Categorical("x", [1, 2]), "3", None),
        (Categorical("x", ["1", "one"]), "1.0", None),
        (Constant("x", 0.5), "0.6", None),
        (Categorical("x", [1, 2, 0.5]), "1.0", 1),
        (Categorical("x", [True, "auto"]), "TRUE", True),
        (Categorical("x", [(3, 3), (5, 5)]), "(5, 5)", (5, 5)),
        (Categorical("x", [(3, 3), (5, 5)]), "[5, 5]", (5, 5)),
        (Categorical("x", [[3, 3], [5, 5]]), "(5,5)", [5, 5]),
        (Categorical("x", [[3, 3], [5, 5]]), "[5, 6]", None),
        (Categorical("x", [(3, 3), (5, 5)]), "(5, 5", None),
    ],
)
def test_values_of_texts(hyperparameter, text, value):
    if value is None:
        with pytest.raises(ValueError, match=re.escape(f"x is {text!r}, not ")):
            parse(hyperparameter, text)
    else:
        parsed = parse(hyperparameter, text)
        assert parsed == value
        assert type(parsed) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers(number):
    assert parse_number(repr(number)) == number


def test_description():
    assert describe_space(bundled_space())[-2:] == [
        "momentum: real from 0 to 0.98, if optimizer == 'sgd'",
        "step_size: integer from 5 to 25, if schedule == 'step'",
    ]
