"""The hierarchical model: its sites and its density."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import tinygp
from jaxtyping import Array, Float
from numpy.testing import assert_allclose
from numpyro.distributions import constraints
from numpyro.infer.util import potential_energy, unconstrain_fn
from scipy import stats

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.points import KroneckerKernel, grid_points
from amt.gp.spectral import outer
from amt.inference.coordinates import alike
from amt.inference.hierarchical import (
    assemble,
    encoder_weights,
    hierarchical_model,
    pooled,
    redundant,
    start_sites,
    tied,
)
from amt.inference.priors import log_prior
from amt.kernels import KERNELS, FidelityKernel, Matern, TaskKernel
from amt.kernels.task import GivenGram
from amt.parameters import parameter
from tests.inference.problems import started
from tests.problems import small_curves


class Ones(tinygp.kernels.Kernel):
    def evaluate(self, X1, X2):
        return jnp.ones(())


def dense_log_likelihood(model, grid, location, spread):
    """By tinygp: the means are one more kernel, constant within a task."""
    task_noise, epoch_noise = model.noise.factors(*grid.scores.shape[:1], grid.epochs)
    noise = outer(task_noise, jnp.ones(grid.scores.shape[1]), epoch_noise).ravel()
    means = GivenGram(spread**2 * jnp.eye(len(task_noise)))
    kernel = KroneckerKernel(model.task, model.config, model.fidelity)
    kernel += KroneckerKernel(means, Ones(), Ones())
    X = grid_points(jnp.arange(len(task_noise)), grid.features, grid.epochs)
    gp = tinygp.GaussianProcess(kernel, X, diag=noise, mean=location)
    return gp.log_probability(grid.scores.ravel())


def on_logarithm(value, loc, scale):
    return stats.norm.logpdf(np.log(value), loc, scale).sum()


def expected_log_prior(sites, grid):
    """Written out for at2 x matern x at2 with noise "task_epoch", on unconstrained values."""
    scores = np.asarray(grid.scores)
    kernel, unit = "task.kernel", scores.std()
    typical = scores.reshape(len(scores), -1)
    typical = typical - typical.mean(1, keepdims=True)
    distances = np.square(typical[:, None] - typical).mean(-1)
    distance = distances.sum() / (len(typical) * (len(typical) - 1))
    lengthscale, variance = sites["config.lengthscale"], "noise.variance"
    return (
        on_logarithm(sites[f"{kernel}.scale"], 0, 3)
        + on_logarithm(sites[f"{kernel}.lengthscale"], np.log(distance) / 2, 1)
        + on_logarithm(sites[f"{kernel}.U"] - 1, -0.7, 1)
        + on_logarithm(sites["task.scales.spread"], -0.7, 0.75)
        + stats.norm.logpdf(sites["task.scales.contrasts"], 0, sites["task.scales.spread"]).sum()
        + on_logarithm(lengthscale, np.log(len(lengthscale)) / 2, 1.5)
        + on_logarithm(sites["fidelity.a"], 0, 1)
        + on_logarithm(sites["fidelity.b"], 0, 1)
        + on_logarithm(sites[f"{variance}.location"], -6.9, 3)
        + on_logarithm(sites[f"{variance}.spread"], -0.7, 0.75)
        + on_logarithm(
            sites[variance],
            np.log(sites[f"{variance}.location"]),
            sites[f"{variance}.spread"],
        )
        + stats.norm.logpdf(sites["noise.power"], 0, 1)
        + stats.norm.logpdf(sites["mean.location"], scores.mean(), 2 * unit)
        + on_logarithm(sites["mean.spread"], np.log(unit) - 0.7, 1)
    )


def test_density_is_log_prior_and_dense_likelihood():
    model, grid = started(config="matern", noise="task_epoch")
    rng = np.random.default_rng(0)
    args = model, grid, redundant(model)
    sites = jax.device_get(jax.jit(lambda: start_sites(*args))())
    assert "fidelity.scale" not in sites
    for name, value in sites.items():
        shifted = 0.2 * rng.normal(size=value.shape)
        real = name in ("noise.power", "mean.location", "task.scales.contrasts")
        sites[name] = value + shifted if real else value * np.exp(shifted)

    @jax.jit
    def densities(sites):
        free = unconstrain_fn(hierarchical_model, args, {}, sites)
        drawn = assemble(model, tied(model, grid, sites))
        population = sites["mean.location"], sites["mean.spread"]
        likelihood = dense_log_likelihood(drawn, grid, *population)
        return -potential_energy(hierarchical_model, args, {}, free), likelihood

    density, likelihood = densities(sites)
    assert_allclose(density, likelihood + expected_log_prior(sites, grid), rtol=1e-8)


@pytest.mark.parametrize("task", ["icm", "latent"])
def test_density_of_other_kernels_has_the_dense_likelihood(task):
    model, grid = started(task=task, config="deep_poly", fidelity="freeze_thaw")
    args = model, grid, encoder_weights(model)
    sites = jax.jit(lambda: start_sites(*args))()
    assert not any("net" in name for name in sites)

    @jax.jit
    def values(sites):
        free = unconstrain_fn(hierarchical_model, args, {}, sites)
        potential = partial(potential_energy, hierarchical_model, args, {})
        drawn = assemble(model, sites)
        dense = dense_log_likelihood(drawn, grid, sites["mean.location"], sites["mean.spread"])
        with numpyro.handlers.block():
            conditioned = numpyro.handlers.substitute(hierarchical_model, sites)
            trace = numpyro.handlers.trace(conditioned).get_trace(*args)
        likelihood = trace["likelihood"]["fn"].log_factor
        grams = drawn.task.gram(), model.task.gram()
        return *jax.value_and_grad(potential)(free), likelihood, dense, *grams

    value, gradient, likelihood, dense, gram, expected = jax.device_get(values(sites))
    assert_allclose(gram, expected, rtol=1e-6)
    assert_allclose(likelihood, dense, rtol=1e-8)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient.values())
    assert any(np.abs(g).max() > 1e-3 for g in gradient.values())


def test_columns_that_are_alike_share_a_lengthscale_that_keeps_the_kernel():
    model, grid = started(config="matern")
    # A binary hyperparameter is two columns, and the activity of another is a third.
    same = np.asarray(alike(grid.features))
    assert same.sum(1).max() == 3

    @jax.jit
    def at_start():
        sites = start_sites(model, grid)
        kernels = assemble(model, sites).config, model.config
        return sites, tied(model, grid, sites), *(k(grid.features, grid.features) for k in kernels)

    sites, as_tied, *grams = at_start()
    assert_allclose(*grams)
    varied = sites | {"config.lengthscale": np.arange(1.0, same.shape[0] + 1)}
    shared = np.asarray(jax.jit(tied)(model, grid, varied)["config.lengthscale"])
    for group in same:
        assert_allclose(shared[group], 1 + np.flatnonzero(group)[0])
    assert_allclose(as_tied["config.lengthscale"], sites["config.lengthscale"])


def test_what_is_fixed():
    model, _ = started(config="deep_poly")
    assert redundant(model) == {"fidelity.scale"}
    weights = encoder_weights(model)
    assert {name.rpartition(".net.")[0] for name in weights} == {"config"}
    assert len(weights) == 5
    assert not redundant(started(task="icm", config="matern", fidelity="fabolas")[0])


STANDARD = dist.Normal(0.0, 1.0)


class Loaded(TaskKernel):
    """A kernel of its own file: loadings, and a share that all tasks have."""

    rows: Float[Array, "task rank"] = parameter(constraints.real, prior=STANDARD, role="loadings")
    shared: Float[Array, ""] = parameter(constraints.positive, prior=dist.Normal(-1.0, 1.0))

    @classmethod
    def init(cls, scores, key, dtype):
        return cls(jax.random.normal(key, (len(scores), 2), dtype), jnp.asarray(0.3, dtype))

    def gram(self):
        return self.rows @ self.rows.T + self.shared + 1e-3 * jnp.eye(len(self.rows))

    def with_target(self, observations):
        raise TypeError


class Lengths(Matern):
    """A kernel derived from another, with a scale and a prior of its own."""

    lengthscale: Float[Array, "feature"] = parameter(
        constraints.positive, prior=dist.Normal(1.0, 0.5), role="per_feature"
    )
    amplitude: Float[Array, ""] = parameter(
        constraints.positive, prior=STANDARD, role="scale", default_factory=lambda: jnp.asarray(2.0)
    )

    def evaluate(self, X1, X2):
        return self.amplitude * super().evaluate(X1, X2)


class Slope(FidelityKernel):
    numerical_rank = 1
    sigma: Float[Array, ""] = parameter(constraints.positive, prior=STANDARD, role="scale")
    start: Float[Array, ""] = parameter(constraints.real, prior=STANDARD)

    @classmethod
    def init(cls, key, dtype):
        return cls(jnp.asarray(1.5, dtype), jnp.asarray(0.5, dtype))

    def evaluate(self, X1, X2):
        return self.sigma * (self.start + X1) * (self.start + X2)


def test_new_kernels_are_sampled_as_their_declarations_say(monkeypatch):
    new = {"task": Loaded, "config": Lengths, "fidelity": Slope}
    for axis, kernel in new.items():
        monkeypatch.setitem(KERNELS, axis, KERNELS[axis] | {"new": kernel})
    model = MultiTaskGP.init(small_curves(), jax.random.key(0), **dict.fromkeys(new, "new"))
    expected = stats.norm.logpdf(model.task.rows).sum()
    expected += on_logarithm(model.task.shared, -1, 1)
    expected += on_logarithm(model.config.lengthscale, 1, 0.5)
    expected += on_logarithm(np.asarray([2.0, 1.5]), 0, 1) + stats.norm.logpdf(0.5)
    expected += on_logarithm(model.noise.variance, -6.9, 3)
    assert_allclose(jax.jit(log_prior)(model), expected)

    model, grid = pooled(model), CurveGrid.of(small_curves())
    assert isinstance(model.task, Loaded)
    assert redundant(model) == {"config.amplitude", "fidelity.sigma"}
    args = model, grid, redundant(model)
    sampled = set()

    @jax.jit
    def run():
        with numpyro.handlers.seed(rng_seed=0):
            trace = numpyro.handlers.trace(hierarchical_model).get_trace(*args)
        sampled.update(name for name, site in trace.items() if site["type"] == "sample")
        sites = start_sites(*args)
        return trace["likelihood"]["fn"].log_factor, sites, tied(model, grid, sites)

    log_factor, sites, as_tied = run()
    sampled.remove("likelihood")
    assert sampled == set(sites)
    assert sampled == {
        *("task.rows.diagonal", "task.rows.below", "task.shared"),
        *("config.lengthscale", "fidelity.start"),
        *("noise.variance", "noise.variance.location", "noise.variance.spread"),
        *("mean.location", "mean.spread"),
    }
    assert np.isfinite(log_factor)
    # Columns that are alike have one lengthscale.
    lengthscales = as_tied["config.lengthscale"]
    assert len(np.unique(lengthscales)) < len(lengthscales)
