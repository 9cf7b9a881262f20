"""Gaussian processes on the observed curves against dense algebra on the observed scores."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amt.gp.posterior import Observations, SourcePosterior, mean_prior
from amt.gp.solvers import kronecker
from amt.gp.solvers.observed_curves import (
    ObservedCells,
    ObservedCurvesPosterior,
    log_likelihood,
    orthonormal,
)
from amt.kernels.fidelity import AT2Fidelity
from amt.kernels.task import GivenGram
from tests.gp.test_posterior import KnownTask, off_grid_problem, on_the_grid, problem

SHAPES = st.sampled_from([(3, 4, 5), (1, 3, 4)])
SEEDS = st.integers(0, 2**31 - 1)
# Scores missing anywhere, the ends of curves, all but one score of one task, and the ends of curves
# but for two whole ones of each task, which then have a way of their own.
MISSING = st.sampled_from(["anywhere", "curves", "few", "whole"])


def random_mask(shape, seed, kind):
    rng = np.random.default_rng(seed)
    if kind == "whole":
        mask = np.arange(shape[2]) < rng.integers(0, shape[2] + 1, shape[:2])[..., None]
        mask[:, 1:3] = True
    elif kind == "curves":
        mask = np.arange(shape[2]) < rng.integers(0, shape[2] + 1, shape[:2])[..., None]
    else:
        mask = rng.random(shape) < 0.5
    if kind == "few":
        mask[0] = False
    mask[:, 0, 0] = True
    return mask


def observed_cells(mask, whole=0, capacity=None):
    """Some whole curves, and the others that have scores, by default with room for all."""
    size = mask[..., 0].size
    first = np.flatnonzero(mask.all(2))[:whole]
    part = np.setdiff1d(np.flatnonzero(mask.any(2)), first)
    capacity = size - len(first) if capacity is None else capacity
    rest = np.full(capacity - len(part), size)
    return ObservedCells(jnp.asarray(first), jnp.asarray(np.r_[part, rest]))


def cells_of(mask, kind):
    return observed_cells(mask, 2 * len(mask) if kind == "whole" else 0)


def dense(factors, scores, noise):
    """At the generalized-least-squares means. What is missing has no covariance with the rest,
    a residual of 0 and a variance of 1: it adds nothing. The noise is of tasks and epochs, and the
    nugget.
    """
    mask = jnp.isfinite(scores).ravel()
    curves = jnp.kron(factors[0], factors[1])
    curves += jnp.diag(jnp.repeat(noise[2], scores.shape[1]))
    covariance = jnp.kron(curves, factors[2])
    variance = kronecker.outer(noise[0], jnp.ones(scores.shape[1]), noise[1]).ravel()
    gram = jnp.where(mask[:, None] & mask, covariance, 0) + jnp.diag(jnp.where(mask, variance, 1))
    design = jnp.repeat(jnp.eye(len(scores)), scores[0].size, 0) * mask[:, None]
    inverse = jnp.linalg.inv(gram)
    observed = jnp.where(mask, scores.ravel(), 0)
    means = jnp.linalg.solve(design.T @ inverse @ design, design.T @ inverse @ observed)
    residual = observed - design @ jax.lax.stop_gradient(means)
    log_det = jnp.linalg.slogdet(gram)[1] + mask.sum() * jnp.log(2 * jnp.pi)
    return -0.5 * (residual @ inverse @ residual + log_det), means


def likelihood_problem(shape, seed, kind, degenerate=False):
    (task, config, fidelity, scores, _, *noise), _ = problem(shape, 0, seed, degenerate)
    mask = random_mask(shape, seed, kind)
    factors = 3 * task[:-1, :-1], config, fidelity
    noise = *noise, nuggets(shape[0], seed)
    return (factors, jnp.where(mask, scores, jnp.nan), noise), cells_of(mask, kind)


def nuggets(number, seed):
    """Of tasks, as large as the kernel; of some, none."""
    return jnp.asarray(np.random.default_rng(seed).choice([0.0, 0.3, 1.0, 2.0], number))


@partial(jax.jit, static_argnames="rank")
def ours(factors, scores, noise, cells, rank=None):
    """Value, means and gradients, of symmetric matrices in symmetric directions."""
    rank = rank or scores.shape[2]
    function = lambda f, y, n: log_likelihood(*f, y, *n, cells, rank)  # noqa: E731
    return symmetric(jax.value_and_grad(function, (0, 1, 2), has_aux=True)(factors, scores, noise))


@jax.jit
def dense_with_gradients(*arguments):
    return symmetric(jax.value_and_grad(dense, (0, 1, 2), has_aux=True)(*arguments))


def symmetric(result):
    value, (factors, *rest) = result
    return value, tuple(m + m.T for m in factors), rest


def assert_close(got, want, tolerance=1e-8):
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert mine.shape == theirs.shape
        scale = 1 + np.abs(theirs).max()
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance * scale)


@given(SHAPES, SEEDS, MISSING)
def test_likelihood_means_and_gradients_equal_dense_algebra(shape, seed, kind):
    arguments, cells = likelihood_problem(shape, seed, kind)
    assert_close(ours(*arguments, cells), dense_with_gradients(*arguments))


@jax.jit
def in_directions_that_keep_the_rank(arguments, cells):
    """Gradients with respect to the root of a fidelity matrix of rank 1, which is all kept."""
    (task, config, fidelity), scores, noise = arguments
    root = fidelity[:, 0] / jnp.sqrt(fidelity[0, 0])
    few = lambda *a: log_likelihood(*a[0], a[1], *a[2], cells, 1)  # noqa: E731

    def gradient(function):
        def value(root, config):
            return function((task, config, jnp.outer(root, root)), scores, noise)[0]

        value, (of_root, of_config) = jax.value_and_grad(value, (0, 1))(root, config)
        return value, of_root, of_config + of_config.T

    return gradient(few), gradient(dense)


@given(SEEDS, MISSING)
def test_singular_factors_are_those_of_dense_algebra(seed, kind):
    """Configurations alike, and a fidelity of rank 1."""
    problem = likelihood_problem((3, 4, 5), seed, kind, degenerate=True)
    assert_close(*in_directions_that_keep_the_rank(*problem))


@jax.jit
def source_posterior(arrays, mask, cells, nugget=None):
    full, config, fidelity, scores, _, *noise = arrays
    nugget = jnp.zeros_like(noise[0]) if nugget is None else nugget
    observed, size = jnp.where(mask, scores, jnp.nan), scores.shape
    gram = config[: size[1], : size[1]]
    return ObservedCurvesPosterior.of(
        KnownTask(full), gram, fidelity, observed, *noise, nugget, cells, size[2]
    )


condition = jax.jit(lambda source, *arguments: source.condition(*arguments))


def dense_posterior(arrays, mask, observed, means, nugget=None):
    """Of the joint normal of all observed scores and the target, on and off the grid."""
    full, config, fidelity, scores, _, task_noise, epoch_noise = map(np.asarray, arrays)
    nugget = np.zeros(len(task_noise)) if nugget is None else np.asarray(nugget)
    nugget = np.append(nugget, nugget.mean())
    target, configs, epochs = len(full) - 1, len(config), len(fidelity)
    mean, mean_variance = mean_prior(means, jnp.where(mask, scores, jnp.nan))
    means, mean, mean_variance = map(np.asarray, (means, mean, mean_variance))
    count = int(observed.count)
    told = np.full(count, target), *(np.asarray(a)[:count] for a in observed[:2])
    points = [np.r_[a, b] for a, b in zip(np.nonzero(mask), told, strict=True)]
    grid = [np.full(configs * epochs, target), *map(np.ravel, np.indices((configs, epochs)))]

    def covariance(a, b):
        k = full[a[0][:, None], b[0]] * config[a[1][:, None], b[1]]
        same = (a[0][:, None] == b[0]) & (a[1][:, None] == b[1])
        k = (k + np.where(same, nugget[b[0]], 0)) * fidelity[a[2][:, None], b[2]]
        both = (a[0][:, None] == target) & (b[0] == target)
        return k + np.where(both, mean_variance, 0)

    noise_of = np.append(task_noise, np.exp(np.log(task_noise).mean()))
    gram = covariance(points, points) + np.diag(noise_of[points[0]] * epoch_noise[points[2]])
    residual = (scores - means[:, None, None])[np.nonzero(mask)]
    residual = np.r_[residual, np.asarray(observed.score)[:count] - mean]
    cross = covariance(points, grid)
    solved = np.linalg.solve(gram, cross)
    variance = np.diag(covariance(grid, grid)) - np.sum(cross * solved, 0)
    return (mean + residual @ solved).reshape(configs, -1), variance.reshape(configs, -1)


@given(SHAPES, SEEDS, MISSING, st.sampled_from([0, 1, 5]))
def test_posterior_on_and_off_the_grid_equals_dense_algebra(shape, seed, kind, count):
    arrays, observed, extra = off_grid_problem(shape, count, seed)
    mask = random_mask(shape, seed, kind)
    nugget = nuggets(shape[0], seed)
    source = source_posterior(arrays, mask, cells_of(mask, kind), nugget)
    factors = arrays[0][:-1, :-1], *on_the_grid(arrays)[1:3]
    _, means = dense(factors, jnp.where(mask, arrays[3], jnp.nan), (*arrays[5:], nugget))
    assert_close(source.source_mean, means)
    expected = dense_posterior(arrays, mask, observed, means, nugget)
    assert_close(tuple(condition(source, observed, extra)), expected)


class Told(KnownTask):
    """What it is told of the target's own curves has to be `expected`."""

    expected: jax.Array

    def with_target(self, observations):
        equal = jnp.allclose(observations.nugget, self.expected, rtol=1e-12)
        return GivenGram(jnp.where(equal, self.full, jnp.nan))


@given(SEEDS, MISSING)
def test_a_task_kernel_is_told_the_nugget_of_the_target(seed, kind):
    arrays, observed, extra = off_grid_problem((3, 4, 5), 5, seed)
    mask, nugget = random_mask((3, 4, 5), seed, kind), jnp.asarray([0.1, 0.2, 0.6])
    source = source_posterior(arrays, mask, cells_of(mask, kind), nugget)
    same = observed.config[:, None] == observed.config
    expected = 0.3 * jnp.where(same, arrays[2][observed.epoch[:, None], observed.epoch], 0)
    told = dataclasses.replace(source, task=Told(source.task.full, expected))
    wrong = dataclasses.replace(source, task=Told(source.task.full, 2 * expected))
    want = condition(source, observed, extra)
    assert_close(tuple(condition(told, observed, extra)), tuple(want))
    assert jnp.isnan(condition(wrong, observed, extra).mean).all()


@given(SEEDS, MISSING)
def test_evaluations_under_way_equal_observed_means(seed, kind):
    arrays, every, extra = off_grid_problem((3, 4, 5), 5, seed)
    mask = random_mask((3, 4, 5), seed, kind)
    told = every._replace(count=jnp.asarray(2))
    rest = every.config[2:], every.epoch[2:], jnp.full(len(every.score) - 2, jnp.nan)
    source = source_posterior(arrays, mask, cells_of(mask, kind))
    got = condition(source, told, extra, Observations(*rest, jnp.asarray(3)))
    mean, _ = dense_posterior(arrays, mask, told, source.source_mean)
    believed = every.score.at[2:].set(mean[every.config[2:], every.epoch[2:]])
    every = every._replace(score=believed)
    assert_close(tuple(got), dense_posterior(arrays, mask, every, source.source_mean))


@pytest.mark.parametrize("whole", [0, 5, 11])
def test_complete_curves_have_the_posterior_of_the_kronecker_product(whole):
    arrays, observed, extra = off_grid_problem((3, 4, 5), 4, 1)
    full, config, fidelity, scores, _, *noise = on_the_grid(arrays)
    mask = np.ones(scores.shape, bool)
    source = source_posterior(arrays, mask, observed_cells(mask, whole))
    complete = SourcePosterior.of(
        KnownTask(full), config, fidelity, scores, source.source_mean, *noise
    )
    for pending in (None, observed._replace(config=observed.config[::-1])):
        want = condition(complete, observed, extra, pending)
        assert_close(condition(source, observed, extra, pending), want)
    assert_close(source.response(config), complete.response)


def test_grids_side_by_side_have_the_values_of_each():
    problems = [likelihood_problem((3, 4, 5), seed, "curves") for seed in range(3)]
    each = [(*arguments, cells) for arguments, cells in problems]
    together = jax.jit(jax.vmap(ours))(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *each))
    for index, arguments in enumerate(each):
        mine = jax.tree.map(lambda leaf: leaf[index], together)  # noqa: B023
        assert_close(mine, ours(*arguments), 1e-9)


def test_padding_and_the_order_of_curves_change_nothing():
    arguments, cells = likelihood_problem((3, 4, 5), 10, "whole")
    mask = np.isfinite(arguments[1])
    want = ours(*arguments, cells)
    there = int((cells.part < 12).sum())
    assert there < len(cells.part)
    assert_close(ours(*arguments, observed_cells(mask, 6, there)), want, 1e-11)
    assert_close(ours(*arguments, observed_cells(mask, 0)), want, 1e-11)
    assert_close(ours(*arguments, observed_cells(mask, 3)), want, 1e-11)


@given(SEEDS, MISSING)
def test_float32_agrees_to_1e3(seed, kind):
    arguments, cells = likelihood_problem((3, 4, 5), seed, kind)
    arrays, observed, extra = off_grid_problem((3, 4, 5), 4, seed)
    mask = random_mask((3, 4, 5), seed, kind)

    def values(arguments, arrays, observed, extra):
        source = source_posterior(arrays, mask, cells)
        return ours(*arguments, cells), condition(source, observed, extra)

    double = arguments, arrays, observed, extra
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, double)
    got = values(*single)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(got))
    assert_close(got, values(*double), 1e-3)


def test_what_is_below_the_noise_can_be_left_out():
    """With ten of 40 eigenvalues of a smooth fidelity kernel, values stay the same to 1e-6."""
    (factors, scores, noise), cells = likelihood_problem((3, 6, 40), 3, "curves")
    epochs = jnp.arange(1, 41) / 40
    kernel = AT2Fidelity(*map(jnp.asarray, (0.7, 0.7, 0.7)))
    scores, noise = 0.01 * scores, (jnp.full(3, 1e-4), jnp.ones(40), jnp.full(3, 1e-4))

    @partial(jax.jit, static_argnums=0)
    def in_parameters(rank):
        def value(kernel):
            few = (*factors[:2], kernel(epochs, epochs))
            return log_likelihood(*few, scores, *noise, cells, rank)

        return jax.value_and_grad(value, has_aux=True)(kernel)

    assert_close(in_parameters(10), in_parameters(40), 1e-6)
    with pytest.raises(AssertionError):
        assert_close(in_parameters(4), in_parameters(40), 1e-6)


def test_an_indefinite_task_kernel_gives_nan():
    arrays, observed = problem((3, 4, 5), 2, 10)
    full = arrays[0].at[-1, :-1].mul(10).at[:-1, -1].mul(10)
    mask = random_mask((3, 4, 5), 10, "curves")
    source = source_posterior((full, *arrays[1:]), mask, observed_cells(mask))
    assert jnp.isnan(condition(source, observed).variance).all()


def test_bases_are_orthonormal_where_columns_depend_on_one_another():
    rng = np.random.default_rng(0)
    columns = rng.normal(size=(5, 8, 4)) * 10.0 ** -np.arange(0, 12, 3)
    columns[0, 2:] = 0  # of rank 2
    columns[1, :, 3] = columns[1, :, :3].sum(1)
    columns[2] = 0
    basis = np.asarray(orthonormal(jnp.asarray(columns)))
    ranks = [2, 3, 0, 4, 4]
    for each, matrix, rank in zip(basis, columns, ranks, strict=True):
        expected = np.diag((np.arange(4) < rank).astype(float))
        np.testing.assert_allclose(each.T @ each, expected, atol=1e-14)
        np.testing.assert_allclose(each @ (each.T @ matrix), matrix, atol=1e-13)
    np.testing.assert_array_equal(basis[0, 2:], 0)
