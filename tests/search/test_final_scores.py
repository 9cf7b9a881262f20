"""Joint final scores against dense algebra, and the rules that need them against Monte Carlo."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

import amt
from amt.gp.final_scores import FinalScores, best_epochs
from amt.gp.observations import Observations, TargetPosterior
from amt.gp.task_regression.final_scores import final_scores_given, final_scores_of_state
from amt.gp.task_regression.model import TaskRegression
from amt.gp.task_regression.target import TargetState
from amt.search.acquisition import (
    log_knowledge_gradient,
    thompson_sampling,
    top_two_thompson_sampling,
)
from amt.search.fitting import as_modelled, source_grid
from amt.search.rule import values_against
from tests.problems import small_curves

CONFIGS, EPOCHS, COMPONENTS = 12, 6, 3
TOLD = [(0, 0, 0.4), (3, 0, 0.5), (3, 1, 0.6), (7, 0, 0.3)]


def test_they_are_those_of_dense_algebra_by_either_way():
    curves = as_modelled(small_curves(5, CONFIGS, EPOCHS), "task_regression")
    grid = source_grid(curves, "task_regression")
    model = TaskRegression.init(curves, jax.random.key(0))
    observations = Observations.of(TOLD, 6, jnp.dtype("float64"))

    @jax.jit
    def both(observations):
        prior = model.target_prior(grid)
        state = TargetState.init(prior, 4)
        for at in range(4):
            config, epoch, score = (leaf[at] for leaf in observations[:3])
            state = state.update(prior, config, epoch, score)
        posterior = state.posterior(prior)
        every = jnp.divmod(jnp.arange(CONFIGS * EPOCHS), EPOCHS)
        dense = jnp.tensordot(prior.components.parts, prior.among(*every), 1)
        kept = jnp.arange(0, EPOCHS, 2)
        thin = prior.condition(observations, None, kept)
        return (
            final_scores_of_state(prior, state, posterior),
            final_scores_given(prior, posterior, observations),
            final_scores_given(prior, thin, observations, None, kept),
            (posterior, dense, prior.noises(), best_epochs(posterior), best_epochs(thin)),
        )

    found = jax.tree.map(np.asarray, both(observations))
    sequential, at_once, thinned, (posterior, dense, noise, best, kept) = found
    told = [config * EPOCHS + epoch for config, epoch, _ in TOLD]
    for final, epoch in ((sequential, best), (at_once, best), (thinned, 2 * kept)):
        rows = np.arange(CONFIGS) * EPOCHS + epoch
        for k in range(len(noise)):
            gram = dense[k][np.ix_(told, told)] + np.diag([noise[k, e] for _, e, _ in TOLD])
            cross = dense[k][np.ix_(told, rows)]
            expected = dense[k][np.ix_(rows, rows)] - cross.T @ np.linalg.solve(gram, cross)
            assert_allclose(final.covariance[k], expected, atol=1e-10)
            assert_allclose(final.noise[k], noise[k, epoch])
        assert_allclose(final.mean, posterior.mean[:, np.arange(CONFIGS), epoch], atol=1e-10)


@pytest.fixture(scope="module")
def problem():
    """A mixture of final scores; configurations 2 and 5 have no epoch left."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(COMPONENTS, CONFIGS, CONFIGS)) / 4
    final = FinalScores(
        mean=jnp.asarray(rng.normal(size=(COMPONENTS, CONFIGS)) / 2),
        covariance=jnp.asarray(root @ root.transpose(0, 2, 1)),
        noise=jnp.asarray(rng.uniform(0.05, 0.2, (COMPONENTS, CONFIGS))),
        log_weights=jnp.log(jnp.asarray([0.5, 0.3, 0.2])),
    )
    variance = jnp.diagonal(final.covariance, axis1=1, axis2=2)
    marginals = final.mean[..., None], variance[..., None], final.log_weights
    remaining = np.ones((CONFIGS, 1), bool)
    remaining[[2, 5]] = False
    return TargetPosterior(*marginals), remaining, final


def draws_of(final, count, seed):
    """Draws of the final scores by NumPy."""
    rng = np.random.default_rng(seed)
    final = jax.tree.map(np.asarray, final)
    weights = np.exp(final.log_weights)
    counts = rng.multinomial(count, weights / weights.sum())
    return np.concatenate(
        [
            rng.multivariate_normal(final.mean[k], final.covariance[k], counts[k])
            for k in range(COMPONENTS)
        ]
    )


@partial(jax.jit, static_argnums=0)
def chosen(rule, keys, posterior, remaining, final):
    values = jax.vmap(lambda key: rule(posterior, remaining, 0.0, final=final, key=key))(keys)
    return values.argmax(1), values


def test_thompson_sampling_trains_each_as_often_as_it_is_the_best(problem):
    posterior, remaining, final = problem
    keys = jax.random.split(jax.random.key(0), 2000)
    config, values = map(np.asarray, chosen(thompson_sampling, keys, posterior, remaining, final))
    draws = np.where(remaining[:, 0], draws_of(final, 2000, 1), -np.inf)
    expected = np.bincount(draws.argmax(1), minlength=CONFIGS) / 2000
    assert_allclose(np.bincount(config, minlength=CONFIGS) / 2000, expected, atol=0.05)
    assert_array_equal(np.isneginf(values).any(0), ~remaining[:, 0])
    mean, covariance, _ = map(np.asarray, jax.jit(FinalScores.matched)(final))
    left = remaining[:, 0]
    assert_allclose(values.mean(0)[left], mean[left], atol=0.05)
    assert_allclose(np.cov(values[:, left].T), covariance[np.ix_(left, left)], atol=0.1)


def test_top_two_sampling_trains_the_leader_half_the_time_and_else_a_challenger(problem):
    """Russo (2016), section 3.3: alpha_i / 2 (1 + sum of alpha_j / (1 - alpha_j)), j not i."""
    posterior, _, final = problem
    keys = jax.random.split(jax.random.key(1), 2000)
    every = np.ones((CONFIGS, 1), bool)
    config, _ = chosen(top_two_thompson_sampling, keys, posterior, every, final)
    best = np.bincount(draws_of(final, 40_000, 2).argmax(1), minlength=CONFIGS) / 40_000
    odds = best / (1 - best)
    expected = best * (0.5 + 0.5 * (odds.sum() - odds))
    assert_allclose(expected.sum(), 1, rtol=1e-9)
    assert_allclose(np.bincount(config, minlength=CONFIGS) / 2000, expected, atol=0.05)


def test_top_two_sampling_trains_the_challenger_of_a_leader_without_epochs(problem):
    posterior, _, final = problem
    sure = final._replace(mean=final.mean.at[:, 4].add(50))
    one = np.arange(CONFIGS)[:, None] != 4
    keys = jax.random.split(jax.random.key(2), 2000)
    config, values = chosen(top_two_thompson_sampling, keys, posterior, one, sure)
    assert 4 not in config
    assert np.isneginf(values[:, 4]).all()
    every = np.ones((CONFIGS, 1), bool)
    config, values = chosen(top_two_thompson_sampling, keys, posterior, every, sure)
    assert 0.46 < (config == 4).mean() < 0.54
    assert np.isfinite(values).all()


def test_the_knowledge_gradient_is_that_of_monte_carlo_and_of_quadrature(problem):
    posterior, remaining, final = problem
    compiled = jax.jit(partial(log_knowledge_gradient, posterior, remaining, 0.0))
    value = np.exp(compiled(final=final))
    mean, covariance, noise = map(np.asarray, jax.jit(FinalScores.matched)(final))
    z = np.linspace(-9, 9, 200_001)
    for c in range(CONFIGS):
        slope = covariance[c] / np.sqrt(covariance[c, c] + noise[c])
        best = np.max(mean[:, None] + slope[:, None] * z, axis=0)
        expected = np.trapezoid(best * norm.pdf(z), z) - mean.max()
        assert_allclose(value[c], expected if remaining[c] else 0, atol=1e-8)
    # Equal lines, and ones that differ in nothing, gain nothing; a tiny gain is still a number.
    same = final._replace(mean=jnp.zeros_like(final.mean), covariance=0 * final.covariance + 1.0)
    assert (compiled(final=same)[remaining[:, 0]] == np.finfo(float).min).all()
    apart = final.mean.at[:, 0].add(100.0)
    tiny = compiled(final=final._replace(mean=apart))
    assert np.isfinite(tiny[remaining[:, 0]]).all()
    assert (tiny[remaining[:, 0]] > np.finfo(float).min).any()


def test_a_rule_of_joint_scores_needs_the_model_that_has_them(problem):
    posterior, remaining, _ = problem
    with pytest.raises(ValueError, match="thompson_sampling needs task regression"):
        values_against(jnp.zeros(()), posterior, remaining, thompson_sampling)
    with pytest.raises(ValueError, match="kg: only task_regression has it"):
        amt.tuners.TUNERS["amt"].make(acquisition={"name": "kg"})
