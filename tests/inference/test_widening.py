"""How much wider a target's intervals are, against sources that are left out one by one."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from amt.gp.grid import CurveGrid
from amt.gp.observations import Observations
from amt.gp.task_regression.model import TaskRegression
from amt.gp.task_regression.widening import COUNTS, widening_after
from amt.inference.widening import FACTORS, learn_widening
from tests.problems import small_curves

TASKS, CONFIGS, EPOCHS = 5, 12, 6
LEARN = jax.jit(learn_widening)


@pytest.fixture(scope="module")
def sources():
    """Sources that differ in how far apart their configurations are, and a model of them."""
    curves = small_curves(TASKS, CONFIGS, EPOCHS)
    stretch = np.array([0.3, 0.6, 1.0, 1.7, 3.0])[:, None, None]
    scores = 0.5 + stretch * (curves.scores - curves.scores.mean((1, 2), keepdims=True))
    grid = replace(CurveGrid.of(curves), scores=jnp.asarray(scores))
    grid = replace(grid, variance=jnp.zeros(scores.shape))
    return TaskRegression.init(curves, jax.random.key(0)), grid


@eqx.filter_jit
def last_means(model, grid):
    """Means of the last scores of a target of which nothing is known."""
    return model.target_prior(grid).mean[:, -1]


@eqx.filter_jit
def last_scores(model, grid, config, epoch, score, count):
    """Mean, variance and noise variance of the last scores, and the weights, of a target."""
    prior = model.target_prior(grid)
    posterior = prior.condition(Observations(config, epoch, score, count))
    weights = jnp.exp(posterior.log_weights)
    variance = posterior.widened().variance[..., -1]
    return posterior.mean[..., -1], variance, prior.noises()[:, -1:], weights


def shares(model, grid, count):
    """Share of last scores that are inside of the 90% interval, for each of `FACTORS`."""
    side = round(count**0.5)
    configs, epochs = min(side, CONFIGS), min(side, EPOCHS)
    inside, counted = np.zeros(len(FACTORS)), 0
    for task in range(TASKS):
        rest = np.delete(np.arange(TASKS), task)
        others = replace(grid, scores=grid.scores[rest], variance=grid.variance[rest])
        best = np.argsort(-np.asarray(last_means(model, others)))[:configs]
        config, epoch = np.repeat(best, epochs), np.tile(np.arange(epochs), configs)
        padding = (0, max(COUNTS) - len(config))
        config, epoch = np.pad(config, padding), np.pad(epoch, padding)
        scores = np.asarray(grid.scores[task])
        told = configs * epochs
        found = last_scores(model, others, config, epoch, scores[config, epoch], np.array(told))
        mean, variance, noise, weights = map(np.asarray, found)
        for other in np.flatnonzero(np.asarray(grid.variance)[task, :, -1] == 0):
            if other in best:
                continue
            counted += 1
            variances = FACTORS[:, None] ** 2 * variance[:, other] + noise[:, 0]
            below = norm.cdf(scores[other, -1], mean[:, other], np.sqrt(variances)) @ weights
            inside += abs(below - 0.5) <= 0.45
    return inside / counted


def test_it_is_the_least_factor_that_covers_sources_left_out(sources):
    model, grid = sources
    for variance in (grid.variance, grid.variance.at[:2, 3:8, -1].set(0.1)):
        of_known = replace(grid, variance=variance)
        for found, count in zip(np.asarray(LEARN(model, of_known)), COUNTS, strict=True):
            covered = shares(model, of_known, count)
            first = np.argmax(covered >= 0.9) if (covered >= 0.9).any() else -1
            np.testing.assert_allclose(found, FACTORS[first], rtol=1e-12)


def test_a_single_source_widens_nothing(sources):
    model, grid = sources
    one = CurveGrid(grid.scores[:1], grid.features, grid.epochs)
    np.testing.assert_array_equal(LEARN(model, one), np.ones(len(COUNTS)))
    few = CurveGrid(grid.scores[:, :2, :1], grid.features[:2], grid.epochs[:1])
    np.testing.assert_array_equal(LEARN(model, few), np.ones(len(COUNTS)))


def test_the_posterior_has_the_factor_of_its_number_of_scores(sources):
    model, grid = sources
    factors = jnp.array([0.8, 1.2, 1.5])
    wider = eqx.tree_at(lambda m: m.widening, model, factors)
    config, epoch = np.arange(64) % CONFIGS, np.arange(64) // CONFIGS
    score = np.asarray(grid.scores[0])[config, epoch]
    expected = {0: 0.8, 4: 0.8, 8: (0.8 * 1.2) ** 0.5, 16: 1.2, 64: 1.5}
    for told, factor in expected.items():
        count = jnp.asarray(told)
        np.testing.assert_allclose(widening_after(factors, count), factor, rtol=1e-12)
        before = last_scores(model, grid, config, epoch, score, count)
        after = last_scores(wider, grid, config, epoch, score, count)
        np.testing.assert_allclose(after[1], factor**2 * before[1], rtol=1e-10)
        np.testing.assert_array_equal(after[0], before[0])
