"""The target's posterior against a dense Gaussian process on all sources and the target."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tinygp
from hypothesis import given
from hypothesis import strategies as st

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.posterior import (
    Ensemble,
    Observations,
    OffGrid,
    SourcePosterior,
    mean_prior,
    numerical_rank,
)
from amt.gp.solvers.kronecker import outer
from amt.kernels.task import TaskKernel
from tests.problems import small_curves

CAPACITY = 6


class KnownTask(TaskKernel):
    """Task covariances of the sources and the target, whatever is observed."""

    full: jax.Array

    def gram(self):
        return self.full[:-1, :-1]

    def with_target(self, observations):
        return Full(self.full)


class Full(TaskKernel):
    full: jax.Array

    def gram(self):
        return self.full

    with_target = None  # pyright: ignore


class Covariance(tinygp.kernels.Kernel):
    """Of f: the product kernel, and the variance of the mean among points of the target."""

    task: jax.Array
    config: jax.Array
    fidelity: jax.Array
    mean_variance: jax.Array

    def evaluate(self, X1, X2):
        target = self.task.shape[0] - 1
        (t, c, e), (u, d, f) = X1, X2
        both = (t == target) & (u == target)
        product = self.task[t, u] * self.config[c, d] * self.fidelity[e, f]
        return product + jnp.where(both, self.mean_variance, 0)


def problem(shape, count, seed, degenerate=False):
    """Gram matrices (the target's in the last row), scores, means, noise and observations."""
    rng = np.random.default_rng(seed)
    tasks, configs, epochs = shape

    def gram(n, rank=None):
        root = rng.normal(size=(n, rank or n))
        return root @ root.T / root.shape[1]

    config = gram(configs)
    if degenerate:
        twice = rng.integers(0, configs, configs)
        config = config[np.ix_(twice, twice)]
    cells = rng.permutation(configs * epochs)[:CAPACITY]
    # What is beyond the count is padding, whatever it holds.
    observed = Observations(
        jnp.asarray(np.resize(cells // epochs, CAPACITY)),
        jnp.asarray(np.resize(cells % epochs, CAPACITY)),
        jnp.asarray(rng.normal(size=CAPACITY)),
        jnp.asarray(min(count, len(cells))),
    )
    arrays = (
        gram(tasks + 1),
        config,
        gram(epochs, 1 if degenerate else None),
        rng.normal(size=shape),
        rng.normal(size=tasks),
        np.exp(rng.normal(-2, 0.5, tasks)),
        np.exp(rng.normal(0, 0.5, epochs)),
    )
    return tuple(map(jnp.asarray, arrays)), observed


@partial(jax.jit, static_argnames="rank")
def ours(arrays, observed, rank=None, extra=None, pending=None):
    source = SourcePosterior.of(KnownTask(arrays[0]), *arrays[1:], rank=rank)
    return source.condition(observed, extra, pending)


@partial(jax.jit, static_argnames="count")
def dense(arrays, observed, count):
    task, config, fidelity, scores, means, task_noise, epoch_noise = arrays
    shape = scores.shape
    one = len(means) == 1
    prior_mean = means.mean()
    prior_variance = jnp.var(scores) if one else jnp.var(means, ddof=1)

    grid = jnp.meshgrid(*(jnp.arange(n) for n in shape), indexing="ij")
    target = jnp.full(count, shape[0]), observed.config[:count], observed.epoch[:count]
    X = tuple(jnp.concatenate([g.ravel(), t]) for g, t in zip(grid, target, strict=True))
    noise = jnp.concatenate(
        [
            outer(task_noise, jnp.ones(shape[1]), epoch_noise).ravel(),
            jnp.exp(jnp.log(task_noise).mean()) * epoch_noise[target[2]],
        ]
    )
    mean = jnp.append(means, prior_mean)
    kernel = Covariance(task, config, fidelity, prior_variance)
    gp = tinygp.GaussianProcess(kernel, X, diag=noise, mean=lambda x: mean[x[0]])
    c, e = jnp.meshgrid(jnp.arange(len(config)), jnp.arange(shape[2]), indexing="ij")
    test = jnp.full(c.size, shape[0]), c.ravel(), e.ravel()
    y = jnp.concatenate([scores.ravel(), observed.score[:count]])
    posterior = gp.condition(y, test, diag=0.0).gp
    return posterior.loc.reshape(c.shape), posterior.variance.reshape(c.shape)


SHAPES = st.sampled_from([(1, 3, 4), (3, 4, 3), (3, 1, 7)])


@given(SHAPES, st.sampled_from([0, 1, 5]), st.integers(0, 2**31 - 1), st.booleans())
def test_posterior_equals_dense_algebra(shape, count, seed, degenerate):
    arrays, observed = problem(shape, count, seed, degenerate)
    got = ours(arrays, observed)
    mean, variance = dense(arrays, observed, int(observed.count))
    np.testing.assert_allclose(got.mean, mean, rtol=1e-8, atol=1e-8 * jnp.abs(mean).max())
    np.testing.assert_allclose(got.variance, variance, rtol=1e-8, atol=1e-8 * variance.max())


@given(SHAPES, st.integers(0, 2**31 - 1))
def test_gradients_in_the_scores_equal_dense_algebra(shape, seed):
    arrays, observed = problem(shape, 5, seed)
    weights = jnp.asarray(np.random.default_rng(seed).normal(size=shape[1:]))

    def functional(posterior, scores):
        mean, _ = posterior(arrays, observed._replace(score=scores))
        return jnp.sum(weights * mean)

    got = jax.grad(lambda s: functional(ours, s))(observed.score)
    want = jax.grad(lambda s: functional(partial(dense, count=5), s))(observed.score)
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8 * jnp.abs(want).max())


def off_grid_problem(shape, count, seed):
    """With more configurations than the sources have; the last one cannot have observations."""
    tasks, configs, epochs = shape
    more = configs + 4
    (_, config, _, _, *rest), observed = problem((tasks, more, epochs), count, seed)
    (task, _, fidelity, scores, *_), _ = problem(shape, 0, seed)
    observed = observed._replace(config=observed.config % (more - 1))
    extra = OffGrid(
        config[configs:, :configs], config[configs:-1, configs:], jnp.diagonal(config)[configs:]
    )
    return (task, config, fidelity, scores, *rest), observed, extra


def on_the_grid(arrays):
    task, config, *rest = arrays
    configs = arrays[3].shape[1]
    return task, config[:configs, :configs], *rest


@given(SHAPES, st.sampled_from([0, 1, 5]), st.integers(0, 2**31 - 1))
def test_configurations_off_the_grid_equal_dense_algebra(shape, count, seed):
    arrays, observed, extra = off_grid_problem(shape, count, seed)
    got = ours(on_the_grid(arrays), observed, extra=extra)
    mean, variance = dense(arrays, observed, int(observed.count))
    np.testing.assert_allclose(got.mean, mean, rtol=1e-8, atol=1e-8 * jnp.abs(mean).max())
    np.testing.assert_allclose(got.variance, variance, rtol=1e-8, atol=1e-8 * variance.max())


@given(SHAPES, st.integers(0, 2**31 - 1))
def test_pending_evaluations_equal_observed_means(shape, seed):
    arrays, every, extra = off_grid_problem(shape, 5, seed)
    observed = every._replace(count=jnp.asarray(2))
    believed = every.config[2:], every.epoch[2:], jnp.full(CAPACITY - 2, jnp.nan)
    pending = Observations(*believed, jnp.asarray(3))
    got = ours(on_the_grid(arrays), observed, extra=extra, pending=pending)
    mean, _ = dense(arrays, observed, 2)
    score = every.score.at[2:].set(mean[every.config[2:], every.epoch[2:]])
    mean, variance = dense(arrays, every._replace(score=score), 5)
    np.testing.assert_allclose(got.mean, mean, rtol=1e-8, atol=1e-8 * jnp.abs(mean).max())
    np.testing.assert_allclose(got.variance, variance, rtol=1e-8, atol=1e-8 * variance.max())


@pytest.mark.parametrize("task", ["at2", "icm", "rank", "latent"])
def test_a_grid_configuration_given_as_one_off_the_grid_is_the_same(task):
    """But for the sources' scores there, which only a kernel that compares scores asks for."""
    curves = small_curves()
    grid = CurveGrid.of(curves)
    model = MultiTaskGP.init(curves, jax.random.key(0), task=task, config="matern")
    told = Observations.empty(4, jnp.dtype(jnp.float64)).append(1, 2, 0.3).append(3, 0, 0.2)  # pyright: ignore
    scored = task in ("at2", "rank")
    twin = told if scored else told._replace(config=told.config + curves.num_configs)

    @jax.jit
    def posteriors():
        source = model.source_posterior(grid)
        extra = OffGrid.of(model.config, grid.features, grid.features)
        one = jax.tree.map(lambda leaf: leaf[None], (source, extra))
        together = Ensemble(one[0]).condition(twin, one[1])
        return source.condition(twin, extra), together, source.condition(told)

    for got, draws, want in zip(*posteriors(), strict=True):
        np.testing.assert_allclose(got, jnp.concatenate([want, want]), atol=1e-6)
        np.testing.assert_allclose(draws[0], got, atol=1e-6)


def test_one_source_of_incomplete_curves_has_the_variance_of_its_scores():
    mean, variance = mean_prior(jnp.asarray([0.4]), jnp.asarray([[[0.1, jnp.nan, 0.5]]]))
    np.testing.assert_allclose((mean, variance), (0.4, 0.04))


def test_kernels_get_a_clear_error_instead_of_wrong_gradients():
    arrays, observed = problem((2, 3, 3), 2, 0)
    with pytest.raises(TypeError, match="no derivative with respect to kernels"):
        jax.grad(lambda gram: ours((gram, *arrays[1:]), observed).mean.sum())(arrays[0])


@given(SHAPES, st.sampled_from([0, 1, 5]), st.integers(0, 2**31 - 1), st.booleans())
def test_float32_agrees_to_1e3(shape, count, seed, degenerate):
    problem64 = problem(shape, count, seed, degenerate)
    single = jax.tree.map(
        lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, problem64
    )
    got, want = ours(*single), ours(*problem64)
    assert got.mean.dtype == got.variance.dtype == jnp.float32
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * jnp.abs(b).max())


def test_numerical_rank_changes_nothing():
    arrays, observed = problem((3, 4, 7), 5, 1, degenerate=True)
    assert numerical_rank(arrays[2]) == 1
    for got, want in zip(ours(arrays, observed, rank=1), ours(arrays, observed), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-10)


def test_padding_and_batching_change_nothing():
    problems = [problem((3, 4, 3), 4, seed) for seed in range(3)]
    one_by_one = [ours(arrays, observed.padded(9)) for arrays, observed in problems]
    together = jax.vmap(ours)(*jax.tree.map(lambda *leaves: jnp.stack(leaves), *problems))
    for index, single in enumerate(one_by_one):
        np.testing.assert_allclose(together.mean[index], single.mean, rtol=1e-10)
        np.testing.assert_allclose(together.variance[index], single.variance, rtol=1e-10)


def test_observations_append_and_pad():
    full = Observations.empty(2, jnp.dtype(jnp.float64))
    for config, epoch in [(3, 0), (1, 2), (5, 5)]:
        full = full.append(config, epoch, config + 0.5)  # pyright: ignore
    np.testing.assert_array_equal(full.config, [3, 1])
    np.testing.assert_array_equal(full.epoch, [0, 2])
    np.testing.assert_array_equal(full.score, [3.5, 1.5])
    assert full.mask.all()
    assert full._replace(count=jnp.asarray(1)).padded(4).mask.tolist() == [
        True,
        False,
        False,
        False,
    ]


def test_an_indefinite_task_kernel_gives_nan_not_a_wrong_answer():
    arrays, observed = problem((2, 3, 4), 3, 0)
    indefinite = jnp.asarray([[1.0, 0, 0.9], [0, 1, 0.9], [0.9, 0.9, 1]])
    posterior = ours((100 * indefinite, *arrays[1:]), observed)
    assert jnp.isnan(posterior.variance).all()
