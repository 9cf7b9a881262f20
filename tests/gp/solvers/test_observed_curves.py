"""The likelihood of incomplete grids by their curves, and their posterior, against dense algebra.

That the posterior is exact for any target stands in tests/gp/test_posterior.py.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from amt.gp.factors import Factors, Grams
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP, select_solver
from amt.gp.observations import Observations
from amt.gp.solvers import Kronecker, ObservedCurves
from amt.gp.solvers.observed_curves import orthonormal
from amt.kernels.fidelity import AT2Fidelity
from amt.kernels.task import GivenGram
from tests import oracle
from tests.gp.problems import (
    CONFIGS,
    EXTRA,
    MISSING,
    MISSING_OF_ONE_SHAPE,
    SEEDS,
    SHAPE,
    assert_close,
    condition,
    extra_features,
    in_float32,
    observed_curves,
    observed_curves_of,
    random_observations,
    random_sources,
    response,
    symmetric,
)
from tests.oracle import KnownTask
from tests.problems import small_curves


def likelihood_problem(seed, missing, shape=SHAPE, degenerate=False):
    """Factors whose tasks vary by more than the noise, scores, and a solver."""
    sources = random_sources(seed, missing, shape, degenerate=degenerate, nugget=True)
    grams = sources.factors.grams
    factors = sources.factors._replace(grams=grams._replace(task=3 * grams.task))
    return (factors, sources.scores), observed_curves_of(sources, missing)


@eqx.filter_jit
def ours(factors, scores, solver):
    """Value, means and gradients, of symmetric matrices in symmetric directions."""

    def function(factors, scores):
        value, means, _ = solver.solve(factors, scores)
        return value, means

    return in_symmetric_directions(function, factors, scores)


def in_symmetric_directions(function, factors, scores):
    value, (of_factors, of_scores) = jax.value_and_grad(function, (0, 1), has_aux=True)(
        factors, scores
    )
    return value, symmetric(of_factors), of_scores


dense = jax.jit(lambda *arguments: in_symmetric_directions(oracle.solve, *arguments))


@given(SEEDS, MISSING)
def test_likelihood_means_and_gradients_equal_dense_algebra(seed, missing):
    arguments, solver = likelihood_problem(seed, missing)
    assert_close(ours(*arguments, solver), dense(*arguments))


@pytest.mark.parametrize("missing", ["anywhere", "curves", "few", "whole"])
def test_likelihood_of_one_task_equals_dense_algebra(missing):
    arguments, solver = likelihood_problem(0, missing, (1, 3, 4))
    assert_close(ours(*arguments, solver), dense(*arguments))


@eqx.filter_jit
def in_directions_that_keep_the_rank(factors, scores, solver):
    """Gradients with respect to the root of a fidelity matrix of rank 1, which is all kept."""
    task, config, fidelity = factors.grams
    root = fidelity[:, 0] / jnp.sqrt(fidelity[0, 0])
    few = ObservedCurves(solver.whole, solver.part, 1)

    def gradient(function):
        def value(root, config):
            grams = Grams(task, config, jnp.outer(root, root))
            return function(factors._replace(grams=grams), scores)[0]

        value, (of_root, of_config) = jax.value_and_grad(value, (0, 1))(root, config)
        return value, of_root, of_config + of_config.T

    return gradient(few.solve), gradient(oracle.solve)


@given(SEEDS, MISSING)
def test_singular_factors_are_those_of_dense_algebra(seed, missing):
    """Configurations alike, and a fidelity of rank 1."""
    arguments, solver = likelihood_problem(seed, missing, degenerate=True)
    assert_close(*in_directions_that_keep_the_rank(*arguments, solver))


prepare = eqx.filter_jit(lambda solver, sources: solver.posterior(sources))


class Told(KnownTask):
    """A task kernel that has to be told `expected` of the target's own curves, else gives NaN."""

    expected: jax.Array

    def with_target(self, observations):
        equal = jnp.allclose(observations.nugget, self.expected, rtol=1e-12)
        return GivenGram(jnp.where(equal, self.full, jnp.nan))


@given(SEEDS, MISSING_OF_ONE_SHAPE)
def test_a_task_kernel_is_told_the_nugget_of_the_target(seed, missing):
    sources, observed = random_sources(seed, missing), random_observations(seed, 5, CONFIGS + EXTRA)
    factors = sources.factors._replace(nugget=np.asarray([0.1, 0.2, 0.6]))
    sources = dataclasses.replace(sources, factors=factors)
    posterior = prepare(observed_curves_of(sources, missing), sources)
    same = observed.config[:, None] == observed.config
    fidelity = np.asarray(factors.grams.fidelity)[observed.epoch[:, None], observed.epoch]
    expected = 0.3 * np.where(same, fidelity, 0)

    def telling(what):
        task = Told(sources.task.full, what)
        return eqx.tree_at(lambda p: p.sources.task, posterior, task)

    want = condition(posterior, observed, extra_features())
    assert_close(condition(telling(expected), observed, extra_features()), want)
    wrong = condition(telling(2 * expected), observed, extra_features())
    assert np.isnan(wrong.mean).all()


@pytest.mark.parametrize("whole", [0, 5, 11])
def test_complete_curves_have_the_posterior_of_the_kronecker_product(whole):
    sources, observed = random_sources(1), random_observations(1, 4, CONFIGS + EXTRA)
    posterior = prepare(observed_curves(sources.scores, whole), sources)
    complete = prepare(Kronecker(), sources)
    reverse = observed._replace(config=observed.config[::-1])
    for pending in (reverse._replace(count=np.asarray(0)), reverse):
        want = condition(complete, observed, extra_features(), pending)
        assert_close(condition(posterior, observed, extra_features(), pending), want)
    assert_close(response(posterior, sources), response(complete, sources))


def test_grids_side_by_side_have_the_values_of_each():
    problems = [likelihood_problem(seed, "curves") for seed in range(3)]
    each = [(*arguments, solver) for arguments, solver in problems]
    together = jax.jit(jax.vmap(ours))(*jax.tree.map(lambda *leaves: np.stack(leaves), *each))
    together = jax.device_get(together)
    for index, arguments in enumerate(each):
        mine = jax.tree.map(lambda leaf: leaf[index], together)  # noqa: B023
        assert_close(mine, ours(*arguments), 1e-9)


def test_padding_and_the_order_of_curves_change_nothing():
    (factors, scores), solver = likelihood_problem(10, "whole")
    want = ours(factors, scores, solver)
    there = int((np.asarray(solver.part) < 12).sum())
    assert there < len(solver.part)
    for whole, capacity in ((6, there), (0, None), (3, None)):
        other = observed_curves(scores, whole, capacity)
        assert_close(ours(factors, scores, other), want, 1e-11)


@given(SEEDS, MISSING_OF_ONE_SHAPE)
def test_float32_agrees_to_1e3(seed, missing):
    arguments, solver = likelihood_problem(seed, missing)
    sources = random_sources(seed, missing)
    observed = random_observations(seed, 4, CONFIGS + EXTRA)

    def values(arguments, sources, observed, extra):
        posterior = prepare(solver, sources)
        return ours(*arguments, solver), condition(posterior, observed, extra)

    double = arguments, sources, observed, extra_features()
    got = values(*in_float32(double))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(got))
    assert_close(got, values(*double), 1e-3)


def test_what_is_below_the_noise_can_be_left_out():
    """With ten of 40 eigenvalues of a smooth fidelity kernel, values stay the same to 1e-6."""
    (factors, scores), solver = likelihood_problem(3, "curves", (3, 6, 40))
    epochs = np.arange(1, 41) / 40
    kernel = AT2Fidelity(*map(np.asarray, (0.7, 0.7, 0.7)))
    scores = jax.device_put(0.01 * np.asarray(scores))
    noise = jax.device_put((np.full(3, 1e-4), np.ones(40), np.full(3, 1e-4)))

    def in_parameters(rank):
        def value(kernel):
            grams = factors.grams._replace(fidelity=kernel(epochs, epochs))
            few = ObservedCurves(solver.whole, solver.part, rank)
            value, means, _ = few.solve(Factors(grams, *noise), scores)
            return value, means

        return jax.jit(jax.value_and_grad(value, has_aux=True))(kernel)

    all_of_them = in_parameters(40)
    assert_close(in_parameters(10), all_of_them, 1e-6)
    with pytest.raises(AssertionError):
        assert_close(in_parameters(4), all_of_them, 1e-6)


@pytest.mark.parametrize("nugget", [False, True])
def test_curves_that_are_all_whole_and_not_on_every_task(nugget):
    """There is no curve with a gap, but the grid is incomplete; in float32 too."""
    curves = small_curves(2, 8, 4)
    scores = curves.scores.copy()
    scores[1, 3] = np.nan
    curves = dataclasses.replace(curves, scores=scores)
    options = {"task": "icm", "config": "matern", "noise": "task", "nugget": nugget}

    def results(dtype):
        grid = CurveGrid.of(curves, dtype)
        model = MultiTaskGP.init(curves, jax.random.key(0), **options)
        model = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), model)
        solver, _ = select_solver(model, grid)
        assert len(solver.whole) == 15

        def run(model):
            value = lambda m: m.log_likelihood(grid, solver)[:2]  # noqa: E731
            likelihood = eqx.filter_value_and_grad(value, has_aux=True)(model)
            posterior = model.source_posterior(grid, solver=solver)
            seen = Observations.empty(3, grid.scores.dtype).append(2, 1, grid.scores[0, 2, 1])
            return likelihood, posterior.condition(seen), posterior.curves()

        return model, grid, jax.jit(run)(model)

    model, grid, want = results("float64")
    (value, means), _ = want[0]

    @jax.jit
    def dense(model):
        profile = oracle.profile(oracle.of_model(model, grid), grid.scores)
        return profile, oracle.curves(model.sources(grid))

    profile, every_curve = dense(model)
    assert_close((value, means), profile)
    assert_close(want[2], every_curve, 1e-6)

    *_, got = results("float32")
    leaves = jax.tree.leaves(got)
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)
    (likelihood, gradients), (expected, slow) = got[0], want[0]
    assert_close(likelihood, expected, 1e-3)
    assert_close(gradients, slow, 1e-2)
    assert_close(got[1:], want[1:], 1e-3)


def test_an_indefinite_task_kernel_gives_nan():
    sources = random_sources(10, "curves")
    full = np.array(sources.task.full)
    full[-1, :-1] *= 10
    full[:-1, -1] *= 10
    sources = dataclasses.replace(sources, task=KnownTask(full))
    posterior = prepare(observed_curves(sources.scores), sources)
    assert np.isnan(condition(posterior, random_observations(10, 2)).variance).all()


def test_bases_are_orthonormal_where_columns_depend_on_one_another():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(5, 8, 4)) * 10.0 ** -np.arange(0, 12, 3)
    columns[0, 2:] = 0  # of rank 2
    columns[1, :, 3] = columns[1, :, :3].sum(1)
    columns[2] = 0
    basis = np.asarray(jax.jit(orthonormal)(columns))
    ranks = [2, 3, 0, 4, 4]
    for own, matrix, rank in zip(basis, columns, ranks, strict=True):
        expected = np.diag((np.arange(4) < rank).astype(float))
        np.testing.assert_allclose(own.T @ own, expected, atol=1e-14)
        np.testing.assert_allclose(own @ (own.T @ matrix), matrix, atol=1e-13)
    np.testing.assert_array_equal(basis[0, 2:], 0)
