"""Predictions of the sources' own curves against dense algebra on the observed scores."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amt.gp.curve_prediction import predict
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.solvers.iterative import LatentSourcePosterior, Solver
from amt.gp.solvers.kronecker import outer
from amt.gp.solvers.observed_curves import IncompleteSourcePosterior
from tests.problems import small_curves


def incomplete(curves, seed=0):
    """One curve in four is missing, one in two ends early; every task keeps a whole one."""
    rng = np.random.default_rng(seed)
    length = np.where(rng.random(curves.scores.shape[:2]) < 0.5, rng.integers(1, 5), 5)
    length[rng.random(length.shape) < 0.25] = 0
    length[:, 0] = 5
    return replace(
        curves, scores=np.where(np.arange(5) < length[:, :, None], curves.scores, np.nan)
    )


def start(curves, **options):
    """With noise, and a nugget where there is one, that differ by task; noise by epoch too."""
    model = MultiTaskGP.init(curves, jax.random.key(1), noise="task_epoch", **options)
    if model.nugget is not None:
        model = replace(model, nugget=jnp.linspace(0.2, 0.5, curves.num_tasks))
    noise = replace(
        model.noise,
        variance=jnp.linspace(1e-3, 4e-3, curves.num_tasks),
        power=jnp.asarray(0.3),
    )
    return replace(model, noise=noise)


def dense(model, grid):
    """Mean and variance of all scores without noise, the means at their least-squares value."""
    tasks, configs, epochs = grid.scores.shape
    fidelity = model.fidelity(grid.epochs, grid.epochs)
    config = model.config(grid.features, grid.features)
    nugget = np.zeros(tasks) if model.nugget is None else np.asarray(model.nugget)
    curves = np.kron(model.task.gram(), config) + np.diag(np.repeat(nugget, configs))
    prior = np.kron(curves, fidelity)
    task_noise, epoch_noise = model.noise.factors(tasks, grid.epochs)
    noise = np.asarray(outer(task_noise, jnp.ones(configs), epoch_noise)).ravel()
    seen = np.isfinite(np.asarray(grid.scores)).ravel()
    gram = (prior + np.diag(noise))[np.ix_(seen, seen)]
    design = np.kron(np.eye(tasks), np.ones((configs * epochs, 1)))
    solved = np.linalg.solve(gram, design[seen])
    scores = np.asarray(grid.scores).ravel()[seen]
    means = np.linalg.solve(design[seen].T @ solved, solved.T @ scores)
    residual = scores - design[seen] @ means
    gain = np.linalg.solve(gram, prior[seen]).T
    mean = design @ means + gain @ residual
    variance = np.diag(prior) - np.sum(gain.T * prior[seen], 0)
    return mean.reshape(grid.scores.shape), variance.reshape(grid.scores.shape)


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
def test_against_dense_algebra(whole, kernels):
    curves = small_curves() if whole else incomplete(small_curves())
    grid = CurveGrid.of(curves)
    model = start(curves, **kernels)
    prediction = jax.jit(lambda model: predict(model.source_posterior(grid)))(model)
    mean, variance = dense(model, grid)
    np.testing.assert_allclose(prediction.mean, mean, atol=1e-6)
    np.testing.assert_allclose(prediction.variance, variance, rtol=1e-5, atol=1e-8)


def test_missing_scores_are_less_certain_than_observed_ones():
    curves = incomplete(small_curves())
    prediction = predict(start(curves).source_posterior(CurveGrid.of(curves)))
    last = np.asarray(prediction.variance[:, :, -1])
    seen = np.isfinite(curves.scores[:, :, -1])
    assert (last[~seen].min(), last[~seen].mean()) > (last[seen].min(), 2 * last[seen].mean())


@pytest.mark.parametrize("samples", [None, 4096])
def test_estimated_posteriors(samples):
    """Exact without samples, else means to 1e-3 of the scores and variances to 15 %."""
    curves = incomplete(small_curves())
    grid = CurveGrid.of(curves)
    model = start(curves)
    posterior = LatentSourcePosterior.of(
        model.task,
        model.config(grid.features, grid.features),
        model.fidelity(grid.epochs, grid.epochs),
        grid.scores,
        *model.noise.factors(len(grid.scores), grid.epochs),
        settings=Solver(samples=samples),
    )
    assert isinstance(posterior, IncompleteSourcePosterior)
    prediction = predict(posterior)
    mean, variance = dense(model, grid)
    np.testing.assert_allclose(prediction.mean, mean, atol=1e-3)
    tolerance = 1e-4 if samples is None else 0.15
    np.testing.assert_allclose(prediction.variance, variance, rtol=tolerance, atol=1e-7)
