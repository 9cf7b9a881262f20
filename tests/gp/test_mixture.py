"""The loop on an ensemble of models."""

import jax
import jax.numpy as jnp
import numpy as np

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.posterior import Ensemble, Observations, TargetPosterior
from amt.parameters import unconstrain
from amt.search.simulate import simulate
from amt.search.fitting import stack
from amt.search.rule import recommend, suggest
from tests.problems import small_curves


def test_ensemble_of_one_model_twice_tunes_as_the_model():
    curves = small_curves()
    sources, target = curves.split(curves.tasks[:3], curves.tasks[3])
    grid = CurveGrid.of(sources)
    model = MultiTaskGP.init(sources, jax.random.key(0), config="matern")
    target = jnp.asarray(target.scores[0])

    @jax.jit
    def both():
        source = model.source_posterior(grid)
        twice = Ensemble(stack([source, source]))
        return simulate(source, target, budget=8), simulate(twice, target, budget=8)

    single, ensemble = both()
    np.testing.assert_array_equal(single.config, ensemble.config)
    np.testing.assert_array_equal(single.recommended, ensemble.recommended)


def test_draws_of_an_ensemble_are_conditioned_one_by_one():
    curves = small_curves()
    grid = CurveGrid.of(curves)
    first = MultiTaskGP.init(curves, jax.random.key(0), config="matern")
    free, constrain = unconstrain(first)
    second = constrain(tuple(f + 0.2 for f in free))
    observations = Observations.empty(4, jnp.dtype(jnp.float64)).append(1, 0, 0.3)

    @jax.jit
    def posteriors():
        sources = [model.source_posterior(grid) for model in (first, second)]
        together = Ensemble(stack(sources)).condition(observations)
        return together, [source.condition(observations) for source in sources]

    together, single = posteriors()
    for draw, alone in enumerate(single):
        np.testing.assert_allclose(together.mean[draw], alone.mean, rtol=1e-10)
        np.testing.assert_allclose(together.variance[draw], alone.variance, rtol=1e-8)


def test_acquisition_values_are_averaged_over_draws():
    mean = jnp.asarray([[[0.0], [1.0], [0.7]], [[0.0], [0.0], [0.7]]])
    posterior = TargetPosterior(mean, jnp.zeros_like(mean))
    observations = Observations.empty(2, mean.dtype)
    remaining = jnp.ones((3, 1), bool)
    query = suggest(posterior, observations, remaining, lambda p, r, b: p.mean[:, 0])
    assert query.config == 2
    assert recommend(posterior) == 2
