"""What a model sees of the sources, and the options of its fit."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import amt
from amt.outcome import ArcsineOutcome, Outcome
from amt.search.failures import failed_score
from amt.search.fitting import as_key, as_modelled, check_options, fit_sources, source_grid
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "magic"}, "no model 'magic'; there are task_regression, multi_task"),
        (
            {"stepz": 3},
            "no option 'stepz' of task_regression; there are kernels, epochs, optimizer",
        ),
        ({"inference": "mle", "stepz": 3}, "no option 'stepz' of mle; there are kernels, optimi"),
        ({"steps": 0}, "steps must be a whole number from 1, not 0"),
        ({"steps": 2.5}, "steps must be a whole number from 1, not 2.5"),
        ({"restarts": True}, "restarts must be a whole number from 1, not True"),
        ({"optimizer": "sgd"}, "optimizer must be adam or lbfgs, not 'sgd'"),
        ({"inference": "svgp", "preset": "heavy"}, "preset must be light or .*, not 'heavy'"),
        ({"inference": "svgp", "steps": 3}, "no option 'steps' of svgp; there are kernels, preset"),
        ({"inference": "magic"}, "no inference 'magic'; there are mle, map"),
        (
            {"kernels": {"configuration": "matern"}},
            "kernels has no 'configuration'; there are config, fidelity, functions",
        ),
        ({"kernels": {"config": "mattern"}}, "no config kernel 'mattern'; there are deep_poly"),
        ({"kernels": "matern"}, "kernels must be names by axis, .*, not 'matern'"),
    ],
)
def test_options_that_there_are_not(options, message):
    curves = small_curves(num_tasks=2, num_configs=4, num_epochs=3)
    if "inference" in options:
        options = {"model": "multi_task", **options}
    for use in (check_options, partial(amt.Tuner, curves, 0), partial(fit_sources, curves, 0)):
        with pytest.raises((KeyError, ValueError), match=message) as raised:
            use(**options)
        assert "\n" not in str(raised.value)


def test_keys_and_seeds():
    for seed in (3, jax.random.PRNGKey(3), jax.random.key(3)):
        assert_array_equal(
            jax.random.key_data(as_key(seed)), jax.random.key_data(jax.random.key(3))
        )
    for wrong in (0.5, None, "0", True):
        with pytest.raises(TypeError, match=r"key must be a key, such as jax.random.key\(0\), or"):
            amt.Tuner(small_curves(num_tasks=2, num_configs=4, num_epochs=3), wrong)


def test_a_folder_for_the_state_that_is_not_there(tmp_path):
    curves = small_curves(num_tasks=2, num_configs=4, num_epochs=3)
    with pytest.raises(FileNotFoundError, match=r"state='.*tuner.npz': there is no folder .*runs"):
        amt.Tuner(curves, 0, state=str(tmp_path / "runs" / "tuner.npz"))
