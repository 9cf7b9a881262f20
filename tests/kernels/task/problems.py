"""Task kernels, and targets that join them, for the tests of each."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from amt.kernels import KERNELS, TargetObservations

NAMES = list(KERNELS["task"])
SEEDS = st.integers(0, 2**31 - 1)
MISSING = st.sampled_from([0.0, 0.4])
# Most tests share a shape, as each compiles anew; one task alone is an example of its own.
SHAPE = (4, 4, 3)
ONE_TASK = (1, 4, 3)

gram_of = jax.jit(lambda kernel: kernel.gram())
evaluate = jax.jit(lambda kernel, tasks: kernel(tasks, tasks))
join = jax.jit(lambda kernel, seen: kernel.with_target(seen).gram())
joined_kernel = jax.jit(lambda kernel, seen: kernel.with_target(seen))


def observations(score, source, mask=None, share=0.05, seed=0):
    """Observations of a target, as `amt.gp.posterior` makes them; what it computes at random."""
    rng = np.random.default_rng(seed)
    size, num_tasks = source.shape
    root = rng.normal(size=(size, size)) / size**0.5
    return TargetObservations(
        score=score,
        mask=np.ones(size, bool) if mask is None else mask,
        source=source,
        residual=score - 0.5,
        response=rng.normal(size=(size, num_tasks)),
        prior=root @ root.T,
        noise=rng.uniform(0.01, 0.02, size),
        mean_variance=np.asarray(0.1),
        share=share,
    )


def random_scores(shape, seed, missing=0.0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=shape) + 2 * rng.normal(size=shape[1:])
    # Rounded, so that there are ties.
    return np.where(rng.uniform(size=shape) < missing, np.nan, np.round(scores, 1))


def kernel_of(name, scores, seed=0, dtype=jnp.float64):
    return KERNELS["task"][name].init(scores, jax.random.key(seed), dtype)


def seen_of(scores, seed, count=6):
    """Observations of a target on a random part of the grid."""
    rng = np.random.default_rng(seed)
    cell = rng.choice(scores[0].size, count, replace=False)
    source = scores.reshape(len(scores), -1)[:, cell].T
    target = np.round(2 * rng.normal(size=count), 1)
    return observations(target, source, share=1 / scores[0].size, seed=seed)


def assert_psd(gram):
    gram = np.asarray(gram)
    np.testing.assert_allclose(gram, gram.T, atol=1e-14 * np.trace(gram))
    assert np.linalg.eigvalsh(gram).min() > -1e-10 * np.trace(gram)
