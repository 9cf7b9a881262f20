"""Mixtures of posteriors: draws of one model, different kernels, and weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amt.gp.grid import CurveGrid
from amt.gp.mixture import Mixture
from amt.gp.model import MultiTaskGP
from amt.gp.observations import Observations, TargetPosterior
from amt.parameters import stack, unconstrain
from amt.search.rule import acquisition_values, recommend, suggest
from amt.search.simulate import simulate
from tests.problems import small_curves

CURVES = small_curves()
GRID = CurveGrid.of(CURVES)
TOLD = Observations.of([(1, 0, 0.3)], 4, jnp.dtype(jnp.float64))


def start(**kernels):
    return MultiTaskGP.init(CURVES, jax.random.key(0), **{"config": "matern"} | kernels)


def test_a_mixture_of_one_model_twice_tunes_as_the_model():
    sources, target = CURVES.split(CURVES.tasks[:3], CURVES.tasks[3])
    grid = CurveGrid.of(sources)
    model = MultiTaskGP.init(sources, jax.random.key(0), config="matern")
    target = jax.device_put(target.scores[0])

    @jax.jit
    def both():
        source = model.source_posterior(grid)
        twice = Mixture.of_draws(stack([source, source]))
        return simulate(source, target, budget=8), simulate(twice, target, budget=8)

    single, mixture = both()
    np.testing.assert_array_equal(single.config, mixture.config)
    np.testing.assert_array_equal(single.recommended, mixture.recommended)


@pytest.fixture(scope="module")
def mixed():
    """Two draws of one model and one of another: together, and each alone."""
    first = start()
    other = start(task="icm", fidelity="matern")
    log_weights = np.log([3.0, 1.0, 4.0])

    @jax.jit
    def posteriors():
        free, constrain = unconstrain(first)
        second = constrain(tuple(f + 0.2 for f in free))
        sources = [model.source_posterior(GRID) for model in (first, second, other)]
        extra = GRID.features[:2] + 0.1
        pending = Observations.of([(2, 1, 0.0)], 2, jnp.dtype(jnp.float64))
        draws = Mixture.of_draws(stack(sources[:2]))
        kernels = Mixture.of(sources, log_weights)
        together = draws.condition(TOLD), kernels.condition(TOLD, extra, pending, observable=0)
        alone = [
            (source.condition(TOLD), source.condition(TOLD, extra, pending, observable=0))
            for source in sources
        ]
        return together, alone, kernels.noise, [source.noise for source in sources], kernels

    *moments, mixture = posteriors()
    return *jax.device_get(moments), mixture


def test_draws_are_conditioned_one_by_one_with_equal_weights(mixed):
    (together, _), single, *_ = mixed
    assert together.mean.shape[0] == 2
    np.testing.assert_allclose(together.log_weights, np.log([0.5, 0.5]))
    for draw, (alone, _) in enumerate(single[:2]):
        np.testing.assert_allclose(together.mean[draw], alone.mean, rtol=1e-10)
        np.testing.assert_allclose(together.variance[draw], alone.variance, rtol=1e-8)


def test_different_kernels_are_mixed_by_their_weights(mixed):
    (_, together), single, noise, noises, mixture = mixed
    assert len(mixture.components) == 3
    np.testing.assert_allclose(np.exp(together.log_weights), [3 / 8, 1 / 8, 4 / 8])
    np.testing.assert_allclose(noise, np.stack(noises))
    for draw, (_, alone) in enumerate(single):
        np.testing.assert_allclose(together.mean[draw], alone.mean, rtol=1e-10)
        np.testing.assert_allclose(together.variance[draw], alone.variance, rtol=1e-8)
    want = np.average(together.mean, axis=0, weights=[3, 1, 4])
    np.testing.assert_allclose(average(together, together.mean), want)


average = jax.jit(TargetPosterior.average)


def first_of_each(mixture):
    """The first component of each kind."""
    return [jax.tree.map(lambda leaf: leaf[0], jax.device_get(g)) for g in mixture.components]


def test_without_its_kernels_a_mixture_is_the_same_on_the_grid_alone(mixed):
    *_, mixture = mixed
    reduced = mixture.on_grid()
    got, want = (jax.jit(lambda m: m.condition(TOLD))(m) for m in (reduced, mixture))
    np.testing.assert_allclose(got.mean, want.mean, rtol=1e-12)
    np.testing.assert_array_equal(got.log_weights, want.log_weights)
    with pytest.raises(ValueError, match="reduced to its grid"):
        reduced.condition(TOLD, GRID.features[:2])


def test_weights_have_to_be_as_many_as_components(mixed):
    *_, mixture = mixed
    components = first_of_each(mixture)
    with pytest.raises(ValueError, match="3 components, but weights of shape"):
        Mixture.of(components, np.zeros(2))
    with pytest.raises(ValueError, match="1 components, but weights of shape"):
        Mixture.of_draws(mixture.components[0], np.zeros((1, 1)))


@jax.jit
def query_of(posterior):
    observations = Observations.empty(2, posterior.mean.dtype)
    remaining = jnp.ones((3, 1), bool)
    values = acquisition_values(posterior, observations, remaining, lambda p, r, b: p.mean[:, 0])
    query = suggest(posterior, observations, remaining, lambda p, r, b: p.mean[:, 0])
    return values, query.config, recommend(posterior)


MEANS = np.asarray([[[0.0], [1.0], [0.7]], [[0.0], [0.0], [0.7]]])


def test_acquisition_values_are_averaged_over_draws():
    posterior = TargetPosterior(MEANS, np.zeros_like(MEANS), np.log(np.full(2, 0.5)))
    values, config, recommended = query_of(posterior)
    np.testing.assert_allclose(values, [0, 0.5, 0.7])
    assert config == 2
    assert recommended == 2


def test_acquisition_values_are_averaged_by_unequal_weights():
    posterior = TargetPosterior(MEANS, np.zeros_like(MEANS), np.log([0.9, 0.1]))
    values, config, recommended = query_of(posterior)
    np.testing.assert_allclose(values, [0, 0.9, 0.7])
    assert config == 1
    assert recommended == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_component_without_weight_does_not_count_whatever_it_predicts(bad):
    means = MEANS.copy()
    means[1] = bad
    posterior = TargetPosterior(means, np.zeros_like(means), np.asarray([0.0, -np.inf]))
    values, config, _ = query_of(posterior)
    np.testing.assert_allclose(values, [0, 1, 0.7])
    assert config == 1


def test_a_mixture_with_all_weight_on_one_component_is_that_component(mixed):
    *_, mixture = mixed

    @jax.jit
    def condition(components, log_weights):
        return Mixture.of(components, log_weights).condition(TOLD)

    sure = np.asarray([-np.inf, 0.0, -np.inf])
    posterior = jax.device_get(condition(first_of_each(mixture), sure))
    assert not np.isnan(average(posterior, posterior.variance)).any()
    np.testing.assert_array_equal(average(posterior, posterior.mean), posterior.mean[1])
