"""Pretraining a prior of final scores on the sources, and expected improvement under it."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from amt.gp.observations import TargetPosterior
from amt.search.acquisition import log_expected_improvement
from amt.tuners import full_training
from amt.tuners.final_score_gp import final_scores
from amt.tuners.past_tasks.portfolio import portfolio
from amt.tuners.record import HostProblem, Prepared, RunStage


class FinalScores(eqx.Module):
    """Final scores of the sources, for many problems stacked along a leading axis.

    Attributes:
        features: encoded configurations.
        scores: as they are.
        level, scale: means over the tasks of their mean and standard deviation.
        place: of each configuration in the portfolio (`amt.tuners.past_tasks.portfolio`), from 0.
    """

    features: Float[Array, "config feature"]
    scores: Float[Array, "task config"]
    level: Float[Array, ""]
    scale: Float[Array, ""]
    place: Float[Array, "config"]

    @classmethod
    def of(cls, problems: Sequence[HostProblem], dtype: Any) -> "FinalScores":
        each = []
        for problem in problems:
            scores = final_scores(problem.sources)
            scale = scores.std(1).mean() or 1.0
            arrays = scores, scores.mean(), scale, np.argsort(portfolio(scores))
            each.append(cls(problem.sources.features, *arrays))  # pyright: ignore
        return jax.tree.map(
            lambda *leaves: jnp.stack([jnp.asarray(x, dtype) for x in leaves]), *each
        )


def prepare(
    problems: Sequence[HostProblem],
    keys: Sequence[PRNGKeyArray],
    dtype: Any,
    stage: RunStage,
    *,
    pretrain: Callable[..., Any],
) -> Prepared:
    """Pretrain on the sources of each problem: by a function of a key, them and the capacity."""
    sources = FinalScores.of(problems, dtype)
    room = full_training.capacity(problems[0].budget, problems[0].sources.num_epochs)
    learned = stage("fit", pretrain, jnp.stack(list(keys)), sources, capacity=room)
    return Prepared(learned, [{}] * len(problems))


def condition(
    mean: Float[Array, "config"],
    gram: Float[Array, "config config"],
    noise: Float[Array, ""],
    configs: Int[Array, "obs"],
    mask: Bool[Array, "obs"],
    scores: Float[Array, "obs"],
) -> tuple[Float[Array, "config"], Float[Array, "config"]]:
    """Mean and variance of all configurations given the scores of some, where `mask` is set."""
    cross = jnp.where(mask, gram[:, configs], 0)
    own = jnp.where(mask[:, None] & mask, gram[configs][:, configs], 0)
    root = jnp.linalg.cholesky(own + jnp.diag(jnp.where(mask, noise, 1)))
    residual = jnp.where(mask, scores - mean[configs], 0)
    whitened = solve_triangular(root, cross.T, lower=True)
    variance = jnp.diagonal(gram) - jnp.sum(jnp.square(whitened), 0)
    return mean + cross @ cho_solve((root, True), residual), jnp.maximum(variance, 1e-12)


def improvement(
    mean: Float[Array, "config"],
    variance: Float[Array, "config"],
    mask: Bool[Array, "obs"],
    scores: Float[Array, "obs"],
    start: Float[Array, "config"],
) -> Float[Array, "config"]:
    """Logarithm of the expected improvement over the best score; `start` before there is one."""
    best = jnp.where(mask.any(), jnp.max(jnp.where(mask, scores, -jnp.inf)), 0)
    every = jnp.ones((len(mean), 1), bool)
    posterior = TargetPosterior(mean[:, None], variance[:, None])
    return jnp.where(mask.any(), log_expected_improvement(posterior, every, best), start)
