"""Values and posteriors of padded arrays are those without padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.observations import Observations
from amt.search.acquisition import upper_confidence_bound
from amt.search.scoring import Progress, Room, Scorer, padded_size
from amt.space import Encoder
from tests.problems import small_configs, small_curves

OBSERVED = [(0, 1, 0.7), (6, 0, 0.4), (7, 2, 0.6)]  # 6 and 7 are the first two off the grid
PENDING = [(2, 0), (7, 3)]


@pytest.fixture(scope="module")
def source():
    curves = small_curves()
    grid = CurveGrid.of(curves)
    model = MultiTaskGP.init(curves, jax.random.key(0), config="matern")
    return jax.jit(lambda: model.source_posterior(grid))(), grid


@pytest.fixture(scope="module")
def others():
    return Encoder(small_curves().space)(small_configs(9, seed=1))


def test_padding_changes_nothing_and_is_no_candidate(source, others):
    posterior, grid = source
    progress = Progress(others[:2], OBSERVED, PENDING)
    remaining = np.random.default_rng(0).uniform(size=(6 + 9, 5)) < 0.5
    remaining[:, 0] = True
    remaining[3] = remaining[8] = False
    observed = Observations.of(OBSERVED, 3, jnp.dtype(jnp.float64))
    pending = Observations.of([(*at, 0.0) for at in PENDING], 2, jnp.dtype(jnp.float64))

    @jax.jit
    def direct(posterior):
        with_pending = posterior.condition(observed, jnp.asarray(others), pending)
        return with_pending, posterior.condition(observed, jnp.asarray(others[:2]))

    with_pending, without = direct(posterior)
    expected = upper_confidence_bound(with_pending, remaining, jnp.zeros(()))
    assert np.flatnonzero(np.isneginf(expected)).tolist() == [3, 8]
    key = jax.random.key(0)
    for room in (Room(added=3, fresh=8, observed=4, pending=5), Room(added=0, fresh=0)):
        scorer = Scorer(posterior, grid, upper_confidence_bound, room, np.ones((6, 5)))
        assert_allclose(scorer.values(progress, others[2:], remaining, key), expected, rtol=1e-9)
    actual = scorer.posterior(progress)
    assert_allclose(actual.mean, without.mean, rtol=1e-9)
    assert_allclose(actual.variance, without.variance, rtol=1e-7)


def test_few_sizes_have_room_for_all_counts():
    assert [padded_size(count, 0) for count in (0, 1, 16, 17, 100)] == [0, 16, 16, 32, 128]
    assert [padded_size(count, 8) for count in (0, 8, 9, 17)] == [8, 8, 16, 32]
    assert [padded_size(count, 64) for count in (64, 65, 200)] == [64, 128, 256]
