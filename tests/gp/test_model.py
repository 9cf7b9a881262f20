"""The model's likelihood against a dense Gaussian process, and what it refuses."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tinygp

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.posterior import Observations, SourcePosterior
from amt.gp.solvers import dense
from amt.gp.solvers.iterative import LatentSourcePosterior, Solver
from amt.gp.solvers.kronecker import KroneckerKernel, grid_points
from amt.gp.solvers.observed_curves import ObservedCells, ObservedCurvesPosterior
from amt.inference import nuts, svgp, variational
from amt.kernels import KERNELS
from amt.kernels.task import GivenGram
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


class Same(tinygp.kernels.Kernel):
    """1 of a configuration with itself, else 0."""

    def evaluate(self, X1, X2):
        return jnp.all(X1 == X2).astype(X1.dtype)


def dense_log_likelihood(model, grid, means, observed=slice(None)):
    observed = observed if isinstance(observed, slice) else np.flatnonzero(observed)
    tasks = jnp.arange(grid.scores.shape[0])
    X = grid_points(tasks, grid.features, grid.epochs)
    a, b = model.noise.factors(len(tasks), grid.epochs)
    noise = jnp.broadcast_to(a[:, None, None] * b, grid.scores.shape).ravel()
    kernel = KroneckerKernel(model.task, model.config, model.fidelity)
    if model.nugget is not None:
        itself = GivenGram(jnp.diag(model.nugget))
        kernel += KroneckerKernel(itself, Same(), model.fidelity)
    X = jax.tree.map(lambda a: a[observed], X)
    gp = tinygp.GaussianProcess(kernel, X, diag=noise[observed])
    return gp.log_probability((grid.scores - means[:, None, None]).ravel()[observed])


# Every kernel is in one of them.
KERNEL_NAMES = [
    {axis: list(KERNELS[axis])[index] for axis in ("task", "config", "fidelity")}
    for index in range(4)
]


@pytest.mark.parametrize(
    ("noise", "kernels"),
    [*zip(NOISES, KERNEL_NAMES, strict=True), ("task", {"task": "icm", "nugget": True})],
)
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
    complete = small_curves()
    missing = np.random.default_rng(0).random(complete.scores.shape) < 0.4
    missing[0, 2:4] = True
    curves = without(complete, missing)
    grid = CurveGrid.of(curves)
    assert not grid.complete
    assert sum(map(len, grid.cells)) == 4 * 6 - 2  # pyright: ignore
    assert CurveGrid.of(complete).complete
    model = MultiTaskGP.init(curves, jax.random.key(0), noise=noise, **kernels)
    free, constrain = unconstrain(model)

    def ours(free, grid):
        return jax.value_and_grad(lambda f: constrain(f).log_likelihood(grid), has_aux=True)(free)

    (value, means), gradients = jax.jit(ours)(free, grid)
    expected, slow = jax.jit(
        jax.value_and_grad(lambda f: dense_log_likelihood(constrain(f), grid, means, ~missing))
    )(free)
    np.testing.assert_allclose(value, expected, rtol=1e-8)
    for got, want in zip(gradients, slow, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8 * (1 + jnp.abs(want).max()))

    # Curves that are too many for that: standard errors of 1024 probes are about 0.2 and 2 %.
    if noise not in ("task", "epoch"):
        return
    settings = Solver(tolerance=1e-4, probes=1024, rank=None, lanczos=64)
    grid = CurveGrid.of(curves, solver=settings)
    monkeypatch.setattr("amt.gp.solvers.observed_curves.MAX_DIMENSIONS", 10)
    (value, estimated), gradients = jax.jit(lambda *args: ours(*args))(free, grid)
    np.testing.assert_allclose(value, expected, atol=2)
    np.testing.assert_allclose(estimated, means, atol=1e-5)
    got, want = (np.concatenate([np.ravel(g) for g in gs]) for gs in (gradients, slow))
    assert np.linalg.norm(got - want) < 0.1 * np.linalg.norm(want)


@pytest.mark.parametrize("dimensions", [10, 4096])
def test_incomplete_sources_give_a_posterior_of_finite_moments(dimensions, monkeypatch):
    monkeypatch.setattr("amt.gp.solvers.observed_curves.MAX_DIMENSIONS", dimensions)
    complete = small_curves()
    curves = without(complete, np.random.default_rng(1).random(complete.scores.shape) < 0.4)
    grid = CurveGrid.of(curves)
    for kernels in KERNEL_NAMES[:2]:
        model = MultiTaskGP.init(curves, jax.random.key(0), **kernels)
        seen = Observations.empty(4, jnp.dtype("float64")).append(1, 0, 0.5)
        posterior = jax.jit(lambda m: m.source_posterior(grid).condition(seen))(model)  # noqa: B023
        assert jnp.isfinite(posterior.mean).all()
        assert (posterior.variance > 0).all()


def test_which_inference_is_used():
    complete = small_curves(num_epochs=40)
    missing = np.zeros(complete.scores.shape, bool)
    missing[0, 0, 1:] = missing[1, 3] = True
    grid, whole = CurveGrid.of(without(complete, missing)), CurveGrid.of(complete)
    assert grid.cells.part.tolist() == [0]  # pyright: ignore
    rest = [i for i in range(1, 24) if i != 9]
    assert grid.cells.whole.tolist() == rest  # pyright: ignore
    ranks = {"at2": 8, "freeze_thaw": 10, "fabolas": 2, "matern": 24}
    for name, rank in ranks.items():
        model = MultiTaskGP.init(complete, jax.random.key(0), fidelity=name)
        assert model.exact_rank(grid) == rank
        assert model.exact_rank(whole) is None
        for cells in ((0, 4096 // rank + 1), (2049, 1)):
            many = dataclasses.replace(grid, cells=ObservedCells(*map(jnp.zeros, cells)))
            assert model.exact_rank(many) is None
    posterior = partial(eqx.filter_eval_shape, MultiTaskGP.source_posterior, model)
    assert isinstance(posterior(grid), ObservedCurvesPosterior)
    assert isinstance(posterior(many), LatentSourcePosterior)
    assert isinstance(posterior(whole), SourcePosterior)

    model = MultiTaskGP.init(complete, jax.random.key(0), nugget=True)
    assert model.exact_rank(whole) == 8
    posterior = partial(eqx.filter_eval_shape, MultiTaskGP.source_posterior, model)
    assert isinstance(posterior(whole), ObservedCurvesPosterior)
    with pytest.raises(ValueError, match=r"at most 512 incomplete .* 2048 .* are 1 and 2049\)"):
        posterior(many)


def test_incomplete_grids_of_one_capacity_stack():
    complete = small_curves()
    rng = np.random.default_rng(2)
    curves = [without(complete, rng.random(complete.scores.shape) < share) for share in (0.3, 0.9)]
    grids = [CurveGrid.of(c, capacity=24) for c in (*curves, complete)]
    model = MultiTaskGP.init(complete, jax.random.key(0), config="matern", task="icm")
    likelihood = jax.jit(lambda grid: model.log_likelihood(grid)[0])
    together = jax.jit(jax.vmap(likelihood))(jax.tree.map(lambda *g: jnp.stack(g), *grids))
    each = [likelihood(CurveGrid.of(c)) for c in (*curves, complete)]
    np.testing.assert_allclose(together, each, rtol=1e-9)
    with pytest.raises(ValueError, match="room for 23 curves, but 24 have scores"):
        CurveGrid.of(complete, capacity=23)


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
def test_what_needs_a_kronecker_product_refuses_others(name):
    fit = {
        "svgp": svgp.fit_svgp,
        "dense": lambda model, grid, key: dense.DenseGP(model).log_likelihood(grid),
        "nuts": nuts.sample_nuts,
        "svi": variational.fit_svi,
    }[name]
    curves = small_curves()
    scores = curves.scores.copy()
    scores[1, 2, 3] = np.nan
    grid = CurveGrid.of(dataclasses.replace(curves, scores=scores))
    model = MultiTaskGP.init(curves, jax.random.key(0), config="matern")
    with pytest.raises(ValueError, match=r"complete.*task 1, configuration 2, epoch 3"):
        fit(model, grid, jax.random.key(1))
    model = MultiTaskGP.init(curves, jax.random.key(0), config="matern", nugget=True)
    with pytest.raises(ValueError, match="knows no nugget: use mle or map"):
        fit(model, CurveGrid.of(curves), jax.random.key(1))
