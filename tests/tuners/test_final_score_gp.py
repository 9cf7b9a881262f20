import numpy as np
from numpy.testing import assert_allclose

from amt.curves import LearningCurves
from amt.tuners.final_score_gp import FinalScoreGP, expected_improvement, final_scores, standardized
from tests.tuners.problems import NUM_CONFIGS, SOURCES

RNG = np.random.default_rng(0)
FEATURES = RNG.uniform(size=(25, 2))
GP = FinalScoreGP(FEATURES)
SCORED = np.arange(15)
SMOOTH = np.sin(3 * FEATURES[:, 0]) + FEATURES[:, 1] ** 2


def test_it_predicts_a_smooth_function_and_forgets_a_score_that_it_leaves_out():
    posterior = GP.posterior(SCORED, SMOOTH[SCORED])
    truth = (SMOOTH - SMOOTH[SCORED].mean()) / SMOOTH[SCORED].std()
    assert np.corrcoef(posterior.mean[15:], truth[15:])[0, 1] > 0.9
    assert (np.abs(posterior.mean - truth)[15:] < 3 * posterior.deviation[15:] + 0.05).all()
    assert posterior.deviation[SCORED].max() < posterior.deviation[15:].max()
    # A score that is changed changes no prediction of it by the others, the fit aside.
    assert np.abs(posterior.left_out - truth[SCORED]).max() > 1e-3
    assert np.corrcoef(posterior.left_out, truth[SCORED])[0, 1] > 0.9


def test_it_says_of_noise_that_it_is_noise():
    posterior = GP.posterior(SCORED, RNG.normal(size=15))
    assert np.abs(posterior.mean).max() < 1


def test_several_tasks_at_once_are_each_by_itself():
    scores = np.stack([SMOOTH, -(SMOOTH**2), RNG.normal(size=25)])[:, SCORED]
    for together, of_task in zip(GP.posteriors(SCORED, scores), scores, strict=True):
        alone = GP.posterior(SCORED, of_task)
        for a, b in zip(together, alone, strict=True):
            assert_allclose(a, b, atol=1e-10)


def test_none_and_one_score_leave_the_prior():
    none, one = GP.posterior(SCORED[:0], SMOOTH[:0]), GP.posterior(SCORED[:1], SMOOTH[:1])
    assert (none.mean == 0).all()
    assert (one.mean == 0).all()
    assert one.deviation[0] < one.deviation[1:].min()


def test_expected_improvement_is_that_of_draws():
    draws = np.maximum(0.3 + 0.7 * RNG.normal(size=400_000) - 0.9, 0)
    value = expected_improvement(np.array([0.3]), np.array([0.7]), 0.9)
    assert_allclose(value, draws.mean(), rtol=0.02)


def test_final_scores_are_of_the_best_epoch_and_what_has_none_is_worst():
    scores = SOURCES.scores.copy()
    scores[1, 4], scores[2, 3, 5:] = np.nan, np.nan
    values = final_scores(
        LearningCurves(
            configs=SOURCES.configs, space=SOURCES.space, tasks=SOURCES.tasks, scores=scores
        )
    )
    assert values[1, 4] == values[1].min() == np.delete(SOURCES.scores[1].max(1), 4).min()
    assert values[2, 3] == scores[2, 3, :5].max()
    assert values.shape == (6, NUM_CONFIGS)
    assert_allclose(standardized(values).std(1), 1)
    assert (standardized(np.full((2, 3), 7.0)) == 0).all()
