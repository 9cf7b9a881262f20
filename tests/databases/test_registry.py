"""Databases by name, and one that a user's module adds."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from amt import databases
from amt.curves import LearningCurves
from amt.databases import DATABASES, Database, load, paper_pairs, register, registry
from amt.evaluation.splits import make_splits
from tests.problems import small_configs, small_space

TASKS = ("a", "b", "c")


def mine(offset: float = 0.0) -> LearningCurves:
    scores = np.random.default_rng(0).uniform(size=(3, 4, 5))
    return LearningCurves(
        configs=small_configs(4), space=small_space(), tasks=TASKS, scores=scores + offset
    )


def pairs() -> list[tuple[tuple[str, ...], str]]:
    return [(("a", "b"), "c"), (("c",), "a")]


@pytest.fixture
def unregistered():
    """Forgets afterwards what a test registers as "mine"."""
    yield
    registry._registered.pop("mine", None)


def test_those_that_come_with_amt():
    assert list(DATABASES) == ["bundled", "hyperrec", "lcbench"]
    assert [database.title for database in DATABASES.values()] == ["bundled", "HyperRec", "LCBench"]
    assert all(name == database.name for name, database in DATABASES.items())
    with pytest.raises(TypeError):
        DATABASES["mine"] = Database("mine", mine)  # pyright: ignore[reportIndexIssue]


def test_a_database_of_ones_own_is_registered_once_and_found_by_experiments(unregistered):
    register(Database("mine", mine, pairs, title="My networks"))
    assert list(databases.DATABASES) == ["bundled", "hyperrec", "lcbench", "mine"]
    assert DATABASES["mine"].title == "My networks"
    curves = load("mine")
    assert_array_equal(curves.scores, mine().scores)
    assert_array_equal(load("mine", offset=1.0).scores, mine().scores + 1)
    assert paper_pairs("mine") == pairs()
    splits = make_splits("mine", curves)
    assert [(s.sources.tasks, *s.target.tasks) for s in splits] == pairs()
    splits = make_splits("mine", curves, kind="leave_one_out")
    pairs_left = [(sources.tasks, target.tasks) for sources, target in curves.leave_one_out()]
    assert [(s.sources.tasks, s.target.tasks) for s in splits] == pairs_left
    with pytest.raises(KeyError, match="there are bundled, hyperrec, lcbench, mine and files"):
        load("other")


def test_a_database_without_pairs_says_how_to_split_it(unregistered):
    register(Database("mine", mine))
    assert DATABASES["mine"].title == "mine"
    with pytest.raises(KeyError, match="mine has no published pairs: split it by leave_one_out"):
        paper_pairs("mine")
    register(Database("mine", mine, pairs))
    assert paper_pairs("mine") == pairs()


def test_a_name_that_is_a_files_is_refused():
    with pytest.raises(ValueError, match=r"must not be called 'mine\.csv'"):
        register(Database("mine.csv", mine))


def test_unknown_database_is_refused():
    for function in (load, paper_pairs):
        with pytest.raises(KeyError, match="no database 'nas'; there are bundled, hyperrec"):
            function("nas")
