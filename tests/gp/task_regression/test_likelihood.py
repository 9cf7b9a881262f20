"""The likelihood of every task given all others agrees with dense algebra."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.scipy.stats import multivariate_normal

from amt.gp.grid import CurveGrid
from amt.gp.task_regression.model import CommonScale, TaskRegression
from amt.kernels import KERNELS
from amt.parameters import unconstrain
from tests.problems import moved, small_curves

TASKS, CONFIGS, EPOCHS = 4, 6, 5
KEY = jax.random.key(0)


@eqx.filter_jit
def fast(model: TaskRegression, grid: CurveGrid) -> jax.Array:
    return model.log_likelihood(grid)


@eqx.filter_jit
def dense(model: TaskRegression, grid: CurveGrid) -> jax.Array:
    """From the definition: the covariance of every task given the others, written out."""
    tasks = CommonScale.of(grid.scores)
    count, configs, _ = grid.scores.shape
    residual = model.residual_covariance(grid)
    course = jnp.square(model.course) * model.trend(grid.epochs, grid.epochs)
    shared = jnp.kron(residual.config, residual.fidelity) + jnp.square(model.level)
    shared += jnp.kron(jnp.eye(configs), residual.own)
    shared += jnp.kron(jnp.ones((configs, configs)), course)

    def of_task(task: jax.Array, others: jax.Array) -> jax.Array:
        curves = tasks.curves[others].reshape(len(others), -1)
        weights = jnp.square(model.similarity) / len(others) * jnp.eye(len(others))
        weights += jnp.square(model.common / len(others))
        level, scale = tasks.level[others].mean(), tasks.scale[others].mean()
        score = (grid.scores[task].ravel() - level) / scale
        covariance = shared + curves.T @ weights @ curves
        return multivariate_normal.logpdf(score, curves.mean(0), covariance)

    others = np.nonzero(~np.eye(count, dtype=bool))[1].reshape(count, -1)
    return jax.vmap(of_task)(jnp.arange(count), jnp.asarray(others))


@eqx.filter_jit
def both(model: TaskRegression, grid: CurveGrid):
    """Values and gradients, by the Gram matrix and by dense algebra."""
    free, constrain = unconstrain(model)
    weight = jnp.arange(1.0, TASKS + 1)  # tells the tasks apart in the gradient

    def weighted(free, function):
        values = function(constrain(free), grid)
        return weight @ values, values

    return tuple(jax.value_and_grad(weighted, has_aux=True)(free, f) for f in (fast, dense))


@given(seed=st.integers(0, 2**20))
def test_values_and_gradients_are_those_of_dense_algebra(seed):
    curves = small_curves(TASKS, CONFIGS, EPOCHS, seed=seed)
    model = moved(TaskRegression.init(curves, KEY, functions=EPOCHS), seed, 0.5)
    ((_, values), gradient), ((_, want), wanted) = both(model, CurveGrid.of(curves))
    np.testing.assert_allclose(values, want, rtol=1e-8, atol=1e-8)
    for mine, theirs in zip(gradient, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-8 * np.abs(want).max())


@pytest.mark.parametrize("name", ["similarity", "common", "level", "residual"])
def test_a_part_of_no_variance_is_left_out(name):
    curves = small_curves(TASKS, CONFIGS, EPOCHS)
    grid = CurveGrid.of(curves)
    model = TaskRegression.init(curves, KEY, functions=EPOCHS)
    model = eqx.tree_at(lambda m: getattr(m, name), model, jnp.zeros(()))
    np.testing.assert_allclose(fast(model, grid), dense(model, grid), rtol=1e-8)


def test_repeated_configurations_are_no_problem():
    curves = small_curves(TASKS, CONFIGS, EPOCHS)
    grid = CurveGrid.of(curves)
    repeat = [0, 1, 2, 0, 1, 2]
    grid = CurveGrid(grid.scores, np.asarray(grid.features)[repeat], grid.epochs)
    model = TaskRegression.init(curves, KEY, functions=EPOCHS)
    np.testing.assert_allclose(fast(model, grid), dense(model, grid), rtol=1e-8)


@pytest.mark.parametrize("config", KERNELS["config"])
@pytest.mark.parametrize("fidelity", ["at2", "freeze_thaw"])
def test_any_registered_kernels_will_do(config, fidelity):
    curves = small_curves(TASKS, CONFIGS, EPOCHS)
    grid = CurveGrid.of(curves)
    model = TaskRegression.init(curves, KEY, config=config, fidelity=fidelity, functions=EPOCHS)
    np.testing.assert_allclose(fast(model, grid), dense(model, grid), rtol=1e-8)


def test_float32_is_close_and_finite():
    curves = small_curves(TASKS, CONFIGS, EPOCHS)
    values = {}
    for dtype in ("float64", "float32"):
        model = TaskRegression.init(curves, KEY, functions=EPOCHS)
        model = jax.tree.map(lambda leaf: jax.device_put(np.asarray(leaf, dtype)), model)  # noqa: B023
        grid = CurveGrid.of(curves, dtype)
        run = eqx.filter_value_and_grad(lambda m: m.log_likelihood(grid).sum())  # noqa: B023
        values[dtype], gradient = eqx.filter_jit(run)(model)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert values["float32"].dtype == jnp.float32
    np.testing.assert_allclose(values["float32"], values["float64"], rtol=1e-3)


def test_one_task_alone_has_the_likelihood_of_its_own_prior():
    curves = small_curves(1, CONFIGS, EPOCHS)
    grid = CurveGrid.of(curves)
    model = TaskRegression.init(curves, KEY, functions=EPOCHS)
    values = fast(model, grid)
    assert values.shape == (1,)
    assert np.isfinite(values).all()
