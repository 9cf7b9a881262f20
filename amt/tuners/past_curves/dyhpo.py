"""DyHPO, warm-started: its deep kernel is trained on the curves of the sources first.

Each step of Adam is on the likelihood of scores of one source, drawn at random, standardised.
Then the tuner of `amt.tuners.one_task.dyhpo` goes on with it, and begins with the head of the
portfolio (`amt.tuners.past_tasks.portfolio`).

Source: Arango, Ferreira, Kadra, Hutter, Grabocka (2024), Quick-Tune, for a pretrained DyHPO;
Wistuba, Kadra, Grabocka (2022) for the tuner.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from amt.tuners.deep import negative_log_likelihood, train
from amt.tuners.one_task.dyhpo import CurveKernel, State, start, step
from amt.tuners.past_tasks.pretrained import FinalScores
from amt.tuners.record import HostProblem, Prepared, Pure, Record, RunStage

POINTS, STEPS, LEARNING_RATE = 64, 400, 0.005


class Learned(eqx.Module):
    """The kernel, and where to start."""

    kernel: CurveKernel
    features: Float[Array, "config feature"]
    place: Float[Array, "config"]
    num_epochs: int = eqx.field(static=True)
    budget: int = eqx.field(static=True)


def pretrain(
    key: PRNGKeyArray,
    sources: FinalScores,
    curves: Float[Array, "task config epoch"],
    *,
    budget: int,
) -> Learned:
    """Train on the sources."""
    of_net, steps = jax.random.split(key)
    features, dtype = sources.features, curves.dtype
    kernel = CurveKernel.init(features.shape[1], of_net, dtype)
    epochs = jnp.arange(curves.shape[2])

    def loss(kernel: CurveKernel, key: PRNGKeyArray) -> Float[Array, ""]:
        of_task, of_config, of_epoch = jax.random.split(key, 3)
        task = jax.random.randint(of_task, (), 0, len(curves))
        config = jax.random.randint(of_config, (POINTS,), 0, curves.shape[1])
        epoch = jax.random.randint(of_epoch, (POINTS,), 0, curves.shape[2])
        before = jnp.where(epochs < epoch[:, None], curves[task, config], 0)
        values = curves[task, config, epoch]
        scale = jnp.std(values)
        values = (values - jnp.mean(values)) / jnp.where(scale > 1e-6, scale, 1)
        embedded = kernel.embed(features[config], (epoch + 1) / len(epochs), before)
        gram = kernel.gram(embedded, embedded) + kernel.noise * jnp.eye(POINTS)
        return negative_log_likelihood(gram, values[None])

    kernel = train(kernel, loss, steps, steps=STEPS, learning_rate=LEARNING_RATE)
    return Learned(kernel, features, sources.place, len(epochs), budget)


def prepare(
    problems: Sequence[HostProblem], keys: Sequence[PRNGKeyArray], dtype: Any, stage: RunStage
) -> Prepared:
    """Train on the sources of each problem; what is missing of a curve counts as its last score."""
    sources = FinalScores.of(problems, dtype)
    curves = jnp.stack([jnp.asarray(filled(p.sources.scores), dtype) for p in problems])
    stacked = jnp.stack(list(keys))
    learned = stage("fit", pretrain, stacked, sources, curves, budget=problems[0].budget)
    return Prepared(learned, [{}] * len(problems))


def filled(scores: Float[np.ndarray, "*task epoch"]) -> Float[np.ndarray, "*task epoch"]:
    """Curves in which a missing score is the one before it, at first the lowest of all."""
    last = [np.where(np.isfinite(scores[..., 0]), scores[..., 0], np.nanmin(scores))]
    for epoch in range(1, scores.shape[-1]):
        last.append(np.where(np.isfinite(scores[..., epoch]), scores[..., epoch], last[-1]))
    return np.stack(last, -1)


def init(key: PRNGKeyArray, learned: Learned) -> State:
    """Start with the kernel that was trained."""
    state = start(learned.kernel, learned.features, learned.num_epochs, learned.budget, key)
    return eqx.tree_at(lambda of: of.start, state, jnp.argmin(learned.place))


RECORD = Record(
    name="dyhpo_warm",
    label="DyHPO, warm-started",
    source="Arango et al. (2024), Quick-Tune; Wistuba, Kadra, Grabocka (2022)",
    make=lambda: Pure(init, step, prepare),
)
