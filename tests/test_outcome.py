import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from amt.curves import LearningCurves
from amt.outcome import ArcsineOutcome, Outcome, RobustOutcome
from tests.problems import small_configs, small_space


def losses(seed: int = 0) -> np.ndarray:
    """Of 5 tasks whose scales differ by orders of magnitude, with a few runs that blow up."""
    random = np.random.default_rng(seed)
    values = np.exp(random.normal(size=(5, 40)) + np.array([-3, -1, 0, 1, 3])[:, None])
    values[2, :2] = 1e12, 1e30
    return values


METRICS = {
    "accuracies": (np.random.default_rng(0).uniform(size=100), False),
    "losses": (losses(), True),
    "error rates": (np.random.default_rng(1).integers(0, 20, 100) / 20, True),
    "log densities": (np.random.default_rng(2).standard_cauchy(100), True),
    "rewards": (100 * np.random.default_rng(3).standard_cauchy(100), False),
    "percentages": (100 * np.random.default_rng(4).uniform(size=100), False),
    "one value": (np.full(10, 0.3), True),
    "zeros": (np.zeros(10), True),
}


@pytest.fixture(params=METRICS)
def metric(request):
    return METRICS[request.param]


def test_inverse(metric):
    values, minimise = metric
    outcome = Outcome.fit(values, minimise=minimise)
    scores = outcome.forward(values)
    assert np.isfinite(scores).all()
    assert_allclose(outcome.inverse(scores), values, rtol=1e-9, atol=1e-12)
    more = np.linspace(-8, 8, 33)
    assert_allclose(outcome.forward(outcome.inverse(more)), more, rtol=1e-9, atol=1e-9)


def test_the_ranking_stays(metric):
    values, minimise = metric
    scores = Outcome.fit(values, minimise=minimise).forward(values)
    order = np.argsort(-values if minimise else values, axis=None, kind="stable")
    assert (np.diff(scores.ravel()[order]) >= 0).all()
    assert len(np.unique(scores)) == len(np.unique(values))


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30),
    st.booleans(),
    st.floats(-1e7, 1e7),
)
def test_any_value_told_later_is_finite(values, minimise, later):
    outcome = Outcome.fit(np.array(values), minimise=minimise)
    assert np.isfinite(outcome.forward(later))


def test_by_hand():
    outcome = RobustOutcome(sign=-1.0, softening=0.5, location=-2.0, scale=0.25, knee=3.0)
    z = (-np.arcsinh(4.0) + 2) / 0.25
    assert -3 < z < 0
    assert_allclose(outcome.forward(2.0), z)
    z = (-np.arcsinh(200.0) + 2) / 0.25
    assert_allclose(outcome.forward(100.0), -3 - np.log1p(-3 - z))
    assert str(outcome) == ("score = (-arcsinh(y / 0.5) + 2) / 0.25, logarithmic below -3")


def test_accuracies_stay_as_they_are():
    values, _ = METRICS["accuracies"]
    outcome = Outcome.fit(values)
    assert eqx.tree_equal(outcome, RobustOutcome()) is True
    assert_array_equal(outcome.forward(values), values)
    assert_array_equal(outcome.inverse(values), values)
    assert str(outcome) == "score = y"


def test_factors_between_tasks_become_constants():
    """Above the softening: a task whose losses are ten times another's differs by its mean."""
    one = np.exp(np.random.default_rng(0).normal(size=200))
    outcome = Outcome.fit(np.stack([one, 10 * one]), minimise=True)
    above = one > 10 * outcome.softening
    difference = outcome.forward(one[above]) - outcome.forward(10 * one[above])
    assert above.sum() > 80
    assert_allclose(difference, np.log(10) / outcome.scale, rtol=3e-3)


def test_scale_is_robust():
    values = losses()
    scores = Outcome.fit(values, minimise=True).forward(values)
    assert abs(np.median(scores)) < 1e-12
    assert scores.min() > -10  # 1e30 among losses near 1
    values[2, :2] = 1.0
    other = Outcome.fit(values, minimise=True).forward(values)
    assert np.abs(np.delete(scores, [80, 81]) - np.delete(other, [80, 81])).max() < 0.1
    assert np.quantile(other, 0.75) - np.quantile(other, 0.25) == pytest.approx(1.349, abs=1e-3)


def test_best_scores_are_not_compressed():
    outcome = RobustOutcome(knee=3.0)
    assert_array_equal(outcome.forward(np.array([-3.0, 0.0, 50.0])), [-3, 0, 50])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_jax(dtype):
    values = losses()
    outcome = Outcome.fit(values, minimise=True)
    array = jnp.asarray(values, dtype)
    forward = jax.jit(lambda o, y: o.forward(y))(outcome, array)
    assert forward.dtype == dtype
    assert_allclose(forward, outcome.forward(values), rtol=1e-4, atol=1e-5)
    inverse = jax.jit(jax.vmap(outcome.inverse))(forward)
    assert inverse.dtype == dtype
    ok = values < 1e6
    assert_allclose(np.asarray(inverse)[ok], values[ok], rtol=1e-4 if dtype == "float32" else 1e-9)
    gradient = np.asarray(jax.jit(jax.vmap(jax.grad(outcome.forward)))(array.ravel()))
    assert np.isfinite(gradient).all()
    assert (gradient <= 0).all()
    for function in (RobustOutcome().forward, RobustOutcome().inverse):
        assert jax.jit(jax.grad(function))(0.5) == 1


@pytest.mark.parametrize("values", [[], [np.nan], [1.0, np.inf]])
def test_nothing_to_fit(values):
    with pytest.raises(ValueError, match="finite ones"):
        Outcome.fit(np.array(values))


# A transform of one's own


class Logit(Outcome):
    """Log odds of an accuracy."""

    sign: float = 1.0

    def forward(self, metric):
        return np.log(metric) - np.log1p(-np.asarray(metric))

    def inverse(self, score):
        return 1 / (1 + np.exp(-np.asarray(score)))

    def __str__(self):
        return "score = logit(y)"


def test_a_transform_of_ones_own_goes_through_learning_curves_and_back():
    accuracies = np.random.default_rng(0).uniform(0.1, 0.9, size=(2, 3, 4, 5))
    outcome = Logit()
    curves = LearningCurves(
        configs=small_configs(4),
        space=small_space(),
        tasks=["a", "b", "c"],
        repeats=outcome.forward(accuracies),
        outcome=outcome,
    )
    assert_allclose(curves.outcome.inverse(curves.repeats), accuracies)
    assert curves.outcome.forward(0.5) == 0
    for part in (curves.select(tasks=["b"]), curves.repeat(1), *curves.split(["a"], "c")):
        assert part.outcome is outcome
    assert str(part.outcome) == "score = logit(y)"


def test_a_transform_that_lacks_a_method_is_refused():
    class Half(Outcome):
        sign: float = 1.0

        def forward(self, metric):
            return metric

    with pytest.raises(TypeError, match="inverse"):
        Half()  # pyright: ignore[reportAbstractUsage]
    with pytest.raises(TypeError, match="abstract"):
        Outcome()  # pyright: ignore[reportAbstractUsage]


def test_arcsine_of_accuracies():
    outcome, accuracy = ArcsineOutcome(), np.array([0, 0.1, 0.25, 0.5, 1])
    scores = outcome.forward(accuracy)
    assert_allclose(scores[2:], [np.pi / 6, np.pi / 4, np.pi / 2], rtol=1e-15)
    assert_allclose(outcome.inverse(scores), accuracy, atol=1e-15)
    assert_allclose(jax.jit(outcome.inverse)(jnp.asarray(scores)), accuracy, atol=1e-15)
    # The variance of a share of n examples is 1 / (4 n), whatever the accuracy.
    for share in (0.1, 0.5, 0.9):
        drawn = np.random.default_rng(0).binomial(400, share, 20_000) / 400
        assert_allclose(outcome.forward(drawn).var(), 1 / 1600, rtol=0.05)


@pytest.mark.parametrize(("score", "accuracy"), [(-1, 0), (2, 1)])
def test_no_prediction_leaves_the_range_of_accuracies(score, accuracy):
    assert ArcsineOutcome().inverse(score) == accuracy
