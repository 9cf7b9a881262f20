"""The scores held out of incomplete curves, how it is scored, and the dense model beside."""

import importlib.util
import math
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP, select_solver
from tests.problems import small_curves

SHAPE = (5, 40, 20)


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).parents[1] / "scripts" / "benchmark_incomplete.py"
    spec = importlib.util.spec_from_file_location("benchmark_incomplete", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("truncated", "observed"), [(0.5, 0.525), (4 / 7, 0.5)])
def test_shares_of_what_is_missing(script, truncated, observed):
    length = script.lengths(SHAPE, 3, truncated=truncated)
    kinds = script.held_out(length, SHAPE[2])
    assert kinds["missing"].sum() == 60
    assert kinds["truncated"].sum() == round(truncated * 140)
    assert not (kinds["missing"] & kinds["truncated"]).any()
    np.testing.assert_array_equal(length, script.lengths(SHAPE, 3, truncated=truncated))
    assert (length != script.lengths(SHAPE, 4, truncated=truncated)).any()

    there = np.isfinite(script.kept(np.ones(SHAPE), length))
    np.testing.assert_array_equal(there.sum(2), length)
    assert (np.diff(there.astype(int), axis=2) <= 0).all()
    np.testing.assert_array_equal(there[:, :, -1], ~(kinds["missing"] | kinds["truncated"]))
    assert there.mean() == pytest.approx(observed, abs=0.04)


def test_scores_are_those_of_the_normal_distribution(script):
    rng = np.random.default_rng(0)
    final, mean = rng.normal(size=(2, 3, 4))
    variance = rng.uniform(0.1, 2, (3, 4))
    mask = rng.random((3, 4)) < 0.5
    result = script.score(script.Point(1, 0.0, 0.0, mean, variance), final, mask)
    density = stats.norm.logpdf(final[mask], mean[mask], np.sqrt(variance[mask]))
    assert result.lpd == pytest.approx(density.mean())
    assert result.rmse == pytest.approx(np.sqrt(((final - mean)[mask] ** 2).mean()))


def test_the_time_to_a_score_is_that_of_the_fastest_point_that_reaches_it(script):
    empty = np.zeros(0)
    points = [script.Point(n, t, 1.0, empty, empty) for n, t in ((1, 1.0), (2, 5.0), (3, 9.0))]
    assert script.reach(points, [0.1, 0.7, 0.6], 0.5) == 6.0
    assert script.reach(points, [0.1, 0.7, 0.6], 0.8) == math.inf


def test_a_subset_of_all_scores_gives_exact_answers(script):
    curves = small_curves()
    length = script.lengths(curves.scores.shape, 0)
    length[:, 0] = curves.num_epochs
    curves = replace(curves, scores=script.kept(curves.scores, length))
    grid = CurveGrid.of(curves)
    model = MultiTaskGP.init(
        curves, jax.random.key(1), task="icm", config="matern", noise="task", nugget=True
    )
    model = replace(model, nugget=jnp.arange(1.0, 5) / 10)
    observed = np.argwhere(np.isfinite(curves.scores)).T
    subset, predict = script.subset_gp(observed)
    exact, _ = select_solver(model, grid)

    def everything_by(solver, predict):
        likelihood = lambda model: model.log_likelihood(grid, solver)  # noqa: E731
        return jax.jit(lambda model: (likelihood(model), predict(model, grid, solver)))(model)

    dense, fast = everything_by(subset, predict), everything_by(exact, script.final_scores)
    for ours, theirs in zip(jax.tree.leaves(dense), jax.tree.leaves(fast), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
