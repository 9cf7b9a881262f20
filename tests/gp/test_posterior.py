"""Every source posterior's predictions of a target and of the sources, against dense algebra."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amt.gp.grid import CurveGrid
from amt.gp.inducing import InducingPoints, InducingPosterior, SparseGP
from amt.gp.mixture import Mixture
from amt.gp.model import MultiTaskGP, select_solver
from amt.gp.observations import Observations
from amt.gp.solvers import Dense, Iterative, Kronecker, Settings
from amt.gp.spectral import numerical_rank
from tests import oracle
from tests.gp.problems import (
    CAPACITY,
    CONFIGS,
    COUNTS,
    EPOCHS,
    EXTRA,
    SEEDS,
    SHAPE,
    assert_close,
    extra_features,
    in_float32,
    observed_curves_of,
    random_observations,
    random_sources,
    with_full,
)
from tests.problems import small_curves

EXACT = Iterative(Settings(tolerance=1e-10, rank=None, lanczos=1, samples=None))


class GivenNoise(eqx.Module):
    """The noise of tasks and epochs, in the place of `SeparableNoise`."""

    task: jax.Array
    epoch: jax.Array

    def factors(self, num_tasks, epochs):
        return self.task, self.epoch


class EveryPoint(eqx.Module):
    """Inducing points everywhere and their best q, in the place of a solver."""

    def posterior(self, sources, rank=None):
        inputs, factors = sources.inputs, sources.factors
        noise = GivenNoise(factors.task_noise, factors.epoch_noise)
        model = MultiTaskGP(sources.task, inputs.config, inputs.fidelity, noise)  # pyright: ignore
        grid = CurveGrid(sources.scores, inputs.features, inputs.epochs)
        points = InducingPoints.at(grid, jnp.arange(grid.scores.size))
        gp = SparseGP.init(model, grid, points, jitter=1e-13)
        means = oracle.source_means(sources)
        return InducingPosterior.of(
            eqx.tree_at(lambda gp: gp.mean, gp, means).with_optimal(grid), grid, rank
        )


# Solver, which scores may be missing, whether there may be a nugget, and a tolerance.
KINDS = {
    "kronecker": (lambda sources, missing: Kronecker(), [None], False, 1e-8),
    "dense": (lambda sources, missing: Dense(), [None], False, 1e-8),
    "observed": (observed_curves_of, [None, "anywhere", "curves", "few"], True, 1e-8),
    # Of other shapes. Off the grid and with pending evaluations: test_observed_curves.
    "whole": (observed_curves_of, ["whole"], True, 1e-8),
    "iterative": (lambda sources, missing: EXACT, [None, "anywhere", "curves"], False, 1e-5),
    "inducing": (lambda sources, missing: EveryPoint(), [None], False, 1e-5),
}
every_kind = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "whole"])
# Of singular kernels, the covariance of inducing points would be.
never_inducing = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind not in ("inducing", "whole")]
)


def problem(kind, seed, shape=SHAPE, **options):
    """A solver and sources that it is for, and its tolerance."""
    make, missing, nugget, tolerance = KINDS[kind]
    missing = missing[seed % len(missing)]
    sources = random_sources(seed, missing, shape, nugget=nugget, **options)
    return make(sources, missing), sources, tolerance


@eqx.filter_jit
def prepare(solver, sources, rank=None):
    return solver.posterior(sources, rank)


@eqx.filter_jit
def condition(posterior, observations, extra=None, pending=None, observable=None):
    return posterior.condition(observations, extra, pending, observable=observable)


@eqx.filter_jit
def curves(posterior, features=None, epochs=None):
    return posterior.curves(features, epochs)


def assert_equal(got, want, tolerance):
    """Means and variances; those of `amt` are compared to the scale of each."""
    for mine, theirs in zip(*jax.device_get((got[:2], want[:2])), strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance * scale)


def check_on_grid(kind, seed, count, shape=SHAPE, **options):
    solver, sources, tolerance = problem(kind, seed, shape, **options)
    observed = random_observations(seed, count, *shape[1:])
    posterior = prepare(solver, sources)
    want = oracle.condition(sources, sources.task.full, observed)
    assert_equal(condition(posterior, observed), want, tolerance)
    assert_close(posterior.source_mean, oracle.source_means(sources), tolerance)
    noise = np.exp(np.log(sources.factors.task_noise).mean()) * np.asarray(
        sources.factors.epoch_noise
    )
    np.testing.assert_allclose(posterior.noise, noise)


@pytest.mark.parametrize("kind", KINDS)
@given(SEEDS, COUNTS, st.booleans())
def test_posterior_equals_dense_algebra(kind, seed, count, degenerate):
    check_on_grid(kind, seed, count, degenerate=degenerate and kind != "inducing")


@every_kind
@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 1, 7), (1, 1, 1)])
def test_one_task_or_one_configuration(kind, shape):
    check_on_grid(kind, 0, 4, shape)


@every_kind
@given(SEEDS, COUNTS)
def test_configurations_off_the_grid_equal_dense_algebra(kind, seed, count):
    """The last of them cannot have observations."""
    solver, sources, tolerance = problem(kind, seed)
    observed, extra = random_observations(seed, count, CONFIGS + EXTRA - 1), extra_features()
    want = oracle.condition(sources, sources.task.full, observed, extra)
    posterior = prepare(solver, sources)
    got = condition(posterior, observed, extra, observable=EXTRA - 1)
    assert_equal(got, want, tolerance)


@every_kind
@given(SEEDS, st.integers(0, 3))
def test_pending_evaluations_equal_observed_means(kind, seed, told):
    """Three evaluations are under way, and what is behind them is padding."""
    solver, sources, tolerance = problem(kind, seed)
    every, extra = random_observations(seed, 6, CONFIGS + EXTRA), extra_features()
    observed = every._replace(count=np.asarray(told))
    rest = every.config[::-1], every.epoch[::-1], np.full(CAPACITY, np.nan)
    pending = Observations(*rest, np.asarray(3))
    want = oracle.condition(sources, sources.task.full, observed, extra, pending)
    posterior = prepare(solver, sources)
    got = jax.device_get(condition(posterior, observed, extra, pending))
    assert_equal(got, want, tolerance)
    none = pending._replace(count=np.asarray(0))
    before = jax.device_get(condition(posterior, observed, extra, none))
    np.testing.assert_allclose(got.mean, before.mean, rtol=tolerance, atol=tolerance)
    at = pending.config[:3], pending.epoch[:3]
    assert (got.variance[at] < before.variance[at] - 1e-6).all()


@every_kind
@given(SEEDS)
def test_curves_equal_dense_algebra(kind, seed):
    """On the grid, and at new configurations and epochs beside one of the grid."""
    solver, sources, tolerance = problem(kind, seed)
    posterior = prepare(solver, sources)
    features, epochs = extra_features(), np.append(EPOCHS + np.arange(2.0), 1.0)
    assert_equal(curves(posterior), oracle.curves(sources), tolerance)
    want = oracle.curves(sources, features, epochs)
    assert_equal(curves(posterior, features, epochs), want, tolerance)
    if sources.factors.nugget is None:  # else it would be another curve of the same configuration
        features = sources.inputs.features
        want = oracle.curves(sources, features, epochs)
        assert_equal(curves(posterior, features, epochs), want, tolerance)


@every_kind
def test_curves_at_new_configurations_or_new_epochs_alone(kind):
    solver, sources, tolerance = problem(kind, 1)
    posterior = prepare(solver, sources)
    features, epochs = extra_features(), np.append(EPOCHS + np.arange(2.0), 1.0)
    both = oracle.curves(sources, np.concatenate([sources.inputs.features, features]), epochs)
    want = jax.tree.map(lambda leaf: leaf[:, :CONFIGS], jax.device_get(both))
    assert_equal(curves(posterior, None, epochs), want, tolerance)
    want = oracle.curves(sources, features)
    assert_equal(curves(posterior, features), want, tolerance)


@never_inducing
def test_curves_with_singular_kernels_equal_dense_algebra(kind):
    """Configurations alike, and a fidelity of rank 1, at other configurations and epochs too."""
    solver, sources, tolerance = problem(kind, 5, degenerate=True)
    posterior, features = prepare(solver, sources), extra_features()
    epochs = np.append(EPOCHS + np.arange(2.0), 1.0)
    want = oracle.curves(sources, features, epochs)
    assert_equal(curves(posterior, features, epochs), want, max(tolerance, 1e-7))


def incomplete(curves, seed=0):
    """One curve in four is missing, one in two ends early; every task keeps a whole one."""
    rng = np.random.default_rng(seed)
    length = np.where(rng.random(curves.scores.shape[:2]) < 0.5, rng.integers(1, 5), 5)
    length[rng.random(length.shape) < 0.25] = 0
    length[:, 0] = 5
    scores = np.where(np.arange(5) < length[:, :, None], curves.scores, np.nan)
    return dataclasses.replace(curves, scores=scores)


def start(curves, **options):
    """With noise, and a nugget where there is one, that differ by task; noise by epoch too."""
    model = MultiTaskGP.init(curves, jax.random.key(1), noise="task_epoch", **options)
    if model.nugget is not None:
        model = dataclasses.replace(model, nugget=np.linspace(0.2, 0.5, curves.num_tasks))
    noise = dataclasses.replace(
        model.noise,
        variance=np.linspace(1e-3, 4e-3, curves.num_tasks),
        power=np.asarray(0.3),
    )
    return dataclasses.replace(model, noise=noise)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    "kernels",
    [
        {},
        {"task": "icm", "config": "matern", "fidelity": "matern"},
        {"task": "latent", "config": "tree", "fidelity": "freeze_thaw", "nugget": True},
    ],
    ids=["at2", "icm", "nugget"],
)
def test_curves_of_a_model_equal_dense_algebra(whole, kernels):
    curves = small_curves() if whole else incomplete(small_curves())
    grid = CurveGrid.of(curves)
    model = start(curves, **kernels)
    solver, _ = select_solver(model, grid)

    @jax.jit
    def run(model):
        sources = model.sources(grid)
        return sources, solver.posterior(sources).curves()

    sources, got = run(model)
    want = oracle.curves(sources)
    np.testing.assert_allclose(got.mean, want.mean, atol=1e-6)
    np.testing.assert_allclose(got.variance, want.variance, rtol=1e-5, atol=1e-8)


def test_missing_scores_are_less_certain_than_observed_ones():
    curves = incomplete(small_curves())
    model, grid = start(curves), CurveGrid.of(curves)
    prediction = jax.jit(lambda: model.source_posterior(grid).curves())()
    last = np.asarray(prediction.variance[:, :, -1])
    seen = np.isfinite(curves.scores[:, :, -1])
    assert (last[~seen].min(), last[~seen].mean()) > (last[seen].min(), 2 * last[seen].mean())


@jax.jit
def gradients(posterior, sources, observed, weights):
    def gradient(condition):
        total = lambda score: jnp.sum(weights * condition(observed._replace(score=score)).mean)  # noqa: E731
        return jax.grad(total)(observed.score)

    dense = partial(oracle.condition, sources, sources.task.full)
    return gradient(partial(condition, posterior)), gradient(dense)


@given(SEEDS)
def test_gradients_in_the_scores_equal_dense_algebra(seed):
    solver, sources, _ = problem("kronecker", seed)
    observed = random_observations(seed, 5)
    weights = np.random.default_rng(seed).normal(size=SHAPE[1:])
    got, want = jax.device_get(gradients(prepare(solver, sources), sources, observed, weights))
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8 * np.abs(want).max())


@pytest.mark.parametrize("task", ["at2", "icm", "rank", "latent"])
def test_a_grid_configuration_given_as_one_off_the_grid_is_the_same(task):
    """But for the sources' scores there, which only a kernel that compares scores asks for."""
    sources = small_curves()
    grid = CurveGrid.of(sources)
    model = MultiTaskGP.init(sources, jax.random.key(0), task=task, config="matern")
    told = Observations.of([(1, 2, 0.3), (3, 0, 0.2)], 4, jnp.dtype(jnp.float64))
    scored = task in ("at2", "rank")
    twin = told if scored else told._replace(config=np.asarray(told.config) + sources.num_configs)

    @jax.jit
    def posteriors():
        source = model.source_posterior(grid)
        together = Mixture.of([source]).condition(twin, grid.features)
        return source.condition(twin, grid.features), together, source.condition(told)

    got, mixed, want = jax.device_get(posteriors())
    for name in ("mean", "variance"):
        alone, twice = getattr(got, name), getattr(want, name)
        np.testing.assert_allclose(alone, np.concatenate([twice, twice]), atol=1e-6)
        np.testing.assert_allclose(getattr(mixed, name)[0], alone, atol=1e-6)


@every_kind
def test_without_its_kernels_it_is_the_same_on_the_grid_alone(kind):
    solver, sources, _ = problem(kind, 1)
    observed, posterior = random_observations(1, 4), prepare(solver, sources)
    reduced = posterior.on_grid()
    assert_close(condition(reduced, observed), condition(posterior, observed), 1e-12)
    assert jax.tree.leaves(reduced.sources.inputs) == []
    for call in (
        lambda: reduced.condition(observed, extra_features()),
        lambda: reduced.curves(extra_features()),
        lambda: reduced.curves(None, np.arange(2.0)),
    ):
        with pytest.raises(ValueError, match="reduced to its grid"):
            call()


def test_kernels_get_a_clear_error_instead_of_wrong_gradients():
    solver, sources, _ = problem("kronecker", 0)
    observed = random_observations(0, 2)
    mean = lambda full: condition(prepare(solver, with_full(sources, full)), observed).mean.sum()  # noqa: E731
    with pytest.raises(TypeError, match="no derivative with respect to kernels"):
        jax.grad(mean)(sources.task.full)


@given(SEEDS, COUNTS, st.booleans())
def test_float32_agrees_to_1e3(seed, count, degenerate):
    solver, sources, _ = problem("kronecker", seed, degenerate=degenerate)
    double = sources, random_observations(seed, count)
    got, want = (
        jax.device_get(condition(prepare(solver, s), observed))
        for s, observed in (in_float32(double), double)
    )
    assert got.mean.dtype == got.variance.dtype == jnp.float32
    for a, b in zip(got[:2], want[:2], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max())


@never_inducing
def test_numerical_rank_changes_nothing(kind):
    solver, sources, tolerance = problem(kind, 5, degenerate=True)
    assert numerical_rank(np.asarray(sources.factors.grams.fidelity)) == 1
    observed = random_observations(5, 5)
    extra, observable = extra_features(), EXTRA - 1
    got = condition(prepare(solver, sources, 1), observed, extra, observable=observable)
    want = condition(prepare(solver, sources), observed, extra, observable=observable)
    tolerance = tolerance if kind == "iterative" else 1e-9
    for mine, theirs in zip(got[:2], want[:2], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("kind", ["kronecker", "dense", "inducing"])
def test_padding_and_batching_change_nothing(kind):
    problems = [problem(kind, seed) for seed in range(3)]
    observed = [random_observations(seed, 4) for seed in range(3)]
    posteriors = [prepare(solver, sources) for solver, sources, _ in problems]
    pad = lambda leaf: np.pad(leaf, (0, 3)) if leaf.ndim else leaf  # noqa: E731
    one_by_one = [
        condition(posterior, jax.tree.map(pad, seen))
        for posterior, seen in zip(posteriors, observed, strict=True)
    ]
    stacked = jax.tree.map(
        lambda *leaves: np.stack(leaves), *zip(posteriors, observed, strict=True)
    )
    together = jax.jit(jax.vmap(lambda posterior, seen: posterior.condition(seen)))(*stacked)
    together = jax.device_get(together)
    for index, single in enumerate(one_by_one):
        np.testing.assert_allclose(together.mean[index], single.mean, rtol=1e-10)
        np.testing.assert_allclose(together.variance[index], single.variance, rtol=1e-10)


@every_kind
def test_an_indefinite_task_kernel_gives_nan_not_a_wrong_answer(kind):
    """A target that correlates with the sources by more than 1."""
    solver, sources, _ = problem(kind, 10)
    full = np.array(sources.task.full)
    full[-1, :-1] *= 10
    full[:-1, -1] *= 10
    observed = random_observations(10, 3)
    posterior = condition(prepare(solver, with_full(sources, full)), observed)
    assert np.isnan(posterior.variance).all()
