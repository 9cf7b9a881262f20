"""Scores of the target so far, and averages over the components of a prediction."""

import jax
import jax.numpy as jnp
import numpy as np

from amt.gp.observations import Observations, TargetPosterior

FLOAT = jnp.dtype(jnp.float64)
ENTRIES = [(3, 0, 3.5), (1, 2, 1.5)]
append = jax.jit(Observations.append)
average = jax.jit(TargetPosterior.average)


def test_observations_append_up_to_the_capacity():
    full = Observations.empty(2, FLOAT)
    assert not full.mask.any()
    for config, epoch in [(3, 0), (1, 2), (5, 5)]:
        full = append(full, config, epoch, config + 0.5)
    np.testing.assert_array_equal(full.config, [3, 1])
    np.testing.assert_array_equal(full.epoch, [0, 2])
    np.testing.assert_array_equal(full.score, [3.5, 1.5])
    assert full.mask.all()


def test_the_rest_is_padding():
    some = Observations.of(ENTRIES[:1], 4, FLOAT)
    assert some.mask.tolist() == [True, False, False, False]


def test_gathered_at_once_as_appended_one_by_one():
    together, one_by_one = Observations.of(ENTRIES, 4, FLOAT), Observations.empty(4, FLOAT)
    for config, epoch, score in ENTRIES:
        one_by_one = append(one_by_one, config, epoch, score)
    for got, want in zip(together, one_by_one, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


def test_pending_evaluations_come_behind_and_are_not_counted():
    told, pending = Observations.of(ENTRIES, 3, FLOAT), Observations.of([(0, 1, 9.0)], 2, FLOAT)
    both, under_way = jax.jit(Observations.with_pending)(told, pending)
    assert under_way is not None
    assert both.count == 2
    np.testing.assert_array_equal(both.config, [3, 1, 0, 0, 0])
    assert both.mask.tolist() == [True, True, False, False, False]
    assert under_way.tolist() == [False, False, False, True, False]
    alone, none = told.with_pending(None)
    assert alone is told
    assert none is None


def test_an_average_is_by_weights_over_the_leading_axis():
    values = np.arange(6.0).reshape(2, 3)
    posterior = TargetPosterior(values, values, np.log([0.25, 0.75]))
    np.testing.assert_allclose(average(posterior, values), [2.25, 3.25, 4.25])
    np.testing.assert_allclose(average(posterior, np.asarray([1.0, 5.0])), 4.0)
    single = TargetPosterior(values, values)
    assert single.average(values) is values
