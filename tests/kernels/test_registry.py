"""The grid of kernels: every one works in a model, and the posterior equals dense algebra."""

import itertools
import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tinygp.kernels import Kernel

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.observations import Observations
from amt.gp.solvers.kronecker import outer
from amt.kernels import KERNELS, TargetObservations, TaskKernel, make_kernel
from amt.parameters import unconstrain
from tests import oracle
from tests.problems import moved, small_curves

TASKS, CONFIGS, EPOCHS = 3, 5, 4
KEY = jax.random.key(0)
# What is compiled here runs once or thrice.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
# Every two kernels of different axes meet in one of these 16 of the 64 models.
SQUARE = [
    tuple(list(KERNELS[axis])[i] for axis, i in zip(KERNELS, index, strict=True))
    for index in ((i, j, (i + j) % 4) for i, j in itertools.product(range(4), repeat=2))
]


@pytest.fixture(scope="module")
def curves():
    return small_curves(TASKS + 1, CONFIGS, EPOCHS)


@pytest.fixture(scope="module")
def split(curves):
    sources, target = curves.split(curves.tasks[:TASKS], curves.tasks[TASKS])
    return sources, CurveGrid.of(sources), target.scores[0]


def test_the_grid_has_64_models():
    assert {axis: list(names) for axis, names in KERNELS.items()} == {
        "task": ["at2", "icm", "rank", "latent"],
        "config": ["deep_poly", "deep_rbf", "matern", "tree"],
        "fidelity": ["at2", "freeze_thaw", "fabolas", "matern"],
    }
    for axis, names in KERNELS.items():
        for kernel in names.values():
            assert issubclass(kernel, TaskKernel if axis == "task" else Kernel)
            assert kernel.__doc__
            assert "Source:" in kernel.__doc__


@pytest.mark.parametrize(("task", "config", "fidelity"), SQUARE)
def test_likelihood_and_gradient_are_finite(split, task, config, fidelity):
    sources, grid, _ = split
    model = MultiTaskGP.init(sources, KEY, task=task, config=config, fidelity=fidelity)
    free, constrain = unconstrain(model)
    value, gradient = quick_jit(jax.value_and_grad(lambda f: constrain(f).log_likelihood(grid)[0]))(
        free
    )
    gradient = jax.device_get(gradient)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in gradient)
    # Everything that is learned has a gradient, but for what complete sources do not show (U).
    silent = sum(not leaf.any() for leaf in gradient if leaf.size)
    assert silent <= (1 if task == "at2" else 0)


class Setting(NamedTuple):
    """Dense pieces of a model: everything but the task kernel joined by the target."""

    cells: jax.Array
    noise: jax.Array
    means: jax.Array
    mean_prior: tuple[jax.Array, jax.Array]
    target_noise: jax.Array


def dense_setting(model, grid):
    task_noise, epoch_noise = model.noise.factors(TASKS, grid.epochs)
    means = model.log_likelihood(grid)[1]
    config = model.config(grid.features, grid.features)
    fidelity = model.fidelity(grid.epochs, grid.epochs)
    return Setting(
        jnp.kron(config, fidelity),
        outer(task_noise, jnp.ones(CONFIGS), epoch_noise).reshape(TASKS, -1),
        means,
        (means.mean(), jnp.var(means, ddof=1)),
        jnp.tile(jnp.exp(jnp.log(task_noise).mean()) * epoch_noise, CONFIGS),
    )


def seen_by_dense_algebra(model, grid, setting, observations):
    """TargetObservations from their definitions."""
    cells = observations.config * EPOCHS + observations.epoch
    covariance = jnp.kron(model.task.gram(), setting.cells) + jnp.diag(setting.noise.ravel())
    residual = grid.scores.reshape(TASKS, -1) - setting.means[:, None]
    alpha = jnp.linalg.solve(covariance, residual.ravel()).reshape(TASKS, -1)
    return TargetObservations(
        score=observations.score,
        mask=observations.mask,
        source=grid.scores.reshape(TASKS, -1)[:, cells].T,
        residual=observations.score - setting.mean_prior[0],
        response=(alpha @ setting.cells)[:, cells].T,
        prior=setting.cells[cells][:, cells],
        noise=setting.target_noise[cells],
        mean_variance=setting.mean_prior[1],
        share=1 / (CONFIGS * EPOCHS),
    )


@pytest.mark.parametrize(
    "names", [SQUARE[0], SQUARE[6], SQUARE[11], SQUARE[13]], ids=lambda names: "-".join(names)
)
def test_posterior_equals_dense_algebra(split, names):
    sources, grid, target = split
    model = MultiTaskGP.init(
        sources, KEY, **dict(zip(KERNELS, names, strict=True)), noise="task_epoch"
    )
    model = eqx.tree_at(lambda m: m.noise, model, moved(model.noise, 0, 0.5))
    setting = quick_jit(dense_setting)(model, grid)
    condition = quick_jit(lambda o: model.source_posterior(grid).condition(o))

    @quick_jit
    def dense_posterior(observations):
        seen = seen_by_dense_algebra(model, grid, setting, observations)
        gram = model.task.with_target(seen).gram()
        return oracle.condition(model.sources(grid), gram, observations, means=setting.means)

    order = np.random.default_rng(0).permutation(CONFIGS * EPOCHS)
    for count in (0, 1, 5):
        entries = [divmod(int(cell), EPOCHS) for cell in order[:count]]
        entries = [(*cell, target[cell]) for cell in entries]
        observations = Observations.of(entries, 8, jnp.dtype(jnp.float64))
        posterior = condition(observations)
        mean, variance, *_ = jax.device_get(dense_posterior(observations))
        assert np.isfinite(posterior.mean).all()
        scale = np.sqrt(variance.max())
        np.testing.assert_allclose(posterior.mean, mean, atol=1e-8 * scale, rtol=1e-8)
        np.testing.assert_allclose(posterior.variance, variance, atol=1e-8 * scale**2)


def test_every_task_kernel_has_its_posterior_tested():
    assert {names[0] for names in (SQUARE[0], SQUARE[6], SQUARE[11], SQUARE[13])} == set(
        KERNELS["task"]
    )


def test_make_kernel_uses_the_dtype(curves):
    for axis, names in KERNELS.items():
        for name in names:
            kernel = make_kernel(axis, name, curves, KEY, jnp.float32)
            assert {leaf.dtype for leaf in jax.tree.leaves(kernel)} == {jnp.dtype(jnp.float32)}


CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_the_new_kernel_of_the_instructions_works(monkeypatch):
    section = re.search(
        r"^## Adding a kernel$(.*?)(?=^## |\Z)", CONTRIBUTING.read_text(), re.M | re.S
    )
    assert section is not None
    code = re.search(r"^```python\n(.*?)^```", section.group(1), re.M | re.S)
    assert code is not None
    check_new_kernel(code.group(1), monkeypatch)


def check_new_kernel(code, monkeypatch):
    """It registers one kernel, with which a model is learned and used."""
    before = {axis: set(names) for axis, names in KERNELS.items()}
    for axis in KERNELS:
        monkeypatch.setitem(KERNELS, axis, dict(KERNELS[axis]))
    exec(compile(code, "CONTRIBUTING.md", "exec"), {"__name__": "contributing"})
    added = [(axis, n) for axis, names in KERNELS.items() for n in names if n not in before[axis]]
    assert len(added) == 1
    curves = small_curves(TASKS, CONFIGS, EPOCHS)
    grid = CurveGrid.of(curves)
    model = MultiTaskGP.init(curves, KEY, **dict(added))
    free, constrain = unconstrain(model)
    learned = len(free) - len(unconstrain(MultiTaskGP.init(curves, KEY)).free)
    assert learned != 0
    gradient = quick_jit(jax.grad(lambda f: constrain(f).log_likelihood(grid)[0]))(free)
    assert all(np.isfinite(leaf).all() for leaf in gradient)
    condition = quick_jit(lambda o: model.source_posterior(grid).condition(o))
    posterior = condition(Observations.empty(2, jnp.float64))
    assert np.isfinite(posterior.variance).all()
