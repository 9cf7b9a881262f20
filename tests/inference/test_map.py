"""Maximum a posteriori: the mode of prior times likelihood."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from numpyro.distributions import constraints

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.solvers import Kronecker, Solution
from amt.inference.mle import fit_map, fit_mle
from amt.inference.priors import log_prior
from amt.parameters import Learned, parameter, stack
from tests.problems import small_curves


class Toy(eqx.Module):
    """A "model" of one number, observed ten times with unit noise, mean 2."""

    x: jax.Array = parameter(constraints.real, prior=dist.Normal(0.0, 1.0))

    def log_likelihood(self, grid, solver):
        value = -grid.scores.size * jnp.square(self.x - 2) / 2
        return Solution(value, jnp.full(1, 2.0), jnp.asarray(True))


def toy_fit(fit, **options):
    grid = CurveGrid(jnp.zeros((1, 1, 10)), jnp.zeros((1, 1)), jnp.ones(10))
    fit = partial(fit, solver=Kronecker(), steps=400, **options)
    return jax.jit(fit)(Toy(jnp.asarray([-1.0, 5.0])), grid)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_map_is_the_mode_of_prior_times_likelihood(optimizer):
    fit = toy_fit(fit_map, optimizer=optimizer)
    mode = 10 * 2 / (10 + 1)
    assert_allclose(fit.model.x, mode, atol=1e-4)
    assert_allclose(toy_fit(fit_mle, optimizer=optimizer).model.x, 2, atol=1e-4)
    best = -5 * (mode - 2) ** 2 + dist.Normal(0.0, 1.0).log_prob(mode)
    assert_allclose(fit.log_likelihood[fit.best].max(), best, rtol=1e-6)


def test_map_with_flat_priors_is_maximum_likelihood(monkeypatch):
    curves = small_curves()
    grid = CurveGrid.of(curves)
    starts = stack([MultiTaskGP.init(curves, jax.random.key(0), config="matern")])
    by_prior = jax.jit(partial(fit_map, steps=40))(starts, grid)
    # What complete tasks do not tell goes to the prior's mode.
    assert_allclose(jnp.log(by_prior.model.task.U - 1), -0.7, atol=0.05)
    assert_allclose(starts.task.U, 1.5)

    flat = dist.ImproperUniform(constraints.real, (), ())
    monkeypatch.setattr(Learned, "prior", flat)
    assert log_prior(by_prior.model) == 0
    assert_allclose(toy_fit(fit_map).model.x, toy_fit(fit_mle).model.x)
