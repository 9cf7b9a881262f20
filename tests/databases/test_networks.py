"""The networks of the bundled database: padding and divergence."""

import jax
import numpy as np

from amt.databases.bundled import bundled
from amt.databases.networks import correct, init, logits, loss, make_hyper
from amt.databases.raw_data import make_task

CONFIG = bundled().configs[0]


def test_padding_changes_no_result():
    """A narrow, shallow network alone, unpadded, is the one that was trained in padding."""
    config = {**CONFIG, "width": 8, "depth": 2, "activation": "tanh"}
    hyper, task = make_hyper(config, 0), make_task("breast_cancer", 0)
    key = jax.random.key(0)
    state = jax.jit(init, static_argnums=3)(hyper, task, key, 64)
    weights = jax.tree.map(np.asarray, state.weights)
    padded = np.asarray(jax.jit(logits)(weights, hyper, task.x[:9]))
    h = np.tanh(task.x[:9, : task.features] @ weights.inner[: task.features, :8])
    h = np.tanh(h @ weights.hidden[0, :8, :8])
    np.testing.assert_allclose(padded[:, :2], h @ weights.outer[:8, :2], rtol=1e-4, atol=1e-5)
    assert not padded[:, 2:].any()

    gradient = jax.jit(jax.grad(loss))(
        weights, hyper, task.x[:9], task.y[:9], np.ones(9, bool), task.classes, np.ones((3, 9, 64))
    )
    gradient = jax.tree.map(np.asarray, gradient)
    assert gradient.inner[: task.features, :8].any()
    assert not gradient.inner[:, 8:].any()
    assert not gradient.hidden[1].any()
    assert not gradient.outer[8:].any()
    assert not gradient.outer[:, 2:].any()


def test_diverged_network_predicts_class_0():
    task = make_task("breast_cancer", 0)
    hyper = make_hyper(CONFIG, 0)
    shapes = jax.eval_shape(lambda: init(hyper, task, jax.random.key(0), 16)).weights
    weights = jax.tree.map(lambda a: np.full((1, *a.shape), np.nan, np.float32), shapes)
    counts = jax.jit(correct)(weights, jax.tree.map(lambda a: a[None], hyper), task)
    splits = np.split(task.eval_y[: task.validation + task.test], [task.validation])
    np.testing.assert_array_equal(counts[0], [(split == 0).sum() for split in splits])
