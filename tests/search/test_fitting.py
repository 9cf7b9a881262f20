"""What a model sees of the sources."""

import dataclasses

import numpy as np
import pytest

from amt.outcome import ArcsineOutcome, Outcome
from amt.search.failures import failed_score
from amt.search.fitting import as_modelled, source_grid
from tests.problems import small_curves


@pytest.mark.parametrize(
    ("factor", "minimise", "arcsine"), [(1, False, True), (2, False, False), (1, True, False)]
)
def test_task_regression_transforms_accuracies_alone(factor, minimise, arcsine):
    curves = small_curves()
    metric = factor * (curves.scores - curves.scores.min()) / np.ptp(curves.scores)
    outcome = Outcome.fit(metric, minimise=minimise)
    curves = dataclasses.replace(curves, scores=outcome.forward(metric), outcome=outcome)
    modelled = as_modelled(curves, "task_regression")
    assert isinstance(modelled.outcome, ArcsineOutcome) == arcsine
    np.testing.assert_allclose(modelled.outcome.inverse(modelled.scores), metric, atol=1e-12)
    assert as_modelled(curves, "multi_task") is curves


def test_gaps_are_filled_in_for_task_regression():
    scores = small_curves().scores.copy()
    scores[1, 2, 3:] = np.nan
    curves = dataclasses.replace(small_curves(), scores=scores)
    grid = source_grid(curves, "task_regression")
    known = np.isfinite(scores)
    np.testing.assert_array_equal(np.asarray(grid.scores)[known], scores[known])
    assert np.isfinite(grid.scores).all()
    np.testing.assert_array_equal(np.asarray(grid.variance) > 0, ~known)
    assert np.isnan(source_grid(curves, "multi_task").scores).any()


def test_a_failure_is_worse_than_all_seen():
    curves = small_curves()
    last = curves.scores[:, :, -1]
    assert failed_score(curves, [0.9]) == last.min() - last.std()
    assert failed_score(curves, [-3.0, 0.9]) == -3 - last.std()
