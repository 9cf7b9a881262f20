"""Forecasts of the closed loop; that the loop does what the tuner does is in test_tuner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from amt.gp.grid import CurveGrid
from amt.gp.mixture import Mixture
from amt.gp.model import MultiTaskGP
from amt.gp.observations import Observations, TargetPosterior
from amt.outcome import ArcsineOutcome
from amt.parameters import stack
from amt.search.replay import forecast
from amt.search.simulate import simulate
from tests.problems import small_curves

CONFIGS, EPOCHS = 40, 3


@pytest.mark.parametrize("draws", [(), (5,)])
def test_forecast_is_that_of_the_weighted_mixture(draws):
    rng = np.random.default_rng(0)
    mean, variance = rng.normal(size=(*draws, CONFIGS, EPOCHS)), rng.uniform(size=CONFIGS * EPOCHS)
    variance = np.broadcast_to(variance.reshape(CONFIGS, EPOCHS), mean.shape)
    noise = rng.uniform(size=(*draws, EPOCHS))
    target, held_out = rng.normal(size=(CONFIGS, EPOCHS)), rng.uniform(size=CONFIGS) < 0.6
    target[~held_out, -1] = np.nan
    weights = rng.dirichlet(np.ones(*draws)) if draws else np.ones(1)
    posterior = TargetPosterior(mean, variance, np.log(weights) if draws else None)
    compiled = jax.jit(forecast)
    actual = compiled(posterior, noise, target, held_out)

    last = target[held_out, -1]
    center = mean.reshape(-1, CONFIGS, EPOCHS)[:, held_out, -1]
    scale = np.sqrt(variance[..., -1] + noise[..., -1:]).reshape(-1, CONFIGS)[:, held_out]
    density = weights @ norm.pdf(last, center, scale)
    share = weights @ norm.cdf(last, center, scale)
    assert_allclose(actual.log_density, np.log(density).mean(), rtol=1e-10)
    assert_allclose(actual.coverage50, ((share > 0.25) & (share < 0.75)).mean())
    assert_allclose(actual.coverage90, ((share > 0.05) & (share < 0.95)).mean())
    assert 0 < actual.coverage50 < actual.coverage90 < 1
    assert all(np.isnan(jax.tree.leaves(compiled(posterior, noise, target, held_out & False))))
    narrow = posterior._replace(variance=posterior.variance / 4, widening=jnp.asarray(2.0))
    assert_allclose(compiled(narrow, noise, target, held_out), actual, rtol=1e-10)


def test_a_forecast_of_transformed_scores_is_a_density_of_the_scores():
    outcome, noise = ArcsineOutcome(), jnp.zeros(1)
    posterior = TargetPosterior(jnp.full((1, 1), 0.7), jnp.full((1, 1), 0.01))

    def density(score):
        of_one = forecast(posterior, noise, jnp.full((1, 1), score), jnp.array([True]), outcome)
        return jnp.exp(of_one.log_density)

    scores = jnp.linspace(0.0005, 0.9995, 1000)
    assert_allclose(jax.jit(jax.vmap(density))(scores).mean(), 1, rtol=1e-3)


@pytest.mark.parametrize("draws", [None, 2])
def test_the_loop_forecasts_what_its_posterior_says_after_each_query(draws):
    curves = small_curves()
    sources, target = curves.split(curves.tasks[:3], curves.tasks[3])
    grid, target = CurveGrid.of(sources), jnp.asarray(target.scores[0])
    model = MultiTaskGP.init(sources, jax.random.key(0), config="matern", noise="epoch")
    epochs, budget = target.shape[1], 2 * target.shape[1]

    @jax.jit
    def tune():
        source = model.source_posterior(grid)
        source = source if draws is None else Mixture.of_draws(stack([source] * draws))
        return source, simulate(source, target, budget=budget)

    source, trajectory = tune()
    forecast_after = jax.jit(
        lambda seen, held_out: forecast(source.condition(seen), source.noise, target, held_out)
    )
    trajectory = jax.tree.map(np.asarray, trajectory)
    held_out = np.ones(len(target), bool)
    for query in range(budget):
        entries = list(zip(*(leaf[: query + 1].tolist() for leaf in trajectory[:3]), strict=True))
        config, epoch, _ = entries[-1]
        held_out[config] &= epoch < epochs - 1
        after = forecast_after(Observations.of(entries, budget, target.dtype), held_out)
        loop = jax.tree.map(lambda leaf, q=query: leaf[q], trajectory.forecast)
        jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), loop, after)
    assert not held_out.all()
