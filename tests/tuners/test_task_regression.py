"""The tuner of task regression, run as an experiment runs it."""

import dataclasses

import numpy as np

from amt.evaluation.experiment import Experiment
from amt.evaluation.splits import make_cells, make_splits
from amt.tuners import TUNERS
from tests.problems import small_curves


def test_it_names_a_good_configuration_before_the_first_epoch_and_forecasts():
    curves = small_curves(8, num_configs=12, num_epochs=4)
    cells = make_cells(make_splits("made up", curves, kind="leave_one_out", pair=[0, 5], repeat=0))
    tuner = TUNERS["task_regression"].make()
    result = Experiment(budget=10).run(tuner, cells)
    trajectory, best = result.trajectory, np.stack([c.split.target.scores[0].max(1) for c in cells])
    recommended = trajectory.recommended[:, 0]
    for cell in range(2):
        regret = (best[cell].max() - best[cell][recommended[cell]]) / np.ptp(best[cell])
        assert regret.max() < 0.25
        assert regret[-1] < 0.05
        asked = list(zip(trajectory.config[cell, 0], trajectory.epoch[cell, 0], strict=True))
        assert len(set(asked)) == 10
        for config, epoch in asked:
            assert epoch == 0 or (config, epoch - 1) in asked
    assert np.isfinite(trajectory.forecast.log_density).all()
    assert trajectory.forecast.coverage90.mean() > 0.7


def test_sources_that_are_not_complete_will_do():
    curves = small_curves(8, num_configs=12, num_epochs=4)
    scores = curves.scores.copy()
    scores[0, 3, 2:] = scores[1, 5] = np.nan
    curves = dataclasses.replace(curves, scores=scores)
    cells = make_cells(make_splits("made up", curves, kind="leave_one_out", pair=[4, 5], repeat=0))
    result = Experiment(budget=10).run(TUNERS["task_regression"].make(), cells)
    assert np.isfinite(result.trajectory.forecast.log_density).all()


def test_without_past_tasks_their_scores_are_not_seen():
    curves = small_curves(5, num_configs=12, num_epochs=4)
    results = []
    for scores in (curves.scores, np.concatenate([curves.scores[3:4] / 2, curves.scores[1:]])):
        of_scores = dataclasses.replace(curves, scores=scores)
        splits = make_splits("made up", of_scores, kind="leave_one_out", pair=[4], repeat=0)
        tuner = TUNERS["task_regression_alone"].make()
        results.append(Experiment(budget=20).run(tuner, make_cells(splits)).trajectory)
    np.testing.assert_array_equal(results[0].config, results[1].config)
    best = curves.scores[4].max(1)
    assert best[results[0].recommended[0, 0, -1]] > np.quantile(best, 0.8)
