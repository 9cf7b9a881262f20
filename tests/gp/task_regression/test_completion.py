"""Gaps of source curves are filled in by what a normal distribution of curves says of them."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from amt.gp.task_regression.completion import complete

TASKS, CONFIGS, EPOCHS = 4, 30, 8


@pytest.fixture(scope="module")
def simulated():
    """Curves of a known distribution, smooth in one feature, alike on all tasks, and epochs."""
    rng = np.random.default_rng(0)
    epochs = np.arange(1, EPOCHS + 1) / EPOCHS
    features = rng.uniform(size=(CONFIGS, 1))
    between = np.exp(-np.abs(np.log(epochs)[:, None] - np.log(epochs)) / 2)
    surface = 0.9 * np.exp(-(cdist(features, features) ** 2) / 0.1) + 0.1 * np.eye(CONFIGS)
    tasks = 0.9 + 0.1 * np.eye(TASKS)
    roots = [
        np.linalg.cholesky(gram + 1e-9 * np.eye(len(gram))) for gram in (tasks, surface, between)
    ]
    curves = np.einsum("ab,cd,ef,bdf->ace", *roots, rng.normal(size=(TASKS, CONFIGS, EPOCHS)))
    return 0.5 + 0.1 * curves + 0.2 * np.log(epochs), features, epochs


def test_complete_curves_stay_as_they_are(simulated):
    scores, features, epochs = simulated
    completed = complete(scores, features, epochs)
    assert completed.scores is scores
    assert not completed.variance.any()


@pytest.mark.parametrize("kind", ["truncated", "whole", "holes"])
def test_what_is_filled_in_is_close_and_its_variance_is_calibrated(simulated, kind):
    scores, features, epochs = simulated
    rng = np.random.default_rng(1)
    gaps = {
        "truncated": np.arange(EPOCHS) >= rng.integers(2, EPOCHS + 1, (TASKS, CONFIGS, 1)),
        "whole": np.repeat(rng.uniform(size=(TASKS, CONFIGS, 1)) < 0.2, EPOCHS, 2),
        "holes": rng.uniform(size=scores.shape) < 0.3,
    }[kind]
    completed = complete(np.where(gaps, np.nan, scores), features, epochs)
    np.testing.assert_array_equal(completed.scores[~gaps], scores[~gaps])
    np.testing.assert_array_equal(completed.variance > 0, gaps)
    error = (completed.scores - scores)[gaps]
    course = np.broadcast_to(scores.mean((0, 1)), scores.shape)[gaps]
    assert np.square(error).mean() < 0.4 * np.square(course - scores[gaps]).mean()
    inside = np.abs(error) < 1.645 * np.sqrt(completed.variance[gaps])
    assert 0.8 < inside.mean() < 0.98


def test_an_epoch_that_a_task_never_had_is_that_of_the_others(simulated):
    scores, features, epochs = simulated
    short = scores.copy()
    short[2, :, 5:] = np.nan
    filled = complete(short, features, epochs).scores[2, :, 5:]
    assert np.square(filled - scores[2, :, 5:]).mean() < 0.3 * np.var(scores[2, :, 5:])


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 4, 1), (3, 2, 2)])
def test_a_single_score_is_enough(shape):
    scores = np.full(shape, np.nan)
    scores[:, 0, 0] = 0.5
    completed = complete(scores, np.linspace(0, 1, shape[1])[:, None], np.arange(1, shape[2] + 1))
    assert np.isfinite(completed.scores).all()
    assert np.isfinite(completed.variance).all()
