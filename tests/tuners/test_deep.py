"""Networks, and the tuners that are pure functions: each on the small problem."""

from functools import cache, partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal

from amt.search.replay import replay
from amt.tuners import TUNERS, HostProblem, Problem
from amt.tuners.deep import Network, negative_log_likelihood, train
from amt.tuners.full_training import capacity, scored, start, step
from amt.tuners.one_task.deep_power_laws import power_laws
from amt.tuners.past_tasks.ablr import SharedFeatures
from amt.tuners.past_tasks.portfolio import portfolio
from amt.tuners.past_tasks.pretrained import FinalScores, condition
from tests.tuners.problems import BEST, NUM_CONFIGS, NUM_EPOCHS, SCORES, SOURCES

KEY = jax.random.key(1)
BUDGET = 40
PROBLEM = HostProblem("small", SOURCES, BUDGET)
EPOCH_BY_EPOCH = ("freeze_thaw", "dyhpo", "deep_power_laws", "dyhpo_warm")
TO_THE_END = ("hyperbo", "ablr", "fsbo", "multi_task_gp")


def stage(name, function, *args, **static):
    return jax.jit(jax.vmap(partial(function, **static)))(*args)


@cache
def run(name):
    """What a tuner learned, and its queries on the target."""
    tuner = TUNERS[name].make()
    problem = jax.tree.map(lambda leaf: leaf[None], Problem.of(PROBLEM))
    if tuner.prepare is not None:
        problem = tuner.prepare([PROBLEM], [KEY], jnp.float64, stage).problems
    learned = jax.tree.map(lambda leaf: leaf[0], jax.device_get(problem))

    @jax.jit
    def go(learned):
        return replay(tuner.init(KEY, learned), tuner.step, jnp.asarray(SCORES), budget=BUDGET)

    return learned, jax.device_get(go(learned))


@pytest.mark.parametrize("name", [*EPOCH_BY_EPOCH, *TO_THE_END])
def test_a_pure_tuner_trains_cells_in_the_order_of_their_curves(name):
    _, trajectory = run(name)
    assert np.isfinite(trajectory.score).all()
    cells = list(zip(trajectory.config.tolist(), trajectory.epoch.tolist(), strict=True))
    assert len(set(cells)) == BUDGET
    configs = trajectory.config.tolist()
    changes = sum(first != second for first, second in pairwise(configs))
    if name in TO_THE_END:
        assert changes == (BUDGET - 1) // NUM_EPOCHS
        best = [np.argmax(trajectory.score[: query + 1]) for query in range(BUDGET)]
        assert trajectory.recommended.tolist() == [configs[query] for query in best]
    else:
        # More than one configuration, none of them only because another had ended.
        assert len(set(configs)) > BUDGET // NUM_EPOCHS + 1


@pytest.mark.parametrize("name", ["fsbo", "dyhpo_warm"])
def test_a_warm_start_is_the_head_of_the_portfolio(name):
    assert run(name)[1].config[0] == portfolio(BEST)[0]


def test_hyperbo_learns_the_mean_of_the_sources_and_starts_there():
    learned, trajectory = run("hyperbo")
    assert trajectory.config[0] == np.argmax(learned.mean)
    z = (BEST - BEST.mean()) / BEST.std(1).mean()
    assert np.corrcoef(learned.mean, z.mean(0))[0, 1] > 0.9
    assert_allclose(learned.level, BEST.mean())


def test_features_of_ablr_explain_the_sources():
    learned, _ = run("ablr")
    z = (BEST - BEST.mean(1, keepdims=True)) / BEST.std(1, keepdims=True)
    every, held = np.arange(NUM_CONFIGS), np.arange(0, NUM_CONFIGS, 3)
    known = np.setdiff1d(every, held)
    mask, zero = np.ones(len(known), bool), np.zeros(NUM_CONFIGS)
    mean, _ = jax.jit(condition)(zero, learned.gram, learned.noise, known, mask, z[0, known])
    mean = np.asarray(mean)
    assert np.mean((mean[held] - z[0, held]) ** 2) < 0.5 * np.mean(z[0, held] ** 2)


def test_the_likelihood_of_ablr_is_that_of_its_scores():
    rng = np.random.default_rng(0)
    net = Network.init((SOURCES.features.shape[1], 5), KEY, jnp.float64)
    model = SharedFeatures(net, np.array([0.3, -0.4]), np.array([1.0, 2.0]))
    scores = rng.normal(size=(2, NUM_CONFIGS))
    densities = []

    @jax.jit
    def features_and_loss(model, features, scores):
        return model.features(features), model.loss(features, scores)

    features, loss = jax.device_get(features_and_loss(model, SOURCES.features, scores))
    for of_task, alpha, beta in zip(scores, [0.3, -0.4], [1.0, 2.0], strict=True):
        gram = features @ features.T / np.exp(alpha) + np.eye(NUM_CONFIGS) / np.exp(beta)
        densities.append(multivariate_normal(np.zeros(NUM_CONFIGS), gram).logpdf(of_task))
    expected = -np.mean(densities) / NUM_CONFIGS - np.log(2 * np.pi) / 2
    assert_allclose(loss, expected)


def test_multi_task_gp_starts_where_the_sources_are_good():
    z = (BEST - BEST.mean(1, keepdims=True)) / BEST.std(1, keepdims=True)
    first = run("multi_task_gp")[1].config[0]
    assert np.sum(z.mean(0) > z.mean(0)[first]) < 5


def test_power_laws_are_learned():
    tuner = TUNERS["deep_power_laws"].make()
    state = jax.device_get(jax.jit(partial(tuner.init, KEY))(Problem.of(PROBLEM)))
    net, other = (jax.tree.map(lambda leaf: leaf[i], state.nets) for i in (0, 1))  # noqa: B023
    features, epochs = np.repeat(state.features, 3, 0), np.tile([1.0, 4.0, 9.0], 30)
    curves = jax.jit(lambda net: power_laws(net, features, epochs))
    assert (np.diff(np.reshape(curves(net), (NUM_CONFIGS, 3)), axis=1) > 0).all()
    truth = np.asarray(curves(other))

    def loss(net, key):
        return jnp.mean(jnp.abs(power_laws(net, features, epochs) - truth))

    @jax.jit
    def before_and_after(net):
        learned = train(net, loss, KEY, steps=200, learning_rate=0.01)
        return loss(net, KEY), loss(learned, KEY)

    before, after = jax.device_get(before_and_after(net))
    assert after < 0.2 * before


def test_likelihood_and_conditioning_are_those_of_normal_variables():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    gram, mean = root @ root.T + np.eye(6), rng.normal(size=6)
    rows = rng.normal(size=(3, 6))
    constant = np.log(2 * np.pi) / 2
    density = multivariate_normal(np.zeros(6), gram).logpdf(rows).sum() / rows.size
    assert_allclose(jax.jit(negative_log_likelihood)(gram, rows), -density - constant)
    configs, mask = np.array([4, 1, 0]), np.array([True, True, False])
    scores = np.array([0.3, -0.8, 99.0])
    got = jax.jit(condition)(mean, gram, 0.2, configs, mask, scores)
    own = np.linalg.inv(gram[[4, 1]][:, [4, 1]] + 0.2 * np.eye(2))
    cross = gram[:, [4, 1]]
    assert_allclose(got[0], mean + cross @ own @ (np.array([0.3, -0.8]) - mean[[4, 1]]))
    assert_allclose(got[1], np.diag(gram - cross @ own @ cross.T))


def test_networks_have_tanh_between_their_layers():
    net = Network.init((2, 3, 1), KEY, jnp.float64)
    x = np.array([[0.2, -0.5], [1.0, 2.0]])
    first, second = jax.device_get(net.layers)
    hidden = np.tanh(x @ first.weight.T + first.bias)
    expected = hidden @ second.weight.T + second.bias
    values = jax.jit(lambda net: net(x))
    assert_allclose(values(net), expected)
    assert_allclose(values(Network(net.layers, True)), np.tanh(expected))


def test_full_training_goes_on_to_the_end_and_then_to_the_best_value():
    def choose(learned, scores):
        return jnp.where(jnp.isfinite(scores), -1.0, learned)

    merit = np.random.default_rng(0).permutation(NUM_CONFIGS).astype(float)
    target = SCORES.copy()
    target[np.argmax(merit), 3] = np.nan

    @jax.jit
    def run(merit, target):
        state = start(merit, NUM_CONFIGS, jnp.float64)
        return replay(state, partial(step, choose=choose), target, budget=3 + 2 * NUM_EPOCHS)

    trajectory = run(merit, target)
    order = np.argsort(-merit)
    expected = [order[0]] * 3 + [order[1]] * NUM_EPOCHS + [order[2]] * NUM_EPOCHS
    assert_array_equal(trajectory.config, expected)
    assert capacity(100, 50) == 3
    scores = np.full(NUM_CONFIGS, -np.inf)
    scores[[5, 2]] = 0.5, 0.2
    configs, mask, values = jax.device_get(jax.jit(scored, static_argnums=1)(scores, 3))
    assert configs[:2].tolist() == [2, 5]
    assert mask.tolist() == [True, True, False]
    assert values.tolist() == [0.2, 0.5, 0.0]


def test_final_scores_are_stacked_with_their_level_and_scale():
    stacked = FinalScores.of([PROBLEM, PROBLEM], jnp.float64)
    assert_allclose(stacked.scores[1], BEST)
    assert_allclose(stacked.level, [BEST.mean()] * 2)
    assert_allclose(stacked.scale, [BEST.std(1).mean()] * 2)
    assert np.argsort(stacked.place[0]).tolist() == portfolio(BEST).tolist()
