"""Priors of every learned parameter, and maximum a posteriori."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from numpyro.distributions import constraints
from tinygp.kernels import Kernel

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.inference.map import fit_map
from amt.inference.mle import fit_mle
from amt.inference.priors import PRIORS, learned, log_prior, replace
from amt.kernels import KERNELS
from amt.parameters import parameter, unconstrain
from amt.search.fitting import stack
from tests.problems import small_curves


class Mine(Kernel):
    """A user's kernel, of which the priors know nothing."""

    lengthscale: jax.Array = parameter(constraints.positive)
    period: jax.Array = parameter(constraints.positive)
    share: jax.Array = parameter(constraints.interval(0.0, 1.0))
    slope: jax.Array = parameter()
    data: jax.Array = eqx.field(default_factory=lambda: jnp.ones(2))

    def evaluate(self, X1, X2):
        return self.share + jnp.exp(-jnp.square(X1 - X2))


MINE = Mine(jnp.asarray(2.0), jnp.asarray(3.0), jnp.asarray(0.2), jnp.asarray([0.5, -1.0]))


@pytest.fixture(params=range(4))
def model(request):
    names = {axis: list(kernels)[request.param] for axis, kernels in KERNELS.items()}
    return MultiTaskGP.init(small_curves(), jax.random.key(0), noise="task_epoch", **names)


def test_every_parameter_has_a_prior(model):
    free, _ = unconstrain(model)
    leaves = learned(model)
    assert len(leaves) == len(free) > 5
    for leaf, value in zip(leaves, free, strict=True):
        assert_allclose(leaf.free, value)
    assert np.isfinite(log_prior(model))
    assert_allclose(jax.jit(log_prior)(model), log_prior(model))


@pytest.mark.parametrize("extreme", [-30.0, 30.0])
def test_finite_at_extremes_and_so_is_its_gradient(model, extreme):
    free, constrain = unconstrain(model)
    at = jax.tree.map(lambda x: jnp.full_like(x, extreme), free)
    value, gradient = jax.value_and_grad(lambda free: log_prior(constrain(free)))(at)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient)


def test_every_prior_integrates_to_one(model):
    for leaf in learned(model):
        loc, scale = leaf.prior.mean, jnp.sqrt(leaf.prior.variance)
        at = loc + scale * jnp.linspace(-9, 9, 2001)
        density = jnp.exp(leaf.prior.log_prob(at))
        assert_allclose(jnp.trapezoid(density, at), 1, rtol=1e-6)


def test_the_density_is_of_the_unconstrained_value():
    only = eqx.tree_at(lambda m: m.slope, MINE, jnp.zeros(0))
    positive = dist.LogNormal(0.0, 1.5)
    expected = sum(positive.log_prob(x) + jnp.log(x) for x in (2.0, 3.0))
    logit = jnp.log(0.2 / 0.8)
    expected += dist.Normal(0.0, 1.5).log_prob(logit)
    assert_allclose(log_prior(only), expected)


def test_a_kernel_without_an_entry_has_default_priors_and_one_line_gives_it_another(monkeypatch):
    names = [leaf.name for leaf in learned(MINE)]
    assert names == ["lengthscale", "period", "share", "slope"]
    before = log_prior(MINE)
    monkeypatch.setitem(PRIORS, "period", dist.Normal(1.0, 0.1))
    monkeypatch.setitem(PRIORS, "Mine.period", dist.Normal(2.0, 0.1))
    expected = dist.Normal(2.0, 0.1).log_prob(jnp.log(3.0)) - dist.Normal(0.0, 1.5).log_prob(
        jnp.log(3.0)
    )
    assert_allclose(log_prior(MINE) - before, expected)
    monkeypatch.delitem(PRIORS, "Mine.period")
    monkeypatch.setitem(PRIORS, "period", lambda kernel: dist.Normal(kernel.data.sum(), 1.0))
    assert learned(MINE)[1].prior.mean == 2


def test_priors_in_units_of_the_data_follow_its_unit():
    curves = small_curves()
    location = []
    for unit in (1.0, 100.0):
        scaled = type(curves)(
            configs=curves.configs,
            space=curves.space,
            tasks=curves.tasks,
            scores=unit * curves.scores,
        )
        kernel = MultiTaskGP.init(scaled, jax.random.key(0)).task
        location.append({leaf.name: leaf.prior.mean for leaf in learned(kernel)}["lengthscale"])
    assert_allclose(location[1] - location[0], np.log(100))


class Pair(NamedTuple):
    first: jax.Array
    second: jax.Array


class HoldsNamedTuple(eqx.Module):
    pair: Pair = parameter(constraints.positive)


def test_a_named_tuple_of_parameters_has_priors():
    first, second = learned(HoldsNamedTuple(Pair(jnp.array(0.5), jnp.array(2.0))))
    assert (first.name, second.name) == ("pair.first", "pair.second")
    assert first.declared == second.declared == "HoldsNamedTuple.pair"
    assert_allclose([first.free, second.free], np.log([0.5, 2.0]))


def test_replace_puts_values_by_name():
    model = MultiTaskGP.init(small_curves(), jax.random.key(0))
    new = replace(model, {"config.net.hidden.bias": jnp.ones(5), "noise.variance": jnp.ones(1)})
    assert_allclose(new.config.net.hidden.bias, 1)
    assert_allclose(new.noise.variance, 1)
    assert new.config.net.output.weight is model.config.net.output.weight
    with pytest.raises(KeyError, match=r"no leaf 'noise\.level'"):
        replace(model, {"noise.level": jnp.ones(1)})


# Maximum a posteriori


class Toy(eqx.Module):
    """A "model" of one number, observed ten times with unit noise, mean 2."""

    x: jax.Array = parameter()

    def is_solved(self, grid):
        return jnp.asarray(True)

    def log_likelihood(self, grid):
        return -grid.scores.size * jnp.square(self.x - 2) / 2, None


def toy_fit(fit, **options):
    grid = CurveGrid(jnp.zeros((1, 1, 10)), jnp.zeros((1, 1)), jnp.ones(10))
    return jax.jit(partial(fit, steps=400, **options))(Toy(jnp.asarray([-1.0, 5.0])), grid)


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
    for key in list(PRIORS):
        monkeypatch.setitem(PRIORS, key, flat)
    assert log_prior(by_prior.model) == 0
    assert_allclose(toy_fit(fit_map).model.x, toy_fit(fit_mle).model.x)
