"""Inference by dense algebra against inference on the grid.

That its posterior is exact for any target stands in tests/gp/test_posterior.py.
"""

import equinox as eqx
import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.observations import Observations
from amt.gp.solvers import Dense, Kronecker
from amt.inference import fit_dense, fit_mle
from amt.parameters import stack
from amt.search.simulate import simulate
from tests.problems import small_curves

CURVES = small_curves(4, 5, 4)


def problem(dtype=np.float64, **kernels):
    sources, target = CURVES.split(CURVES.tasks[:3], CURVES.tasks[3])
    grid = CurveGrid.of(sources, dtype)
    model = MultiTaskGP.init(sources, jax.random.key(0), dtype=dtype, **kernels)
    return model, grid, jax.device_put(target.scores[0].astype(dtype))


def observe(target, count, capacity=6):
    entries = [(cell % 3, cell // 3) for cell in range(count)]
    target = np.asarray(target)
    return Observations.of([(c, e, target[c, e]) for c, e in entries], capacity, target.dtype)


KERNELS = [
    {"task": "at2", "config": "deep_poly", "fidelity": "at2", "noise": "homoscedastic"},
    {"task": "icm", "config": "matern", "fidelity": "freeze_thaw", "noise": "task_epoch"},
]


@pytest.mark.parametrize("kernels", KERNELS)
def test_posterior_equals_that_on_the_grid(kernels):
    model, grid, target = problem(**kernels)

    @jax.jit
    def both(observations):
        dense = model.source_posterior(grid, solver=Dense())
        return dense.condition(observations), model.source_posterior(grid).condition(observations)

    for count in (0, 1, 5):
        got, want = both(observe(target, count))
        assert_allclose(got.mean, want.mean, rtol=1e-8, atol=1e-8)
        assert_allclose(got.variance, want.variance, rtol=1e-7, atol=1e-8 * np.max(want.variance))


def test_log_likelihood_and_its_gradient_equal_those_on_the_grid():
    model, grid, _ = problem(config="matern", noise="task_epoch")

    @eqx.filter_jit
    def by(solver):
        value = lambda m: m.log_likelihood(grid, solver)[:2]  # noqa: E731
        return eqx.filter_value_and_grad(value, has_aux=True)(model)

    got, want = by(Dense()), by(Kronecker())
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_a_fit_takes_the_same_steps_as_that_on_the_grid():
    model, grid, target = problem(config="matern")
    starts = jax.jit(stack)([model])
    dense = jax.jit(lambda: fit_dense(starts, grid, jax.random.key(1), steps=15))()
    values = np.asarray(dense.log_likelihood)
    exact = jax.jit(lambda: fit_mle(starts, grid, steps=15))()
    assert isinstance(dense.solver, Dense)
    assert_allclose(values, exact.log_likelihood, rtol=1e-6)
    assert values[0, -1] > values[0, 0] + 1
    got, want = jax.jit(
        lambda o: (
            dense.posterior(grid, rank=2).condition(o),
            dense.model.source_posterior(grid).condition(o),
        )
    )(observe(target, 4))
    assert_allclose(got.mean, want.mean, rtol=1e-8, atol=1e-8)


def test_tunes_as_inference_on_the_grid():
    model, grid, target = problem(task="icm", config="matern", fidelity="fabolas")

    @jax.jit
    def both():
        sources = model.source_posterior(grid, solver=Dense()), model.source_posterior(grid)
        return tuple(simulate(source, target, budget=6) for source in sources)

    got, want = jax.device_get(both())
    assert (got.config == want.config).all()
    assert (got.recommended == want.recommended).all()


def test_a_batch_of_targets_is_as_each_alone():
    model, grid, target = problem(task="icm", config="matern", fidelity="fabolas")
    posterior = jax.jit(lambda: model.source_posterior(grid, solver=Dense()))()
    condition = lambda observations: posterior.condition(observations)  # noqa: E731
    first, second = observe(target, 4), observe(np.asarray(target)[::-1], 4)
    both = jax.tree.map(lambda *leaves: np.stack(leaves), first, second)
    batch = jax.jit(jax.vmap(condition))(both)
    assert_allclose(np.asarray(batch.mean)[1], jax.jit(condition)(second).mean, rtol=1e-10)


def test_runs_in_float32():
    model, grid, target = problem(np.float32, noise="task_epoch")
    dense = lambda o: model.source_posterior(grid, solver=Dense()).condition(o)  # noqa: E731
    posterior = jax.jit(dense)(observe(target, 3))
    assert posterior.mean.dtype == posterior.variance.dtype == np.float32
    assert np.isfinite(posterior.mean).all()


def test_too_many_observations_are_refused_with_what_they_would_take():
    model, grid, _ = problem()
    with pytest.raises(ValueError, match=r"60 observations .* GiB .* limit is 59"):
        jax.eval_shape(lambda: fit_dense(stack([model]), grid, largest=59))
    large = eqx.tree_at(lambda g: g.scores, grid, np.zeros((4, 100, 75)))
    with pytest.raises(ValueError, match=r"30000 observations .* 33\.5 GiB"):
        jax.eval_shape(lambda: model.log_likelihood(large, Dense()))
