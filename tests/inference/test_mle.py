"""Maximum likelihood: on models with a known optimum, and on data sampled from a model."""

from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpyro.distributions import constraints

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP, select_solver
from amt.gp.noise import SeparableNoise
from amt.gp.solvers import AbstractSolver, Kronecker, Solution
from amt.inference import fit_mle
from amt.kernels import ICM, FreezeThaw, Matern
from amt.parameters import parameter, stack
from tests import oracle
from tests.problems import small_curves


class Toy(eqx.Module):
    """A "model" of one number, whose log-likelihood is any function of it."""

    x: jax.Array = parameter(constraints.real, prior=None)
    function: object = eqx.field(static=True)

    def log_likelihood(self, grid, solver):
        value = self.function(self.x) * grid.scores.size
        return Solution(value, jnp.zeros(1), self.x < 1000)


def toy_grid(size=10, dtype=jnp.float64):
    return CurveGrid(
        *jax.device_put(
            (np.zeros((1, 1, size), dtype), np.zeros((1, 1), dtype), np.ones(size, dtype))
        )
    )


def fit_toy(function, starts, grid=None, dtype=jnp.float64, **options):
    starts = Toy(jax.device_put(np.asarray(starts, dtype)), function)
    fit = partial(fit_mle, solver=Kronecker(), **options)
    return jax.device_get(jax.jit(fit)(starts, grid or toy_grid(dtype=dtype)))


def parabola(x):
    return -((x - 2) ** 2)


# Which restart and step are kept


@pytest.mark.parametrize(
    ("optimizer", "starts"),
    [("adam", [-1.2, 0.9]), ("adam", [0.9, -1.2]), ("lbfgs", [-1.2, 0.9])],
)
def test_the_best_restart_is_kept(optimizer, starts):
    two_optima = lambda x: -jnp.square(x * x - 1) + x / 4  # noqa: E731
    fit = fit_toy(two_optima, starts, optimizer=optimizer, steps=200)
    assert fit.log_likelihood.shape == fit.gradient_norm.shape == (2, 200)
    assert fit.best == starts.index(0.9)
    x = fit.model.x
    assert_allclose(-4 * x * (x * x - 1) + 1 / 4, 0, atol=1e-3)  # its slope
    assert fit.model.x > 0
    # The other one ends at the worse optimum: restarts do not leak into each other.
    worse = fit.log_likelihood[starts.index(-1.2)].max()
    assert worse < fit.log_likelihood[fit.best].max() - 4


def test_the_best_step_is_kept_and_reported():
    fit = fit_toy(parabola, [0.0], steps=30, learning_rate=1.5)
    values = fit.log_likelihood[0]
    assert values[-1] < values.max()  # it overshoots
    assert_allclose(10 * parabola(fit.model.x), values.max(), rtol=1e-12)
    assert_allclose(values[0], 10 * parabola(0.0))
    assert_allclose(fit.gradient_norm[0, 0], 4.0)


@pytest.mark.parametrize(
    ("optimizer", "bad"),
    [("adam", np.nan), ("adam", np.inf), ("adam", -np.inf), ("lbfgs", np.nan)],
)
def test_a_start_without_a_finite_likelihood_never_wins(optimizer, bad):
    function = lambda x: jnp.where(x > 100, bad, parabola(x))  # noqa: E731
    fit = fit_toy(function, [200.0, -5.0, 200.0], optimizer=optimizer, steps=5)
    assert fit.best == 1
    assert fit.model.x < 100
    assert np.isfinite(fit.log_likelihood[1]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_step_to_a_likelihood_that_is_not_finite_is_never_kept(bad):
    function = lambda x: jnp.where(x > 1, bad, parabola(x))  # noqa: E731
    fit = fit_toy(function, [0.0], steps=60)
    values = fit.log_likelihood[0]
    assert not np.isfinite(values).all()
    assert 0 < fit.model.x <= 1
    assert_allclose(10 * parabola(fit.model.x), values[np.isfinite(values)].max(), rtol=1e-12)


def test_restarts_side_by_side_are_as_each_alone():
    function = lambda x: -jnp.square(x * x - 1) + x / 4  # noqa: E731
    fit = partial(fit_toy, function, steps=30)
    together = fit([-3.0, 0.2])
    for restart, start in enumerate([-3.0, 0.2]):
        alone = fit([start]).log_likelihood[0]
        assert_allclose(together.log_likelihood[restart], alone, rtol=1e-6, atol=1e-9)


def test_another_optimizer_is_refused():
    with pytest.raises(ValueError, match="adam or lbfgs, not 'sgd'"):
        fit_toy(parabola, [0.0], optimizer="sgd")


# Convergence


@pytest.mark.parametrize(
    ("start", "steps", "expected"),
    [
        (2.1, 300, True),
        (1e4, 300, False),  # too far for the learning rate
        (0.0, 40, False),
        (0.0, 15, False),  # a tenth of the steps is one
        (0.0, 5, False),
    ],
)
def test_converged_says_whether_the_likelihood_still_rises(start, steps, expected):
    fit = fit_toy(parabola, [start], steps=steps)
    if not expected:
        assert fit.log_likelihood[0, -1] - fit.log_likelihood[0, -2] > 10 * 1e-3
    assert fit.converged.tolist() == [expected]


def test_converged_is_for_each_restart_and_per_observation():
    gentle = lambda x: 0.02 * parabola(x)  # noqa: E731
    fit = fit_toy(gentle, [0.0, 2.0, -500.0], steps=100, grid=toy_grid(1000))
    assert fit.converged.tolist() == [True, True, False]


def test_a_best_model_whose_likelihood_is_not_solved_for_has_not_converged():
    for optimum, expected in ((999.0, [True, True]), (1001.0, [True, False])):
        function = lambda x: jnp.where(x > 500, -jnp.square(x - optimum), -9)  # noqa: B023, E731
        fit = fit_toy(function, [0.0, optimum], steps=5, learning_rate=1e-6)
        assert fit.best == 1
        assert fit.converged.tolist() == expected


def test_a_likelihood_that_is_never_finite_has_not_converged():
    fit = fit_toy(lambda x: x * jnp.nan, [0.0, 1.0], steps=20)
    assert not fit.converged.any()


def test_per_observation_is_per_score_that_is_there():
    grid = toy_grid()
    scores = np.zeros(grid.scores.shape)
    scores[0, 0, 4:] = np.nan
    few = CurveGrid(scores, grid.features, grid.epochs, False)
    fit, whole = (fit_toy(parabola, [0.0], g, steps=2) for g in (few, grid))
    assert_allclose(fit.gradient_norm[0, 0], 10 / 4 * whole.gradient_norm[0, 0])


def test_incomplete_curves_are_fitted_as_by_dense_algebra():
    curves = small_curves()
    rng = np.random.default_rng(0)
    length = np.where(rng.random((4, 6)) < 0.5, rng.integers(0, 5, (4, 6)), 5)
    scores = np.where(np.arange(5) < length[..., None], curves.scores, np.nan)
    grid = CurveGrid.of(replace(curves, scores=scores))
    options = {"config": "matern", "noise": "task_epoch", "nugget": True}
    start = MultiTaskGP.init(curves, jax.random.key(0), **options)
    starts = stack([start])
    solver = select_solver(start, grid).solver
    got, want = (
        jax.device_get(eqx.filter_jit(fit_mle)(starts, grid, solver=solver, steps=40))
        for solver in (solver, ByOracle())
    )
    assert_allclose(got.log_likelihood, want.log_likelihood, rtol=1e-6)
    assert got.log_likelihood.max() > got.log_likelihood[0, 0] + 10
    assert got.solver.rank == solver.rank


class ByOracle(AbstractSolver):
    """Likelihoods by the dense algebra of the tests."""

    def solve(self, factors, scores):
        return Solution(*oracle.solve(factors, scores), jnp.asarray(True))

    def posterior(self, sources, rank=None):
        raise AssertionError("the fit asks for likelihoods alone")


# Data sampled from a model

SHAPE = TASKS, CONFIGS, EPOCHS = 6, 30, 6
NOISE, LENGTHSCALE = 0.02, (0.3, 1.2)


def model(lengthscale, noise, a, loadings, dtype=jnp.float64):
    array = lambda values: jax.device_put(np.asarray(values, dtype))  # noqa: E731
    return MultiTaskGP(
        task=ICM(loadings=array(loadings), kappa=array([0.2] * TASKS)),
        config=Matern(lengthscale=array(lengthscale)),
        fidelity=FreezeThaw(a=array(a), b=array(0.5)),
        noise=SeparableNoise(variance=array([noise]), power=None),
    )


@pytest.fixture(scope="module")
def sampled():
    """Scores of a known model, and three starts far from it."""
    rng = np.random.default_rng(0)
    truth = model(LENGTHSCALE, NOISE, 1.0, rng.normal(size=(TASKS, 1)))
    features, epochs = rng.uniform(size=(CONFIGS, 2)), np.linspace(1 / EPOCHS, 1, EPOCHS)

    @jax.jit
    def grams_of(model, features, epochs):
        return (
            model.task.gram(),
            model.config(features, features),
            model.fidelity(epochs, epochs),
        )

    grams = grams_of(truth, features, epochs)
    roots = [np.linalg.cholesky(np.asarray(g) + 1e-10 * np.eye(len(g))) for g in grams]
    latent = np.einsum("ti,cj,ek,ijk->tce", *roots, rng.normal(size=SHAPE))
    means = rng.normal(size=(TASKS, 1, 1))
    scores = means + latent + NOISE**0.5 * rng.normal(size=SHAPE)
    grid = CurveGrid(*jax.device_put((scores, features, epochs)))
    starts = [
        model((l, l), noise, 0.5, 1 + 0.3 * rng.normal(size=(TASKS, 1)))
        for l, noise in ((30.0, 10.0), (1.0, 1e-3), (0.5, 0.3))
    ]
    return truth, grid, jax.device_put(jax.tree.map(lambda *leaves: np.stack(leaves), *starts))


fit_sampled = jax.jit(fit_mle, static_argnames=("optimizer", "steps"))


@pytest.fixture(scope="module")
def by_adam(sampled):
    _, grid, starts = sampled
    return jax.device_get(fit_sampled(starts, grid))


def test_the_likelihood_rises_from_every_start(sampled, by_adam):
    values = np.asarray(by_adam.log_likelihood)
    assert values.shape == (3, 300)
    assert np.isfinite(values).all()
    assert np.isfinite(by_adam.gradient_norm).all()
    assert (values[:, -1] > values[:, 0] + 100).all()
    # Nearly every step is a step up, and the end is the best.
    assert ((np.diff(values, axis=1) > -0.01).mean(1) > 0.8).all()
    assert (values.max(1) - values[:, -1] < 0.1).all()
    assert (by_adam.gradient_norm[:, -1] < by_adam.gradient_norm[:, 0]).all()
    assert by_adam.converged[by_adam.best]
    assert by_adam.best == values.max(1).argmax()


def test_the_model_has_the_likelihood_reported(sampled, by_adam):
    truth, grid, _ = sampled
    value = jax.jit(lambda m: m.log_likelihood(grid).value)
    best = by_adam.log_likelihood[by_adam.best].max()
    assert_allclose(value(by_adam.model), best, rtol=1e-8)
    assert best > value(truth)  # as the truth is one of the models


def test_the_noise_and_the_lengthscales_are_recovered(by_adam):
    fitted = by_adam.model
    assert_allclose(fitted.noise.variance, NOISE, rtol=0.15)
    assert_allclose(np.log(fitted.config.lengthscale), np.log(LENGTHSCALE), atol=0.4)


def test_lbfgs_finds_as_good_an_optimum(sampled, by_adam):
    _, grid, starts = sampled
    starts = jax.tree.map(lambda leaf: leaf[1:2], jax.device_get(starts))
    fit = jax.device_get(fit_sampled(starts, grid, optimizer="lbfgs", steps=50))
    assert np.isfinite(fit.log_likelihood).all()
    best, by = fit.log_likelihood[fit.best].max(), by_adam.log_likelihood[by_adam.best].max()
    assert abs(best - by) < 1e-3 * np.prod(SHAPE)
    assert (np.diff(fit.log_likelihood[fit.best]) > -1e-6).all()
    assert_allclose(fit.model.noise.variance, by_adam.model.noise.variance, rtol=0.02)


def test_float32_finds_as_good_an_optimum(sampled, by_adam):
    _, grid, starts = sampled
    single = jax.tree.map(lambda a: np.asarray(a, np.float32), (starts, grid))
    fit = jax.device_get(fit_sampled(*single))
    leaves = jax.tree.leaves(fit.model)
    assert all(leaf.dtype == jnp.float32 for leaf in (*leaves, fit.log_likelihood))
    assert np.isfinite(fit.log_likelihood).all()
    best, by = fit.log_likelihood[fit.best].max(), by_adam.log_likelihood[by_adam.best].max()
    assert abs(best - by) < 2e-3 * np.prod(SHAPE)
    assert_allclose(fit.model.noise.variance, by_adam.model.noise.variance, rtol=0.05)


def test_one_step_is_enough_to_start():
    fit = fit_toy(lambda x: -jnp.square(x - 2.0), [1.0], steps=1)
    assert float(fit.model.x) == 1.0
