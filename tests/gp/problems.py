"""Random sources, targets and observations, all of one shape unless asked for another."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from amt.gp.factors import Factors, Grams
from amt.gp.observations import Observations
from amt.gp.solvers import ObservedCurves
from amt.gp.sources import Inputs, Sources
from tests.oracle import Gram, KnownTask

SHAPE = TASKS, CONFIGS, EPOCHS = 3, 4, 5
EXTRA, CAPACITY = 4, 6
SEEDS = st.integers(0, 2**31 - 1)
COUNTS = st.integers(0, 5)
# Scores missing anywhere, the ends of curves, all but one score of one task, and the ends of curves
# but for two whole ones of each task, which then have a way of their own.
MISSING = st.sampled_from(["anywhere", "curves", "few", "whole"])
MISSING_OF_ONE_SHAPE = st.sampled_from(["anywhere", "curves", "few"])


def random_gram(rng, n, rank=None):
    root = rng.normal(size=(n, rank or n))
    return root @ root.T / root.shape[1]


def random_mask(seed, kind, shape=SHAPE):
    """Which scores there are, at least one of each task; all of the kind None."""
    if kind is None:
        return np.ones(shape, bool)
    rng = np.random.default_rng(seed)
    if kind in ("whole", "curves"):
        mask = np.arange(shape[2]) < rng.integers(0, shape[2] + 1, shape[:2])[..., None]
        if kind == "whole":
            mask[:, 1:3] = True
    else:
        mask = rng.random(shape) < 0.5
    if kind == "few":
        mask[0] = False
    mask[:, 0, 0] = True
    return mask


def random_sources(seed, missing=None, shape=SHAPE, *, degenerate=False, nugget=False) -> Sources:
    """Sources of random Gram matrices, which know `EXTRA` more configurations and two more epochs.

    Args:
        missing: a kind of `random_mask`.
        degenerate: the fidelity has rank 1, and configurations are alike.
        nugget: of tasks, as large as the kernel, and of some 0.
    """
    rng = np.random.default_rng(seed)
    tasks, configs, epochs = shape
    config = random_gram(rng, configs + EXTRA)
    if degenerate:
        alike = rng.integers(0, configs, len(config))
        config = config[np.ix_(alike, alike)]
    full = random_gram(rng, tasks + 1)
    fidelity = random_gram(rng, epochs + 2, 1 if degenerate else None)
    factors = Factors(
        Grams(full[:-1, :-1], config[:configs, :configs], fidelity[:epochs, :epochs]),
        np.exp(rng.normal(-2, 0.5, tasks)),
        np.exp(rng.normal(0, 0.5, epochs)),
        rng.choice([0.0, 0.3, 1.0, 2.0], tasks) if nugget else None,
    )
    scores = np.where(random_mask(seed, missing, shape), rng.normal(size=shape), np.nan)
    inputs = Inputs(
        Gram(config), Gram(fidelity), np.arange(configs)[:, None] + 0.0, np.arange(epochs) + 0.0
    )
    return jax.device_put(Sources(KnownTask(full), factors, scores, inputs))


def with_full(sources: Sources, full) -> Sources:
    """The same with other covariances of the tasks."""
    full = jnp.asarray(full)
    grams = sources.factors.grams._replace(task=full[:-1, :-1])
    factors = sources.factors._replace(grams=grams)
    return Sources(KnownTask(full), factors, sources.scores, sources.inputs)


def extra_features(shape=SHAPE):
    """Features of the configurations off the grid."""
    return shape[1] + np.arange(EXTRA)[:, None] + 0.0


def random_observations(seed, count, configs=CONFIGS, epochs=EPOCHS) -> Observations:
    """Scores of a target, of different (configuration, epoch); padding has values too."""
    rng = np.random.default_rng(seed)
    index = rng.permutation(configs * epochs)[:CAPACITY]
    return Observations(
        np.resize(index // epochs, CAPACITY),
        np.resize(index % epochs, CAPACITY),
        rng.normal(size=CAPACITY),
        np.asarray(min(count, len(index))),
    )


def observed_curves(scores, whole=0, capacity=None) -> ObservedCurves:
    """Take `whole` whole curves, and the others that have scores, by default with room for all."""
    there = np.isfinite(np.asarray(scores))
    size = there[..., 0].size
    first = np.flatnonzero(there.all(2))[:whole]
    part = np.setdiff1d(np.flatnonzero(there.any(2)), first)
    capacity = size - len(first) if capacity is None else capacity
    rest = np.full(capacity - len(part), size)
    return ObservedCurves(*jax.device_put((first, np.r_[part, rest])), there.shape[2])


def observed_curves_of(sources: Sources, missing) -> ObservedCurves:
    """Two whole curves of each task by themselves where there are for sure as many."""
    return observed_curves(sources.scores, 2 * len(sources.scores) if missing == "whole" else 0)


condition = jax.jit(lambda posterior, *arguments: posterior.condition(*arguments))
response = jax.jit(lambda posterior, sources: posterior.response(sources.rows()))


def in_float32(tree):
    """The same with the numbers in float32."""

    def single(leaf):
        return np.asarray(leaf, np.float32) if eqx.is_inexact_array_like(leaf) else leaf

    return jax.tree.map(single, tree)


def symmetric(tree):
    """Gradients with respect to symmetric matrices, whichever of their halves were used."""
    grams = jax.tree.map(lambda g: g + g.T, tree.grams)
    return tree._replace(grams=grams)


def assert_close(got, want, tolerance=1e-8):
    """Leaf by leaf, relative to the largest value of each and at least 1."""
    pairs = zip(*map(jax.tree.leaves, jax.device_get((got, want))), strict=True)
    for mine, theirs in pairs:
        assert mine.shape == theirs.shape
        scale = 1 + np.abs(theirs).max(initial=0)
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance * scale)
