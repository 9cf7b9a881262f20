"""Draws from the posterior, and the posteriors of a target that they give."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose

from amt.gp.observations import Observations
from tests.inference.simulated import CHAINS, DATASETS, DRAWS, TASKS


def test_draws_have_the_shapes_of_all_chains(simulated):
    posterior = simulated.posterior
    draws = CHAINS * DRAWS
    assert posterior.means.shape == (DATASETS, draws, TASKS)
    assert posterior.model.task.scales.shape == (DATASETS, draws, TASKS)
    assert posterior.sites["config.lengthscale"].shape == (DATASETS, CHAINS, DRAWS, 2)
    assert posterior.statistics.num_steps.shape == (DATASETS, CHAINS, DRAWS)
    assert all(np.isfinite(site).all() for site in posterior.sites.values())
    # Flattened, one chain comes after the other.
    by_chain = posterior.sites["config.lengthscale"].reshape(DATASETS, draws, 2)
    assert_allclose(posterior.model.config.lengthscale, by_chain)
    assert_allclose(np.log(posterior.model.task.scales).mean(-1), 0, atol=1e-12)


def test_every_draw_gives_a_posterior_of_the_target(simulated):
    posterior = jax.tree.map(lambda x: x[0], simulated.posterior)
    grid = jax.tree.map(lambda x: x[0], simulated.grid)
    few = posterior.thin(5)
    (sources,) = jax.jit(few.posterior)(grid).components
    assert_allclose(sources.source_mean, few.means)
    entries = [(2, epoch, grid.scores[0, 2, epoch]) for epoch in range(3)]
    observations = Observations.of(entries, 4, jnp.dtype(jnp.float64))
    target = jax.jit(jax.vmap(lambda source: source.condition(observations)))(sources)
    target = jax.device_get(target)
    assert target.mean.shape == (5, *grid.scores.shape[1:])
    assert np.isfinite(target.mean).all()
    assert (target.variance >= 0).all()
    at = target.mean[:, 2, 1] - grid.scores[0, 2, 1]
    assert (np.abs(at) < 6 * np.sqrt(target.variance[:, 2, 1] + 0.02)).all()
