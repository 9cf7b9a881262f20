"""Predictions in the metric's units: means and quantiles of mixtures, and what a tuner says."""

import jax
import matplotlib
import numpy as np
import pytest

import amt
from amt.gp.observations import TargetPosterior
from amt.outcome import ArcsineOutcome, RobustOutcome
from amt.search.prediction import expected_metric, mixture_quantile, predict_metric
from tests.problems import small_curves

matplotlib.use("Agg")
WEIGHTS = np.array([0.3, 0.7])
MEAN = np.array([[[0.4, 0.9]], [[0.6, 1.3]]])
DEVIATION = np.array([[[0.1, 0.2]], [[0.05, 0.3]]])
NOISE = np.array([[0.0, 0.01], [0.02, 0.0]])


def draws(count=400_000):
    rng = np.random.default_rng(0)
    which = rng.choice(2, count, p=WEIGHTS)
    deviation = np.sqrt(DEVIATION**2 + NOISE[:, None])
    return rng.normal(MEAN[which], deviation[which])


def test_quantiles_of_a_mixture_are_those_of_draws():
    deviation = np.sqrt(DEVIATION**2 + NOISE[:, None])
    for share in (0.05, 0.5, 0.95):
        have = mixture_quantile(WEIGHTS, MEAN, deviation, share)
        np.testing.assert_allclose(have, np.quantile(draws(), share, 0), atol=0.005)


@pytest.mark.parametrize("outcome", [ArcsineOutcome(), RobustOutcome(sign=-1.0, softening=0.5)])
def test_the_metric_has_the_mean_or_median_and_interval_of_draws(outcome):
    posterior = TargetPosterior(MEAN, DEVIATION**2, np.log(WEIGHTS))
    have = predict_metric(posterior, NOISE, outcome, level=0.8)
    metric = outcome.inverse(draws())
    center = np.mean if isinstance(outcome, ArcsineOutcome) else np.median
    np.testing.assert_allclose(have.mean, center(metric, 0), atol=0.005)
    np.testing.assert_allclose(have.lower, np.quantile(metric, 0.1, 0), atol=0.01)
    np.testing.assert_allclose(have.upper, np.quantile(metric, 0.9, 0), atol=0.01)

    wider = TargetPosterior(MEAN, (1.5 * DEVIATION) ** 2, np.log(WEIGHTS))
    expected = predict_metric(wider, NOISE, outcome, level=0.8)
    widened = posterior._replace(widening=np.array(1.5)).of(range(len(MEAN[0])))
    found = predict_metric(widened, NOISE, outcome, level=0.8)
    np.testing.assert_array_equal(found.mean, have.mean)
    np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-12)


@pytest.fixture(scope="module")
def tuner():
    """The target is one of the four sources, but for its noise."""
    curves = small_curves(num_tasks=4, num_configs=12, num_epochs=6, seed=4)
    tuner = amt.Tuner(curves, jax.random.key(0), continuous=False, steps=30, restarts=2)
    for number in range(12):
        for epoch in (1, 2, 3):
            tuner.tell(number, epoch, float(curves.scores[3, number, epoch - 1]))
    return tuner


def test_predictions_of_a_tuner_are_within_the_range_of_the_metric(tuner):
    have = tuner.predict([2, 0], level=0.9)
    assert have.mean.shape == (2, 6)
    for values in have:
        assert ((values >= 0) & (values <= 1)).all()
    assert (have.lower < have.mean).all()
    assert (have.mean < have.upper).all()
    np.testing.assert_allclose(have.mean[1], tuner.predict().mean[0])
    told = [metric for number, epoch, metric in tuner.told if number == 2]
    np.testing.assert_allclose(have.mean[0, :3], told, atol=0.1)
    with pytest.raises(ValueError, match="configurations 0 to 11, not 12"):
        tuner.predict([12])


def test_the_task_that_the_target_is_like_has_the_largest_weight(tuner):
    similarity = tuner.similarity()
    assert similarity.tasks[similarity.mean.argmax()] == small_curves().tasks[3]
    assert (similarity.lower < similarity.mean).all()
    assert (similarity.mean < similarity.upper).all()
    assert 0.5 < similarity.transfer <= 1


def test_weights_agree_with_dense_algebra(tuner):
    source, progress = tuner._scorer.source, tuner._progress()
    mean, deviation = map(np.asarray, tuner._scorer.similarity(progress))
    prior = source.prior
    cells = np.array([entry[:2] for entry in progress.observed]).T
    scores = np.array([entry[2] for entry in progress.observed])
    compiled = jax.jit(lambda: (prior.among(*cells), prior.noises(), prior.means(), prior.weighted))
    parts, noises, means, weighted = map(np.asarray, compiled())
    root, direction = np.asarray(source.root), np.asarray(prior.direction)
    components = jax.tree.map(np.asarray, prior.components)
    for component in (4, 8, 9):
        gram = np.tensordot(components.parts[component], parts, 1)
        gram += np.diag(noises[component][cells[1]])
        unknown = float(components.strength[component])
        rows = np.concatenate([unknown * direction[None], weighted])
        roots = np.concatenate([np.full((4, 1), unknown / 4), root], 1)
        cross = roots @ rows[:, *cells]
        residual = scores - means[component][tuple(cells)]
        want = (1 - unknown) / 4 + cross @ np.linalg.solve(gram, residual)
        variance = roots @ roots.T - cross @ np.linalg.solve(gram, cross.T)
        np.testing.assert_allclose(mean[component], want, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(deviation[component], np.sqrt(np.diag(variance)), rtol=1e-7)


def test_figures_and_history_show_what_was_told(tuner):
    history = tuner.history()
    assert len(history) == len(tuner.told) == 36
    assert history["rate"].iloc[0] == tuner.configs[0]["rate"]
    assert history["metric"].tolist() == [metric for *_, metric in tuner.told]
    assert tuner.best_config == tuner.configs[tuner.recommend()]
    (axes,) = tuner.plot_curves([1, 4]).axes
    assert [line.get_label() for line in axes.lines if not line.get_label().startswith("_")] == [
        "1",
        "4",
    ]
    assert len(tuner.plot_curves().axes[0].collections) == 5
    (axes,) = tuner.plot_similarity().axes
    assert len(axes.get_yticklabels()) == 4


def test_an_uncertain_score_near_the_end_of_its_range_is_worth_less_than_a_certain_one():
    """Accuracies end at 1, where scores are pi / 2: what is beyond it counts as the end."""
    mean, deviation = np.array([[1.44], [1.46]]), np.array([[0.02], [0.3]])
    expected = expected_metric(TargetPosterior(mean, deviation**2), ArcsineOutcome())
    scores = mean + deviation * np.random.default_rng(0).normal(size=200_000)
    drawn = np.sin(np.clip(scores, 0, np.pi / 2)) ** 2
    np.testing.assert_allclose(expected[:, 0], drawn.mean(1), atol=3e-3)
    assert expected[0, 0] > expected[1, 0]
    two = TargetPosterior(mean[:, None], (deviation**2)[:, None], np.log([0.25, 0.75]))
    both = expected_metric(two, ArcsineOutcome())
    np.testing.assert_allclose(both[0, 0], [0.25, 0.75] @ expected[:, 0], rtol=1e-12)


def test_what_is_hardly_possible_of_a_loss_does_not_make_its_prediction_infinite():
    losses = RobustOutcome.fit(np.geomspace(0.1, 100, 50), minimise=True)
    mean = np.stack([np.full((2, 3), 0.5), np.full((2, 3), -20.0)])
    posterior = TargetPosterior(mean, np.full(mean.shape, 0.01), np.log([0.99, 0.01]))
    np.testing.assert_allclose(expected_metric(posterior, losses), losses.inverse(0.5), rtol=0.01)
