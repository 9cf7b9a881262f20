"""The model's likelihood against a dense Gaussian process, its solvers, and what it refuses."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP, select_solver
from amt.gp.observations import Observations
from amt.gp.solvers import Dense, Iterative, Kronecker, ObservedCurves, Settings
from amt.gp.solvers.iterative import IterativePosterior
from amt.gp.solvers.kronecker import KroneckerPosterior
from amt.gp.solvers.observed_curves import ObservedCurvesPosterior
from amt.inference import INFERENCE
from amt.inference.nuts import sample_nuts
from amt.inference.svgp import fit_svgp
from amt.inference.variational import fit_svi
from amt.kernels import KERNELS
from amt.parameters import unconstrain
from tests import oracle
from tests.problems import moved, small_curves

NOISES = ["homoscedastic", "task", "epoch", "task_epoch"]
COMPLETE = small_curves()


def without(curves, missing):
    return dataclasses.replace(curves, scores=np.where(missing, np.nan, curves.scores))


# Every kernel is in one of them.
KERNEL_NAMES = [
    {axis: list(KERNELS[axis])[index] for axis in ("task", "config", "fidelity")}
    for index in range(4)
]


@eqx.filter_jit
def _dense_with_gradients(model, grid):
    free, constrain = unconstrain(model)

    def value(free):
        return oracle.profile(oracle.of_model(constrain(free), grid), grid.scores)

    return jax.value_and_grad(value, has_aux=True)(free)


def dense_with_gradients(model, grid):
    """Value, means, and gradients of unconstrained values at these means, by the oracle.

    One program for a grid, whichever of its scores are missing.
    """
    return jax.device_get(_dense_with_gradients(model, dataclasses.replace(grid, complete=False)))


def with_gradients(model, grid, solver=None):
    free, constrain = unconstrain(model)

    def value(free):
        value, means, _ = constrain(free).log_likelihood(grid, solver)
        return value, means

    return jax.device_get(jax.jit(jax.value_and_grad(value, has_aux=True))(free))


def assert_gradients_close(gradients, slow, tolerance=1e-8):
    for got, want in zip(gradients, slow, strict=True):
        atol = tolerance * (1 + np.abs(want).max())
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=atol)


@pytest.mark.parametrize(
    ("noise", "kernels"),
    [*zip(NOISES, KERNEL_NAMES, strict=True), ("task", {"task": "icm", "nugget": True})],
)
def test_likelihood_and_gradients_equal_dense_algebra(noise, kernels):
    grid = CurveGrid.of(COMPLETE)
    model = MultiTaskGP.init(COMPLETE, jax.random.key(0), noise=noise, **kernels)
    model = moved(model, 0, 0.3)
    (value, means), gradients = with_gradients(model, grid)
    (expected, expected_means), slow = dense_with_gradients(model, grid)
    np.testing.assert_allclose(value, expected, rtol=1e-8)
    assert_gradients_close(gradients, slow)
    # These means are at the maximum of the dense likelihood.
    np.testing.assert_allclose(means, expected_means, rtol=1e-6, atol=1e-6)


def test_the_means_are_at_the_maximum_of_the_likelihood():
    """Moving any of them lowers the dense likelihood."""
    grid = CurveGrid.of(COMPLETE)
    model = MultiTaskGP.init(COMPLETE, jax.random.key(0), config="matern", task="icm")
    model = moved(model, 0, 0.3)

    @jax.jit
    def slope():
        value, means, _ = model.log_likelihood(grid)
        dense = oracle.of_model(model, grid)
        columns = oracle.design(grid.scores)
        return value, jax.grad(lambda means: dense.log_density(columns @ means))(means)

    value, at_means = jax.device_get(slope())
    np.testing.assert_allclose(at_means, 0, atol=1e-6 * abs(value))


def test_float32_likelihood_agrees_to_1e3_and_is_finite():
    values = {}
    for dtype in ("float64", "float32"):
        grid = CurveGrid.of(COMPLETE, dtype)
        model = MultiTaskGP.init(COMPLETE, jax.random.key(0), dtype="float64")
        model = jax.device_put(jax.tree.map(lambda a: np.asarray(a, dtype), model))  # noqa: B023
        (value, _), gradients = with_gradients(model, grid)
        assert value.dtype == dtype
        assert all(np.isfinite(g).all() for g in gradients)
        values[dtype] = value / COMPLETE.scores.size
    np.testing.assert_allclose(values["float32"], values["float64"], rtol=1e-3)


MISSING = np.random.default_rng(0).random(COMPLETE.scores.shape) < 0.4
MISSING[0, 2:4] = True
INCOMPLETE = without(COMPLETE, MISSING)


@pytest.mark.parametrize(("noise", "kernels"), list(zip(NOISES, KERNEL_NAMES, strict=True)))
def test_incomplete_curves_have_the_likelihood_of_dense_algebra(noise, kernels):
    grid = CurveGrid.of(INCOMPLETE)
    assert not grid.complete
    assert CurveGrid.of(COMPLETE).complete
    model = MultiTaskGP.init(INCOMPLETE, jax.random.key(0), noise=noise, **kernels)
    solver = select_solver(model, grid).solver
    assert isinstance(solver, ObservedCurves)
    assert len(solver.whole) + len(solver.part) == 4 * 6 - 2
    (value, means), gradients = with_gradients(model, grid, solver)
    (expected, _), slow = dense_with_gradients(model, grid)
    np.testing.assert_allclose(value, expected, rtol=1e-8)
    assert_gradients_close(gradients, slow)

    # Estimated, as of curves that are too many for that: standard errors of 1024 probes are about
    # 0.2 and 2 %.
    if noise not in ("task", "epoch"):
        return
    settings = Settings(tolerance=1e-4, probes=1024, rank=None, lanczos=64)
    (value, estimated), gradients = with_gradients(model, grid, Iterative(settings))
    np.testing.assert_allclose(value, expected, atol=2)
    np.testing.assert_allclose(estimated, means, atol=1e-5)
    got, want = (np.concatenate([np.ravel(g) for g in gs]) for gs in (gradients, slow))
    assert np.linalg.norm(got - want) < 0.1 * np.linalg.norm(want)


@pytest.mark.parametrize("largest", [10, 4096])
def test_incomplete_sources_give_a_posterior_of_finite_moments(largest):
    curves = without(COMPLETE, np.random.default_rng(1).random(COMPLETE.scores.shape) < 0.4)
    grid = CurveGrid.of(curves)
    for kernels in KERNEL_NAMES[:2]:
        model = MultiTaskGP.init(curves, jax.random.key(0), **kernels)
        solver = select_solver(model, grid, largest=largest).solver
        assert isinstance(solver, Iterative if largest == 10 else ObservedCurves)
        seen = Observations.of([(1, 0, 0.5)], 4, jnp.dtype("float64"))
        posterior = jax.jit(lambda m, s: m.source_posterior(grid, solver=s).condition(seen))(  # noqa: B023
            model, solver
        )
        assert np.isfinite(posterior.mean).all()
        assert (np.asarray(posterior.variance) > 0).all()


# Which solver runs, and why


@pytest.fixture(scope="module")
def grids():
    """Forty epochs: one curve with a gap and one without any score; and without a gap."""
    complete = small_curves(num_epochs=40)
    missing = np.zeros(complete.scores.shape, bool)
    missing[0, 0, 1:] = missing[1, 3] = True
    return CurveGrid.of(without(complete, missing)), CurveGrid.of(complete), complete


def kind_of_posterior(model, grid, solver=None):
    posterior = lambda model: model.source_posterior(grid, solver=solver)  # noqa: E731
    return type(eqx.filter_eval_shape(posterior, model))


def test_complete_grids_without_a_nugget_are_kronecker_products(grids):
    _, whole, curves = grids
    model = MultiTaskGP.init(curves, jax.random.key(0))
    solver, reason = select_solver(model, whole)
    assert isinstance(solver, Kronecker)
    assert reason == (
        "no score is missing and there is no nugget: the covariance is a Kronecker product"
    )
    assert kind_of_posterior(model, whole) is KroneckerPosterior


@pytest.mark.parametrize(
    ("fidelity", "rank"), [("at2", 8), ("freeze_thaw", 10), ("fabolas", 2), ("matern", 24)]
)
def test_few_incomplete_curves_are_factorised(grids, fidelity, rank):
    grid, _, curves = grids
    model = MultiTaskGP.init(curves, jax.random.key(0), fidelity=fidelity)
    solver, reason = select_solver(model, grid)
    assert isinstance(solver, ObservedCurves)
    assert solver.rank == rank
    assert solver.part.tolist() == [0]
    assert solver.whole.tolist() == [i for i in range(1, 24) if i != 9]
    assert reason == (
        f"exact: 1 incomplete and 22 complete source curves of rank {rank} are few enough to "
        "factorise"
    )
    assert kind_of_posterior(model, grid) is ObservedCurvesPosterior
    # Just few enough, and one too many of either kind.
    assert isinstance(select_solver(model, grid, largest=44).solver, ObservedCurves)
    solver, reason = select_solver(model, grid, largest=43)
    assert isinstance(solver, Iterative)
    assert reason == (
        "estimated by conjugate gradients: 1 incomplete and 22 complete source curves are more "
        f"than the {43 // rank} and 21 that are factorised"
    )
    assert kind_of_posterior(model, grid, solver) is IterativePosterior


def test_the_limits_are_of_the_rank_and_of_the_largest_matrix():
    """By default 4096 dimensions: 4096 / rank incomplete curves, and 2048 complete ones."""

    def grid_of(incomplete, complete):
        scores = np.zeros((1, incomplete + complete, 8))
        scores[:, :incomplete, -1] = np.nan
        return CurveGrid(scores, scores[0, :, :2], np.ones(8), complete=False)

    curves = small_curves(1, 2, 4)
    for fidelity, rank in (("at2", 8), ("matern", 8), ("fabolas", 2)):  # as many as epochs at most
        model = MultiTaskGP.init(curves, jax.random.key(0), fidelity=fidelity)
        few = select_solver(model, grid_of(4096 // rank, 2048)).solver
        assert isinstance(few, ObservedCurves)
        assert few.rank == rank
        for number in ((4096 // rank + 1, 1), (1, 2049)):
            assert isinstance(select_solver(model, grid_of(*number)).solver, Iterative)
    model = MultiTaskGP.init(curves, jax.random.key(0), nugget=True)
    with pytest.raises(ValueError, match=r"at most 512 incomplete .* 2048 .* are 1 and 2049\)"):
        select_solver(model, grid_of(1, 2049))


def test_a_nugget_is_for_few_curves_alone(grids):
    grid, whole, curves = grids
    model = MultiTaskGP.init(curves, jax.random.key(0), nugget=True)
    solver, _ = select_solver(model, whole)
    assert isinstance(solver, ObservedCurves)
    assert solver.rank == 8
    assert len(solver.whole) == 24
    assert kind_of_posterior(model, whole) is ObservedCurvesPosterior
    assert kind_of_posterior(model, grid) is ObservedCurvesPosterior
    with pytest.raises(ValueError, match=r"at most 5 incomplete .* 20 .* are 1 and 22\)"):
        select_solver(model, grid, largest=40)


def test_which_scores_are_missing_has_to_be_known_before_jit(grids):
    grid, whole, curves = grids
    model = MultiTaskGP.init(curves, jax.random.key(0), task="icm", config="matern")
    with pytest.raises(ValueError, match=r"call select_solver\(model, grid\) before"):
        jax.jit(lambda grid: model.log_likelihood(grid).value)(grid)
    solver = select_solver(model, grid).solver
    value = jax.jit(lambda grid, solver: model.log_likelihood(grid, solver).value)(grid, solver)
    assert np.isfinite(value)
    # Of a complete grid, and of one that is closed over, nothing has to be known.
    assert jax.eval_shape(lambda grid: model.log_likelihood(grid).value, whole).shape == ()
    closed_over = jax.eval_shape(lambda model: model.log_likelihood(grid).value, model)
    assert closed_over.shape == ()


def test_incomplete_grids_with_padded_solvers_stack():
    rng = np.random.default_rng(2)
    shape = COMPLETE.scores.shape
    curves = [without(COMPLETE, rng.random(shape) < share) for share in (0.3, 0.9)]
    # The third has no score missing, and is treated as one that might.
    grids = [CurveGrid.of(c) for c in (*curves, COMPLETE)]
    grids = [dataclasses.replace(grid, complete=False) for grid in grids]
    model = MultiTaskGP.init(COMPLETE, jax.random.key(0), config="matern", task="icm")

    def padded(grid):
        """All curves that have scores as if they had a gap, with room for 24."""
        solver = select_solver(model, grid).solver
        part = np.append(solver.whole, solver.part)
        part = part[part < 24]
        padding = np.full(24 - len(part), 24)
        return ObservedCurves(part[:0], np.append(part, padding), solver.rank)

    solvers = [padded(grid) for grid in grids]
    likelihood = jax.jit(lambda grid, solver: model.log_likelihood(grid, solver).value)
    stacked = (jax.tree.map(lambda *leaves: np.stack(leaves), *both) for both in (grids, solvers))
    together = np.asarray(jax.jit(jax.vmap(likelihood))(*stacked))
    each = [likelihood(grid, select_solver(model, grid).solver) for grid in grids]
    np.testing.assert_allclose(together, each, rtol=1e-9)
    exact = jax.jit(lambda: model.log_likelihood(CurveGrid.of(COMPLETE)).value)()
    np.testing.assert_allclose(together[2], exact, rtol=1e-9)


# What is refused


def test_grid_names_a_task_without_scores():
    missing = np.zeros(COMPLETE.scores.shape, bool)
    missing[1] = True
    with pytest.raises(ValueError, match=f"task '{COMPLETE.tasks[1]}' has no score"):
        CurveGrid.of(without(COMPLETE, missing))


def test_wrong_names_are_refused():
    with pytest.raises(ValueError, match="noise is homoscedastic"):
        MultiTaskGP.init(COMPLETE, jax.random.key(0), noise="pink")  # pyright: ignore
    with pytest.raises(KeyError, match="no config kernel 'rbf'; there are deep_poly"):
        MultiTaskGP.init(COMPLETE, jax.random.key(0), config="rbf")


@pytest.mark.parametrize("name", ["svgp", "dense", "nuts", "svi"])
def test_what_needs_a_kronecker_product_refuses_others(name):
    fit = {
        "svgp": fit_svgp,
        "dense": INFERENCE["dense"].fit,
        "nuts": sample_nuts,
        "svi": fit_svi,
    }[name]
    assert not INFERENCE[name].incomplete
    assert not INFERENCE[name].nugget
    scores = COMPLETE.scores.copy()
    scores[1, 2, 3] = np.nan
    grid = CurveGrid.of(dataclasses.replace(COMPLETE, scores=scores))
    model = MultiTaskGP.init(COMPLETE, jax.random.key(0), config="matern")
    with pytest.raises(ValueError, match=r"complete.*task 1, configuration 2, epoch 3"):
        fit(model, grid, jax.random.key(1))
    model = MultiTaskGP.init(COMPLETE, jax.random.key(0), config="matern", nugget=True)
    with pytest.raises(ValueError, match="knows no nugget: use mle or map"):
        fit(model, CurveGrid.of(COMPLETE), jax.random.key(1))


@pytest.mark.parametrize("solver", [Kronecker(), Dense(), Iterative()])
def test_a_solver_that_knows_no_nugget_refuses_one(solver):
    grid = CurveGrid.of(COMPLETE)
    model = MultiTaskGP.init(COMPLETE, jax.random.key(0), config="matern", nugget=True)
    with pytest.raises(ValueError, match="knows no nugget"):
        jax.eval_shape(lambda: model.log_likelihood(grid, solver))
    with pytest.raises(ValueError, match="knows no nugget"):
        eqx.filter_eval_shape(lambda: model.source_posterior(grid, solver=solver))


@pytest.mark.parametrize("solver", [Kronecker(), Dense()])
def test_a_solver_of_complete_grids_is_never_silently_wrong_of_others(solver):
    model = MultiTaskGP.init(COMPLETE, jax.random.key(0), config="matern")
    solution = jax.jit(lambda grid: model.log_likelihood(grid, solver))(CurveGrid.of(INCOMPLETE))
    assert np.isnan(solution.value)
