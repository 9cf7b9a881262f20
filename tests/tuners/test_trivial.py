import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from amt.tuners import BASELINES

CONFIGS, EPOCHS = 6, 4
KEY = jax.random.key(3)
SOURCES = jax.random.uniform(jax.random.key(0), (3, CONFIGS, EPOCHS))
TARGET = jax.random.uniform(jax.random.key(1), (CONFIGS, EPOCHS))
compiled = {name: jax.jit(b, static_argnames="budget") for name, b in BASELINES.items()}
random_search, source_best = compiled["random_search"], compiled["source_best"]
one_epoch_each = compiled["one_epoch_each"]


@pytest.mark.parametrize("name", BASELINES)
def test_trains_every_cell_once_in_the_order_of_its_curve(name):
    trajectory = compiled[name](KEY, SOURCES, TARGET, budget=CONFIGS * EPOCHS)
    cells = list(zip(trajectory.config.tolist(), trajectory.epoch.tolist(), strict=True))
    assert sorted(cells) == [(c, e) for c in range(CONFIGS) for e in range(EPOCHS)]
    for config in range(CONFIGS):
        assert [e for c, e in cells if c == config] == list(range(EPOCHS))
    assert_array_equal(trajectory.score, [TARGET[cell] for cell in cells])


@pytest.mark.parametrize("name", BASELINES)
def test_a_missing_score_ends_the_curve_and_then_nothing_is_left(name):
    target = TARGET.at[2, 1].set(jnp.nan).at[4].set(jnp.nan)
    reachable = 4 * EPOCHS + 1
    trajectory = compiled[name](KEY, SOURCES, target, budget=reachable + 5)
    scored = np.isfinite(trajectory.score)
    assert scored[:reachable].all()
    assert not scored[reachable:].any()
    cells = zip(trajectory.config.tolist(), trajectory.epoch.tolist(), strict=True)
    trained = {cell for cell, has_score in zip(cells, scored, strict=True) if has_score}
    left_out = {(2, 1), (2, 2), (2, 3)} | {(4, e) for e in range(EPOCHS)}
    assert trained == {(c, e) for c in range(CONFIGS) for e in range(EPOCHS)} - left_out


@pytest.mark.parametrize("name", BASELINES)
def test_jit_and_vmap_change_nothing(name):
    keys = jax.random.split(KEY, 2)
    run = lambda key, sources, target: BASELINES[name](key, sources, target, budget=7)  # noqa: E731
    sources, target = jnp.stack([SOURCES, SOURCES + 1]), jnp.stack([TARGET, 1 - TARGET])
    together = jax.jit(jax.vmap(run))(keys, sources, target)
    for index in range(2):
        alone = run(keys[index], sources[index], target[index])
        jax.tree.map(lambda a, b, i=index: assert_array_equal(a[i], b), together, alone)


def test_random_search_finishes_each_curve_and_recommends_the_best_observed():
    trajectory = random_search(KEY, SOURCES, TARGET, budget=2 * EPOCHS + 1)
    configs = trajectory.config.tolist()
    first, second, third = configs[0], configs[EPOCHS], configs[-1]
    assert configs == [first] * EPOCHS + [second] * EPOCHS + [third]
    assert len({first, second, third}) == 3
    for query, recommended in enumerate(trajectory.recommended.tolist()):
        seen = trajectory.score[: query + 1]
        assert recommended == configs[int(jnp.argmax(seen))]


def test_random_search_draws_from_its_key():
    first = [
        int(random_search(jax.random.key(seed), SOURCES, TARGET, budget=9).config[0])
        for seed in range(30)
    ]
    assert set(first) == set(range(CONFIGS))


def test_one_epoch_each_trains_everything_once_before_anything_twice():
    trajectory = one_epoch_each(KEY, SOURCES, TARGET, budget=CONFIGS + 2)
    configs = trajectory.config.tolist()
    assert sorted(configs[:CONFIGS]) == list(range(CONFIGS))
    assert configs[CONFIGS:] == configs[:2]
    assert trajectory.epoch.tolist() == [0] * CONFIGS + [1, 1]
    assert int(trajectory.recommended[CONFIGS - 1]) == int(jnp.argmax(TARGET[:, 0]))


def test_source_best_has_the_best_mean_z_score_of_the_final_value():
    final = np.asarray(SOURCES)[:, :, -1]
    z = (final - final.mean(1, keepdims=True)) / final.std(1, keepdims=True)
    order = np.argsort(-z.mean(0))
    trajectory = source_best(KEY, SOURCES, TARGET, budget=EPOCHS + 1)
    assert trajectory.recommended.tolist() == [order[0]] * (EPOCHS + 1)
    assert trajectory.config.tolist() == [order[0]] * EPOCHS + [order[1]]


def test_source_best_weighs_tasks_alike_whatever_their_scale():
    scale = jnp.array([1e-3, 1.0, 1e3])[:, None, None]
    plain = source_best(KEY, SOURCES, TARGET, budget=1)
    scaled = source_best(KEY, scale * SOURCES - 5, TARGET, budget=1)
    assert plain.recommended.tolist() == scaled.recommended.tolist()


def test_a_source_on_which_all_are_alike_has_no_say():
    flat = jnp.concatenate([SOURCES, jnp.ones((1, CONFIGS, EPOCHS))])
    plain = source_best(KEY, SOURCES, TARGET, budget=1)
    assert source_best(KEY, flat, TARGET, budget=1).recommended == plain.recommended
