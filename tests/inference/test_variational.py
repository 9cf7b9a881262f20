"""Variational inference of the hierarchical model."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.testing import assert_allclose
from numpyro.infer.autoguide import AutoLowRankMultivariateNormal
from numpyro.infer.util import potential_energy, unconstrain_fn

from amt.inference.hierarchical import hierarchical_model, start_sites
from amt.inference.variational import fit_svi
from amt.parameters import learned
from tests.inference.problems import started


def evidence(model, grid, fixed):
    """Log evidence by quadrature, of the two parameters of the population of means."""
    args = model, grid, fixed
    start = unconstrain_fn(hierarchical_model, args, {}, start_sites(*args))
    assert set(start) == {"mean.location", "mean.spread"}
    location = start["mean.location"] + jnp.linspace(-4, 4, 161)
    spread = start["mean.spread"] + jnp.linspace(-7, 7, 141)

    def density(location, spread):
        free = {"mean.location": location, "mean.spread": spread}
        return -potential_energy(hierarchical_model, args, {}, free)

    values = jax.lax.map(lambda l: jax.vmap(partial(density, l))(spread), location)
    cell = (location[1] - location[0]) * (spread[1] - spread[0])
    return jax.scipy.special.logsumexp(values) + jnp.log(cell)


def test_elbo_rises_to_below_the_log_evidence():
    model, grid = started(config="matern")
    fixed = frozenset(leaf.name for leaf in learned(model))
    fit = jax.jit(partial(fit_svi, fixed=tuple(fixed), steps=1500, learning_rate=0.03, draws=20))
    posterior = fit(model, grid, jax.random.key(0))
    loss = np.asarray(posterior.loss)
    assert loss.shape == (1500,)
    assert loss[:100].mean() > loss[-300:].mean() + 0.1
    log_evidence = jax.jit(partial(evidence, fixed=fixed))(model, grid)
    error = loss[-300:].std() / np.sqrt(300)
    assert -loss[-300:].mean() < log_evidence + 3 * error
    assert -loss[-300:].mean() > log_evidence - 1
    assert posterior.sites["mean.spread"].shape == (1, 20)
    assert posterior.means.shape == (20, 4)
    assert posterior.statistics is None


def test_variational_inference_takes_encoder_weights_in():
    model, grid = started(config="deep_poly")
    fit = partial(
        fit_svi,
        guide=partial(AutoLowRankMultivariateNormal, init_scale=0.01),
        steps=150,
        draws=7,
    )
    posterior = jax.jit(fit)(model, grid, jax.random.key(0))
    assert np.isfinite(posterior.loss).all()
    assert posterior.loss[-30:].mean() < posterior.loss[:30].mean()
    weight = posterior.model.config.net.hidden.weight
    assert weight.shape == (7, 5, 5)
    assert (weight.std(0) > 0).all()
    assert_allclose(posterior.model.fidelity.scale, model.fidelity.scale)
