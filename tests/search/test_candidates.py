"""Random configurations, their neighbours, and finding those that are known."""

import numpy as np
import pytest
from ConfigSpace import Configuration, ConfigurationSpace, Float, Integer
from numpy.testing import assert_allclose, assert_array_equal

from amt.search.candidates import (
    Candidates,
    check_within,
    configuration_in,
    draw,
    neighbours,
    plain_values,
)
from amt.space import Encoder, check_configs
from tests.problems import small_configs, small_space

SPACE = small_space()


def test_what_is_drawn_follows_from_the_seed_alone():
    first, other = draw(SPACE, 5, 1), draw(SPACE, 5, 2)
    SPACE.sample_configuration(3)
    assert draw(SPACE, 5, 1) == first != other
    assert len(set(first)) == 5


def test_values_are_those_of_the_configurations_and_plain():
    drawn = draw(SPACE, 30, 0)
    plain = plain_values(SPACE, drawn)
    assert list(check_configs(SPACE, plain)) == plain
    assert list(map(list, plain)) == list(map(list, drawn))
    encode = Encoder(SPACE)  # ConfigSpace rounds the values that it shows
    assert_allclose(encode(plain), encode(list(map(dict, drawn))), atol=1e-12)
    assert {type(v) for config in plain for v in config.values()} == {float, int, str}
    assert {"momentum" in config for config in plain} == {True, False}


def test_neighbours_are_legal_and_so_many_of_each_center():
    centers = draw(SPACE, 2, 0)
    around = neighbours(centers, [3, 4], 5)
    assert len(around) == 10
    assert around == neighbours(centers, [3, 4], 5) != neighbours(centers, [4, 3], 5)
    check_configs(SPACE, plain_values(SPACE, around))
    for index, neighbour in enumerate(around):
        center = dict(centers[index // 5])
        differing = [n for n in neighbour if n != "momentum" and neighbour[n] != center.get(n)]
        assert len(differing) <= 1


def test_candidates_have_their_values_and_features():
    encode = Encoder(SPACE)
    candidates = Candidates.of(SPACE, draw(SPACE, 4, 0), encode)
    assert candidates.values == plain_values(SPACE, candidates.configs)
    assert_array_equal(candidates.features, encode(candidates.values))
    assert Candidates.of(SPACE, [], encode).features.shape == (0, encode.num_features)


def test_neighbours_keep_the_values_of_their_center_to_the_last_bit():
    space = ConfigurationSpace({"a": (1 / 3, 1.0), "b": (1, 2**40), "c": [1, 2, 0.5]})
    config = {"a": 0.1 + 0.7, "b": 2**39 + 12345, "c": 0.5}
    center = configuration_in(space, config)
    around = neighbours([center], [0], 20)
    plain = plain_values(space, around, [(center, config)] * len(around))
    assert {sum(p[n] != config[n] for n in config) for p in plain} == {1}
    assert {type(p["c"]) for p in plain if p["c"] != 0.5} == {int}
    check_configs(space, plain)


def test_values_are_rounded_within_their_range_and_not_to_nothing():
    space = ConfigurationSpace()
    space.add(Float("a", (0.1, 0.7)), Float("b", (1e-12, 1e-9), log=True))
    corners = np.array([[0.0, 0.0], [1.0, 0.5], [0.123456789, 1.0]])
    plain = plain_values(space, [Configuration(space, vector=corner) for corner in corners])
    assert (plain[0]["a"], plain[1]["a"]) == (0.1, 0.7)
    assert plain[2]["a"] == 0.1740740734
    assert_allclose([p["b"] for p in plain], [1e-12, 10**-10.5, 1e-9], rtol=1e-9)


def test_a_configuration_outside_of_a_space_is_none():
    config = small_configs(1)[0]
    inside = configuration_in(SPACE, config)
    assert inside is not None
    assert dict(inside) == pytest.approx(config)
    assert configuration_in(SPACE, {**config, "depth": 10}) is None
    assert configuration_in(SPACE, {"width": 3}) is None


def test_a_space_within_the_sources():
    check_within(SPACE, SPACE)
    with pytest.raises(ValueError, match="do not both have depth, momentum, optimizer"):
        check_within(ConfigurationSpace({"rate": (1e-3, 0.1)}), SPACE)


def test_candidates_are_on_the_steps_of_a_space():
    space = ConfigurationSpace()
    space.add(Float("x", (0, 1), meta={"step": 0.1}), Integer("n", (1, 10), meta={"step": 3}))
    values = plain_values(space, draw(space, 200, 0))
    assert {v["x"] for v in values} == {k / 10 for k in range(11)}
    assert {v["n"] for v in values} == {1, 4, 7, 10}
    assert {type(v["n"]) for v in values} == {int}
