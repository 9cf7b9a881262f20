from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from amt.search.replay import replay
from amt.tuners import TUNERS, Problem

CONFIGS, EPOCHS = 6, 4
BUDGET = CONFIGS * EPOCHS + 5
KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
SOURCES = RNG.uniform(size=(3, CONFIGS, EPOCHS))
TARGET = RNG.uniform(size=(CONFIGS, EPOCHS))
NAMES = ("best_list", "source_best", "one_epoch_each", "random_search")


def run(key, sources, target, *, name):
    problem = Problem(sources, jnp.zeros((CONFIGS, 1)), jnp.arange(EPOCHS), None, BUDGET)
    init, step, _ = TUNERS[name].make()
    return replay(init(key, problem), step, target, budget=BUDGET)


compiled = {name: jax.jit(partial(run, name=name)) for name in NAMES}


def trajectory_of(name, key, sources, target):
    """The queries of a tuner, as arrays of NumPy."""
    return jax.device_get(compiled[name](key, sources, target))


random_search, source_best = (
    partial(trajectory_of, "random_search"),
    partial(trajectory_of, "source_best"),
)
one_epoch_each, best_list = (
    partial(trajectory_of, "one_epoch_each"),
    partial(trajectory_of, "best_list"),
)


@pytest.mark.parametrize("name", NAMES)
def test_trains_every_cell_once_in_the_order_of_its_curve(name):
    every = slice(CONFIGS * EPOCHS)
    trajectory = trajectory_of(name, KEY, SOURCES, TARGET)
    config, epoch = trajectory.config[every].tolist(), trajectory.epoch[every].tolist()
    cells = list(zip(config, epoch, strict=True))
    assert sorted(cells) == [(c, e) for c in range(CONFIGS) for e in range(EPOCHS)]
    for config in range(CONFIGS):
        assert [e for c, e in cells if c == config] == list(range(EPOCHS))
    assert_array_equal(trajectory.score[every], [TARGET[cell] for cell in cells])


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_score_ends_the_curve_and_then_nothing_is_left(name):
    target = TARGET.copy()
    target[2, 1] = target[4] = np.nan
    reachable = 4 * EPOCHS + 1
    trajectory = trajectory_of(name, KEY, SOURCES, target)
    scored = np.isfinite(trajectory.score)
    assert scored[:reachable].all()
    assert not scored[reachable:].any()
    cells = zip(trajectory.config.tolist(), trajectory.epoch.tolist(), strict=True)
    trained = {cell for cell, has_score in zip(cells, scored, strict=True) if has_score}
    left_out = {(2, 1), (2, 2), (2, 3)} | {(4, e) for e in range(EPOCHS)}
    assert trained == {(c, e) for c in range(CONFIGS) for e in range(EPOCHS)} - left_out


@pytest.mark.parametrize("name", NAMES)
def test_jit_and_vmap_change_nothing(name):
    keys = jax.random.split(KEY, 2)
    sources, target = np.stack([SOURCES, SOURCES + 1]), np.stack([TARGET, 1 - TARGET])
    together = jax.jit(jax.vmap(partial(run, name=name)))(keys, sources, target)
    together = jax.device_get(together)
    for index in range(2):
        alone = run(keys[index], *jax.device_put((sources[index], target[index])), name=name)
        jax.tree.map(lambda a, b, i=index: assert_array_equal(a[i], b), together, alone)


def test_random_search_finishes_each_curve_and_recommends_the_best_observed():
    trajectory = random_search(KEY, SOURCES, TARGET)
    configs = trajectory.config[: 2 * EPOCHS + 1].tolist()
    first, second, third = configs[0], configs[EPOCHS], configs[-1]
    assert configs == [first] * EPOCHS + [second] * EPOCHS + [third]
    assert len({first, second, third}) == 3
    for query, recommended in enumerate(trajectory.recommended[: 2 * EPOCHS + 1].tolist()):
        seen = trajectory.score[: query + 1]
        assert recommended == configs[np.argmax(seen)]


def test_random_search_draws_from_its_key():
    first = [
        int(random_search(jax.random.key(seed), SOURCES, TARGET).config[0]) for seed in range(30)
    ]
    assert set(first) == set(range(CONFIGS))


def test_random_search_is_averaged_over_twenty_orders():
    assert {name: TUNERS[name].orders for name in NAMES if TUNERS[name].orders > 1} == {
        "random_search": 20
    }


def test_one_epoch_each_trains_everything_once_before_anything_twice():
    trajectory = one_epoch_each(KEY, SOURCES, TARGET)
    configs = trajectory.config[: CONFIGS + 2].tolist()
    assert sorted(configs[:CONFIGS]) == list(range(CONFIGS))
    assert configs[CONFIGS:] == configs[:2]
    assert trajectory.epoch[: CONFIGS + 2].tolist() == [0] * CONFIGS + [1, 1]
    assert int(trajectory.recommended[CONFIGS - 1]) == np.argmax(TARGET[:, 0])


def by_z_score(values):
    z = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
    return np.argsort(-z.mean(0))


def test_source_best_has_the_best_mean_z_score_of_the_final_value():
    order = by_z_score(SOURCES[:, :, -1])
    trajectory = source_best(KEY, SOURCES, TARGET)
    assert trajectory.recommended.tolist() == [order[0]] * BUDGET
    assert trajectory.config[: EPOCHS + 1].tolist() == [order[0]] * EPOCHS + [order[1]]


@pytest.mark.parametrize("tuner", [source_best, best_list])
def test_sources_weigh_alike_whatever_their_scale(tuner):
    scale = np.array([1e-3, 1.0, 1e3])[:, None, None]
    plain = tuner(KEY, SOURCES, TARGET)
    scaled = tuner(KEY, scale * SOURCES - 5, TARGET)
    assert plain.recommended.tolist() == scaled.recommended.tolist()


@pytest.mark.parametrize("tuner", [source_best, best_list])
def test_a_source_on_which_all_are_alike_has_no_say(tuner):
    flat = SOURCES.copy()
    flat[2] = 1
    without = by_z_score(SOURCES[:2].max(2))
    plain = tuner(KEY, flat, TARGET)
    if tuner is source_best:
        without = by_z_score(SOURCES[:2][:, :, -1])
    assert plain.config[0] == without[0]
    assert plain.config[-6] == without[-1]


def test_best_list_trains_by_the_best_epoch_and_recommends_the_best_observed():
    order = by_z_score(SOURCES.max(2))
    assert order.tolist() != by_z_score(SOURCES[:, :, -1]).tolist()
    trajectory = best_list(KEY, SOURCES, TARGET)
    every = slice(CONFIGS * EPOCHS)
    assert trajectory.config[every].tolist() == np.repeat(order, EPOCHS).tolist()
    for query, recommended in enumerate(trajectory.recommended[every].tolist()):
        best = int(np.argmax(trajectory.score[: query + 1]))
        assert recommended == order[best // EPOCHS]


def test_best_list_recommends_its_first_until_something_is_observed():
    order = by_z_score(SOURCES.max(2))
    trajectory = best_list(KEY, SOURCES, np.full_like(TARGET, np.nan))
    assert set(trajectory.recommended.tolist()) == {order[0]}
    # The first curve is missing: until the second has a score, the first is recommended.
    target = TARGET.copy()
    target[order[0]] = np.nan
    trajectory = best_list(KEY, SOURCES, target)
    assert trajectory.config[0] == trajectory.recommended[0] == order[1]
