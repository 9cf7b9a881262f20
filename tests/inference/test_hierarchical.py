"""The hierarchical model: its density, NUTS on simulated data, and variational inference."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import tinygp
from numpy.testing import assert_allclose
from numpyro.infer.autoguide import AutoLowRankMultivariateNormal
from numpyro.infer.util import potential_energy, unconstrain_fn
from scipy import stats

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.posterior import Observations
from amt.gp.solvers.kronecker import KroneckerKernel, grid_points, outer
from amt.inference.hierarchical import (
    _contrasts,
    _from_triangular,
    _sample_triangular,
    _shrunk_covariance,
    _tied,
    _triangular,
    alike,
    assemble,
    encoder_weights,
    find_mode,
    fit_svi,
    hierarchical_model,
    pooled,
    redundant,
    start_sites,
)
from amt.inference.priors import learned
from amt.kernels.task import GivenGram
from tests.problems import small_curves

# Of `simulated`.
DATASETS, CHAINS, DRAWS, TASKS = 5, 2, 100, 4


def started(**names):
    curves = small_curves()
    model = MultiTaskGP.init(curves, jax.random.key(0), **names)
    return pooled(model), CurveGrid.of(curves)


# Density


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
    kernel, unit = "task.kernel", grid.scores.std()
    typical = grid.scores.reshape(len(grid.scores), -1)
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
        + stats.norm.logpdf(sites["mean.location"], grid.scores.mean(), 2 * unit)
        + on_logarithm(sites["mean.spread"], np.log(unit) - 0.7, 1)
    )


def test_density_is_log_prior_and_dense_likelihood():
    model, grid = started(config="matern", noise="task_epoch")
    rng = np.random.default_rng(0)
    args = model, grid, redundant(model)
    sites = start_sites(*args)
    assert "fidelity.scale" not in sites
    for name, value in sites.items():
        shifted = 0.2 * rng.normal(size=value.shape)
        real = name in ("noise.power", "mean.location", "task.scales.contrasts")
        sites[name] = value + shifted if real else value * np.exp(shifted)
    free = unconstrain_fn(hierarchical_model, args, {}, sites)
    drawn = assemble(model, _tied(model, grid, sites))
    population = sites["mean.location"], sites["mean.spread"]
    likelihood = jax.jit(dense_log_likelihood)(drawn, grid, *population)
    expected = likelihood + expected_log_prior(sites, grid)
    density = jax.jit(lambda free: -potential_energy(hierarchical_model, args, {}, free))(free)
    assert_allclose(density, expected, rtol=1e-8)


@pytest.mark.parametrize("task", ["icm", "latent"])
def test_density_of_other_kernels_has_the_dense_likelihood(task):
    model, grid = started(task=task, config="deep_poly", fidelity="freeze_thaw")
    args = model, grid, encoder_weights(model)
    sites = start_sites(*args)
    assert not any("net" in name for name in sites)
    assert_allclose(assemble(model, sites).task.gram(), model.task.gram(), rtol=1e-6)
    free = unconstrain_fn(hierarchical_model, args, {}, sites)
    potential = partial(potential_energy, hierarchical_model, args, {})
    value, gradient = jax.jit(jax.value_and_grad(potential))(free)
    drawn = assemble(model, sites)
    dense = dense_log_likelihood(drawn, grid, sites["mean.location"], sites["mean.spread"])
    with numpyro.handlers.block():
        conditioned = numpyro.handlers.substitute(hierarchical_model, sites)
        trace = numpyro.handlers.trace(conditioned).get_trace(*args)
    assert_allclose(trace["likelihood"]["fn"].log_factor, dense, rtol=1e-8)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient.values())
    assert any(np.abs(g).max() > 1e-3 for g in gradient.values())


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("shape", [(5, 2), (5, 1), (2, 3), (3, 3)])
def test_triangular_coordinates_keep_the_gram_matrix(shape, shift):
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=shape))
    sites = _triangular("x", matrix, shift)
    back = _from_triangular("x", sites, matrix, shift)
    assert back.shape == shape
    assert (sites["x.diagonal"] > 0).all()
    centred = matrix - matrix.mean(0) if shift else matrix
    assert_allclose(back @ back.T, centred @ centred.T, atol=1e-6)


def test_triangular_coordinates_have_the_prior_of_the_matrix():
    model, _ = started(task="icm")
    leaf = next(leaf for leaf in learned(model) if leaf.name == "task.loadings")

    def gram(key):
        sites = _sample_triangular(leaf, False)
        lower = _from_triangular(leaf.name, sites, leaf.value, False)
        return lower @ lower.T

    keys = jax.random.split(jax.random.key(0), 20000)
    ours = jax.vmap(lambda key: numpyro.handlers.seed(gram, key)(key))(keys)
    matrices = jax.random.normal(jax.random.key(1), (20000, *leaf.value.shape))
    theirs = matrices @ matrices.mT
    for moment in (1, 2):
        got, want = (jnp.mean(g**moment, 0) for g in (ours, theirs))
        assert_allclose(got, want, atol=0.06 * 5**moment / 2)


def test_contrasts_are_orthonormal_and_sum_to_zero():
    basis = _contrasts(5, jnp.float64)
    assert_allclose(basis.T @ basis, np.eye(4), atol=1e-12)
    assert_allclose(basis.sum(0), 0, atol=1e-12)


def test_mode_of_a_normal_density():
    rng = np.random.default_rng(0)
    root = jnp.asarray(rng.normal(size=(4, 4)) + 3 * np.eye(4))
    mean, precision = jnp.arange(4.0), root @ root.T
    potential = lambda x: (x - mean) @ precision @ (x - mean) / 2  # noqa: E731
    mode = jax.jit(lambda x: find_mode(potential, x, steps=20))(jnp.zeros(4))
    assert_allclose(mode.location, mean, atol=1e-6)
    assert_allclose(mode.root @ mode.root.T, jnp.linalg.inv(precision), rtol=1e-5, atol=1e-8)
    assert_allclose(mode.gradient, 0, atol=1e-5)


def test_columns_are_alike_up_to_a_shift_and_a_sign():
    x = np.random.default_rng(0).uniform(size=(7, 2))
    features = jnp.asarray(np.c_[x, 1 - x[:, 0], x[:, 1] + 3, x[:, 0] ** 2, np.ones((7, 2))])
    groups = [[0, 2], [1, 3], [0, 2], [1, 3], [4], [5, 6], [5, 6]]
    expected = np.zeros((7, 7), bool)
    for row, group in enumerate(groups):
        expected[row, group] = True
    assert_allclose(alike(features), expected)


def test_columns_that_are_alike_share_a_lengthscale_that_keeps_the_kernel():
    model, grid = started(config="matern")
    # A binary hyperparameter is two columns, and the activity of another is a third.
    same = np.asarray(alike(grid.features))
    assert same.sum(1).max() == 3
    sites = start_sites(model, grid)
    kernel = assemble(model, sites).config
    assert_allclose(
        kernel(grid.features, grid.features), model.config(grid.features, grid.features)
    )
    varied = sites | {"config.lengthscale": jnp.arange(1.0, same.shape[0] + 1)}
    tied = _tied(model, grid, varied)["config.lengthscale"]
    for group in same:
        assert_allclose(tied[group], 1 + np.flatnonzero(group)[0])
    assert_allclose(_tied(model, grid, sites)["config.lengthscale"], sites["config.lengthscale"])


def test_covariance_of_many_draws_is_theirs_and_of_few_nearly_diagonal():
    covariance = jnp.asarray([[2.0, 0.9], [0.9, 1.0]])
    root = jnp.linalg.cholesky(covariance)
    draws = jax.random.normal(jax.random.key(0), (20000, 2)) @ root.T
    assert_allclose(_shrunk_covariance(draws), covariance, rtol=0.05)
    few = _shrunk_covariance(draws[:4])
    sample = jnp.cov(draws[:4].T, bias=True)
    assert_allclose(jnp.diagonal(few), jnp.diagonal(sample))
    assert_allclose(few[0, 1], sample[0, 1] / 2)


# NUTS


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
    assert_allclose(jnp.log(posterior.model.task.scales).mean(-1), 0, atol=1e-12)


def test_few_trajectories_diverge(simulated):
    assert simulated.posterior.statistics.diverging.mean() < 0.02


def test_known_parameters_are_recovered(simulated):
    """Ranks of the true values among the draws, of all data sets: as of a uniform distribution."""
    truth, posterior = simulated.truth, simulated.posterior
    off = lambda task: jax.vmap(jax.vmap(lambda t: t.gram()))(task)[..., 0, 1:]  # noqa: E731
    pairs = {
        "lengthscale": (truth.config.lengthscale, posterior.model.config.lengthscale),
        "epochs": (truth.fidelity.lengthscale[:, None], posterior.model.fidelity.lengthscale),
        "noise": (truth.noise.variance, posterior.model.noise.variance),
        "scales": (truth.task.scales, posterior.model.task.scales),
        "means": (simulated.means, posterior.means),
        "similarity": (jax.vmap(lambda t: t.gram()[0, 1:])(truth.task), off(posterior.model.task)),
    }
    ranks = {}
    for name, (true, draws) in pairs.items():
        draws = draws.reshape(*draws.shape[:2], -1)
        ranks[name] = np.mean(np.asarray(draws) < np.asarray(true)[:, None], axis=1).ravel()
        # Of k ranks in (0, 1), the mean is within 3.5 standard errors of a half; as elements of a
        # data set are correlated, data sets are what counts.
        assert abs(ranks[name].mean() - 0.5) < 3.5 / np.sqrt(12 * DATASETS), name
    every = np.concatenate(list(ranks.values()))
    assert ((every > 0.005) & (every < 0.995)).mean() > 0.95
    assert 0.25 < ((every > 0.25) & (every < 0.75)).mean() < 0.8
    noise = posterior.model.noise.variance.mean(1)
    assert_allclose(np.log(noise), np.log(truth.noise.variance), atol=0.7)


def test_every_draw_gives_a_posterior_of_the_target(simulated):
    posterior = jax.tree.map(lambda x: x[0], simulated.posterior)
    grid = jax.tree.map(lambda x: x[0], simulated.grid)
    few = posterior.thin(5)
    sources = jax.jit(few.posterior)(grid).sources
    assert_allclose(sources.source_mean, few.means)
    observations = Observations.empty(4, jnp.float64)
    for epoch in range(3):
        score = grid.scores[0, 2, epoch]
        observations = observations.append(jnp.asarray(2), jnp.asarray(epoch), score)
    target = jax.jit(jax.vmap(lambda source: source.condition(observations)))(sources)
    assert target.mean.shape == (5, *grid.scores.shape[1:])
    assert np.isfinite(target.mean).all()
    assert (target.variance >= 0).all()
    at = target.mean[:, 2, 1] - grid.scores[0, 2, 1]
    assert (np.abs(at) < 6 * np.sqrt(target.variance[:, 2, 1] + 0.02)).all()


def test_what_is_fixed():
    model, _ = started(config="deep_poly")
    assert redundant(model) == {"fidelity.scale"}
    weights = encoder_weights(model)
    assert {name.rpartition(".net.")[0] for name in weights} == {"config"}
    assert len(weights) == 5
    assert not redundant(started(task="icm", config="matern", fidelity="fabolas")[0])


# Variational inference


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
    log_evidence, error = evidence(model, grid, fixed), loss[-300:].std() / np.sqrt(300)
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
