"""Learning a task regression: the density rises, at epochs that are spread as they should be."""

import equinox as eqx
import jax
import numpy as np
import pytest

from amt.gp.grid import CurveGrid
from amt.gp.task_regression.model import CommonScale, TaskRegression
from amt.inference.priors import log_prior
from amt.inference.task_regression import fit_task_regression, thinned
from amt.parameters import stack
from tests.problems import small_curves


@pytest.mark.parametrize(("optimizer", "priors"), [("adam", "learned"), ("lbfgs", "declared")])
def test_the_model_found_has_the_largest_density_that_was_seen(optimizer, priors):
    curves = small_curves(num_epochs=8)
    grid = CurveGrid.of(curves)
    start = TaskRegression.init(curves, jax.random.key(0))

    @eqx.filter_jit
    def fit():
        options = {"optimizer": optimizer, "steps": 20, "priors": priors}
        found = fit_task_regression(stack([start]), grid, epochs=5, **options)
        some = thinned(8, 5)
        part = CurveGrid(grid.scores[:, :, some], grid.features, grid.epochs[some])
        best = CommonScale.of(grid.scores).curves.max(2)
        surface = found.model.surface.log_likelihood(best, grid.features).sum()
        density = found.model.log_likelihood(part).sum() + surface
        return found, density + log_prior(found.model, priors)

    found, density = fit()
    np.testing.assert_allclose(density, found.log_density.max(), rtol=1e-8)
    assert found.log_density.max() > found.log_density[0, 0] + 10


@pytest.mark.parametrize(
    ("size", "count", "expected"),
    [(5, 16, [0, 1, 2, 3, 4]), (100, 3, [0, 9, 99]), (75, 5, [0, 2, 8, 24, 74]), (1, 1, [0])],
)
def test_epochs_are_spread_evenly_on_a_logarithmic_axis(size, count, expected):
    assert thinned(size, count).tolist() == expected
