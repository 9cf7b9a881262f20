"""Random configurations, their neighbours, and finding those that are known."""

import numpy as np
import pytest
from ConfigSpace import ConfigurationSpace
from numpy.testing import assert_allclose, assert_array_equal

from amt.search.candidates import (
    SAME,
    Candidates,
    check_within,
    configuration_in,
    draw,
    find,
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


def test_known_configurations_are_found_by_their_features():
    encode = Encoder(SPACE)
    known = encode(small_configs(6))
    shifted = known[[4, 2, 0]] + np.array([0, 0.5 * SAME, 2 * SAME])[:, None]
    assert_array_equal(find(shifted, known), [4, 2, -1])
    candidates = Candidates.of(SPACE, draw(SPACE, 4, 0), encode)
    assert_array_equal(find(candidates.features, known), [-1] * 4)
    assert Candidates.of(SPACE, [], encode).features.shape == (0, encode.num_features)


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
