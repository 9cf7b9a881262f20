"""The model's likelihood against a dense Gaussian process, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tinygp

from amt.gp.conditional import Observations
from amt.gp.kronecker import KroneckerKernel, grid_points
from amt.gp.latent_kronecker import Solver
from amt.inference import dense, hierarchical, svgp
from amt.kernels import KERNELS
from amt.model import CurveGrid, MultiTaskGP
from amt.parameters import unconstrain
from tests.problems import small_curves

NOISES = ["homoscedastic", "task", "epoch", "task_epoch"]


def perturbed(model, seed=0):
    """The model with every learned value moved."""
    free, constrain = unconstrain(model)
    keys = jax.random.split(jax.random.key(seed), len(free))
    return constrain(
        tuple(f + 0.3 * jax.random.normal(k, f.shape) for f, k in zip(free, keys, strict=True))
    )


def dense_log_likelihood(model, grid, means, observed=slice(None)):
    observed = observed if isinstance(observed, slice) else np.flatnonzero(observed)
    tasks = jnp.arange(grid.scores.shape[0])
    X = grid_points(tasks, grid.features, grid.epochs)
    a, b = model.noise.factors(len(tasks), grid.epochs)
    noise = jnp.broadcast_to(a[:, None, None] * b, grid.scores.shape).ravel()
    kernel = KroneckerKernel(model.task, model.config, model.fidelity)
    X = jax.tree.map(lambda a: a[observed], X)
    gp = tinygp.GaussianProcess(kernel, X, diag=noise[observed])
    return gp.log_probability((grid.scores - means[:, None, None]).ravel()[observed])


# Every kernel is in one of them.
KERNEL_NAMES = [
    {axis: list(KERNELS[axis])[index] for axis in ("task", "config", "fidelity")}
    for index in range(4)
]


@pytest.mark.parametrize(("noise", "kernels"), list(zip(NOISES, KERNEL_NAMES, strict=True)))
def test_likelihood_and_gradients_equal_dense_algebra(noise, kernels):
    curves = small_curves()
    grid = CurveGrid.of(curves)
    model = perturbed(MultiTaskGP.init(curves, jax.random.key(0), noise=noise, **kernels))
    free, constrain = unconstrain(model)

    @jax.jit
    def ours(free):
        return jax.value_and_grad(lambda f: constrain(f).log_likelihood(grid)[0])(free)

    @jax.jit
    def dense(free, means):
        return jax.value_and_grad(lambda f: dense_log_likelihood(constrain(f), grid, means))(free)

    _, means = jax.jit(lambda: model.log_likelihood(grid))()
    (value, gradients), (expected, slow) = ours(free), dense(free, means)
    np.testing.assert_allclose(value, expected, rtol=1e-8)
    for got, want in zip(gradients, slow, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8 * (1 + jnp.abs(want).max()))

    # The means are at the maximum: moving any of them lowers the dense likelihood.
    at_means = jax.jit(jax.grad(lambda m: dense_log_likelihood(model, grid, m)))(means)
    np.testing.assert_allclose(at_means, 0, atol=1e-6 * abs(expected))


def test_float32_likelihood_agrees_to_1e3_and_is_finite():
    curves = small_curves()
    values = {}
    for dtype in ("float64", "float32"):
        grid = CurveGrid.of(curves, dtype)
        model = MultiTaskGP.init(curves, jax.random.key(0), dtype="float64")
        model = jax.tree.map(lambda a: a.astype(dtype), model)  # noqa: B023
        free, constrain = unconstrain(model)
        value, gradients = jax.jit(
            jax.value_and_grad(lambda f: constrain(f).log_likelihood(grid)[0])  # noqa: B023
        )(free)
        assert value.dtype == dtype
        assert all(jnp.isfinite(g).all() for g in gradients)
        values[dtype] = value / curves.scores.size
    np.testing.assert_allclose(values["float32"], values["float64"], rtol=1e-3)


def without(curves, missing):
    scores = np.where(missing, np.nan, curves.scores)
    return type(curves)(
        configs=curves.configs, space=curves.space, tasks=curves.tasks, scores=scores
    )


@pytest.mark.parametrize(("noise", "kernels"), list(zip(NOISES, KERNEL_NAMES, strict=True)))
def test_incomplete_curves_have_the_likelihood_of_dense_algebra(noise, kernels, monkeypatch):
    settings = Solver(tolerance=1e-4, probes=4096, rank=None)
    monkeypatch.setattr("amt.model.Solver", lambda: settings)
    complete = small_curves()
    missing = np.random.default_rng(0).random(complete.scores.shape) < 0.4
    curves = without(complete, missing)
    grid = CurveGrid.of(curves)
    assert not grid.complete
    assert CurveGrid.of(complete).complete
    model = MultiTaskGP.init(curves, jax.random.key(0), noise=noise, **kernels)
    free, constrain = unconstrain(model)
    (value, means), gradients = jax.jit(
        jax.value_and_grad(lambda f: constrain(f).log_likelihood(grid), has_aux=True)
    )(free)
    expected, slow = jax.jit(
        jax.value_and_grad(lambda f: dense_log_likelihood(constrain(f), grid, means, ~missing))
    )(free)
    # Standard errors of 4096 probes are about 0.1 and one per cent.
    np.testing.assert_allclose(value, expected, atol=1)
    got, want = (np.concatenate([np.ravel(g) for g in gs]) for gs in (gradients, slow))
    assert np.linalg.norm(got - want) < 0.05 * np.linalg.norm(want)


def test_incomplete_sources_give_a_posterior_of_finite_moments():
    complete = small_curves()
    curves = without(complete, np.random.default_rng(1).random(complete.scores.shape) < 0.4)
    grid = CurveGrid.of(curves)
    for kernels in KERNEL_NAMES:
        model = MultiTaskGP.init(curves, jax.random.key(0), **kernels)
        seen = Observations.empty(4, jnp.dtype("float64")).append(1, 0, 0.5)
        posterior = jax.jit(lambda m: m.source_posterior(grid).condition(seen))(model)  # noqa: B023
        assert jnp.isfinite(posterior.mean).all()
        assert (posterior.variance > 0).all()


def test_grid_names_a_task_without_scores():
    curves = small_curves()
    missing = np.zeros(curves.scores.shape, bool)
    missing[1] = True
    with pytest.raises(ValueError, match=f"task '{curves.tasks[1]}' has no score"):
        CurveGrid.of(without(curves, missing))


def test_wrong_names_are_refused():
    curves = small_curves()
    with pytest.raises(ValueError, match="noise is homoscedastic"):
        MultiTaskGP.init(curves, jax.random.key(0), noise="pink")  # pyright: ignore
    with pytest.raises(KeyError, match="no config kernel 'rbf'; there are deep_poly"):
        MultiTaskGP.init(curves, jax.random.key(0), config="rbf")


@pytest.mark.parametrize("name", ["svgp", "dense", "nuts", "svi"])
def test_what_needs_complete_curves_refuses_others(name):
    fit = {
        "svgp": svgp.fit_svgp,
        "dense": lambda model, grid, key: dense.DenseGP(model).log_likelihood(grid),
        "nuts": hierarchical.sample_nuts,
        "svi": hierarchical.fit_svi,
    }[name]
    curves = small_curves()
    scores = curves.scores.copy()
    scores[1, 2, 3] = np.nan
    grid = CurveGrid.of(dataclasses.replace(curves, scores=scores))
    model = MultiTaskGP.init(curves, jax.random.key(0), config="matern")
    with pytest.raises(ValueError, match=r"complete.*task 1, configuration 2, epoch 3"):
        fit(model, grid, jax.random.key(1))
