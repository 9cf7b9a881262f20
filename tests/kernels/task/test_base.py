"""Every task kernel: how a target joins, derivatives, precisions, and stacked kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amt.kernels import ICM, RankAgreement, make_kernel
from amt.kernels.task import GivenGram
from amt.parameters import unconstrain
from tests.kernels.task.problems import (
    NAMES,
    ONE_TASK,
    SHAPE,
    assert_psd,
    gram_of,
    join,
    kernel_of,
    random_scores,
    seen_of,
)
from tests.problems import small_curves

KEY = jax.random.key(0)


@pytest.mark.parametrize("name", ["icm", "latent"])
def test_a_nugget_is_one_more_error_of_what_the_target_shows(name):
    """As is the target's own part, which is in proportion to the prior."""
    scores = random_scores(SHAPE, 2)
    kernel, seen = kernel_of(name, scores), seen_of(scores, 2)
    if name == "icm":
        own = np.mean(kernel.kappa)
    else:
        own = np.mean(1 / np.diagonal(np.linalg.inv(gram_of(kernel))))
    both = seen._replace(prior=3 * seen.prior)
    got = np.asarray(join(kernel, seen._replace(nugget=2 * own * seen.prior)))
    np.testing.assert_allclose(got, join(kernel, both), rtol=1e-8)
    assert np.abs(got - join(kernel, seen)).max() > 1e-3


def test_a_kernel_of_given_values_cannot_be_joined():
    scores = random_scores(SHAPE, 0)
    joined = GivenGram(gram_of(kernel_of("latent", scores)))
    with pytest.raises(TypeError, match="not known"):
        joined.with_target(seen_of(scores, 0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_a_joined_kernel_is_definite_and_has_the_targets_variance(name, missing):
    for seed in range(5):
        scores = random_scores(SHAPE, seed, missing)
        kernel, seen = kernel_of(name, scores, seed), seen_of(scores, seed)
        gram = np.asarray(join(kernel, seen))
        assert gram.shape == (5, 5)
        assert_psd(gram)
        if isinstance(kernel, ICM):
            assert gram[-1, -1] > 0
        else:
            np.testing.assert_allclose(np.diagonal(gram), kernel.scale, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_padding_and_order_of_observations_do_not_matter(name):
    scores = random_scores(SHAPE, 1)
    kernel, seen = kernel_of(name, scores), seen_of(scores, 1)
    expected = join(kernel, seen)
    rng = np.random.default_rng(0)

    def padded(values):
        if values.ndim == 0:
            return values
        widths = [(0, 3 if size == 6 else 0) for size in values.shape]
        return np.pad(values, widths, constant_values=False if values.dtype == bool else 77)

    more = jax.tree.map(lambda v: padded(np.asarray(v)), seen)
    np.testing.assert_allclose(join(kernel, more), expected, rtol=1e-9)

    order = rng.permutation(6)
    shuffled = seen._replace(
        score=seen.score[order],
        source=seen.source[order],
        residual=seen.residual[order],
        response=seen.response[order],
        prior=seen.prior[order][:, order],
        noise=seen.noise[order],
    )
    np.testing.assert_allclose(join(kernel, shuffled), expected, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [ONE_TASK, SHAPE])
def test_gradients_are_finite_at_the_edges(name, shape):
    scores = random_scores(shape, 0)
    scores[-1] = scores[0]
    kernel = kernel_of(name, scores)
    free, constrain = unconstrain(kernel)
    weight = np.random.default_rng(0).normal(size=(shape[0], shape[0]))
    gradient = jax.jit(jax.grad(lambda free: jnp.sum(weight * constrain(free).gram())))
    for log in (np.log(1e-6), 0.0, np.log(1e6)):
        start = tuple(np.full_like(leaf, log) for leaf in free)
        assert all(np.isfinite(leaf).all() for leaf in gradient(start))


@pytest.mark.parametrize("name", NAMES)
def test_one_source_and_extreme_parameters_leave_a_joined_kernel_finite(name):
    for shape in (ONE_TASK, SHAPE):
        scores = random_scores(shape, 0)
        free, constrain = unconstrain(kernel_of(name, scores))
        seen = seen_of(scores, 0)
        for log in (np.log(1e-6), 0.0, np.log(1e6)):
            kernel = constrain(tuple(np.full_like(leaf, log) for leaf in free))
            gram = np.asarray(join(kernel, seen))
            assert np.isfinite(gram).all()
            bound = np.sqrt(gram[-1, -1] * np.diagonal(gram)[:-1])
            assert (np.abs(gram[-1, :-1]) <= bound * (1 + 1e-6)).all()


@pytest.mark.parametrize("name", NAMES)
def test_float32(name):
    scores = random_scores(SHAPE, 0)
    seen = seen_of(scores, 0)
    kernel = kernel_of(name, scores)
    expected = gram_of(kernel), join(kernel, seen)
    kernel, seen = jax.tree.map(
        lambda v: np.asarray(v, np.float32) if np.asarray(v).dtype == np.float64 else v,
        (kernel, seen._replace(share=None)),
    )
    seen = seen._replace(share=1 / 12)
    start = kernel_of(name, scores, dtype=jnp.float32)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(start))
    for actual, exact in zip((gram_of(kernel), join(kernel, seen)), expected, strict=True):
        assert actual.dtype == jnp.float32
        np.testing.assert_allclose(actual, exact, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_jit_and_vmap_over_stacked_kernels(name):
    scores = random_scores(SHAPE, 0)
    kernels = [kernel_of(name, scores, seed) for seed in range(3)]
    seen = seen_of(scores, 0)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *kernels)
    batched = jax.jit(jax.vmap(lambda k: (k.gram(), k.with_target(seen).gram())))(stacked)
    batched = jax.device_get(batched)
    for index, kernel in enumerate(kernels):
        np.testing.assert_allclose(batched[0][index], gram_of(kernel), rtol=1e-10)
        np.testing.assert_allclose(batched[1][index], join(kernel, seen), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_keys_vary_the_start(name):
    scores = random_scores(SHAPE, 0)
    first, second = (gram_of(kernel_of(name, scores, seed)) for seed in (0, 1))
    assert not np.allclose(first, second)


def test_options_reach_the_kernel():
    curves = small_curves()
    assert make_kernel("task", "icm", curves, KEY, rank=3).loadings.shape == (4, 3)
    assert make_kernel("task", "latent", curves, KEY, dimension=5).embedding.shape == (4, 5)


def test_tasks_that_are_all_alike():
    scores = np.tile(random_scores(ONE_TASK, 0), (4, 1, 1))
    for name in NAMES:
        kernel = kernel_of(name, scores)
        assert np.isfinite(join(kernel, seen_of(scores, 0))).all()
    assert isinstance(kernel_of("rank", scores), RankAgreement)
