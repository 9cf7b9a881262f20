"""The closed tuning loop on recorded learning curves, as one compiled scan.

A simulation answers each query from a target's recorded curves. It is pure, so that many (splits
of a database, seeds, models) run at once under `jax.vmap`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int

from amt.gp.mixture import Mixture
from amt.gp.observations import Observations, TargetPosterior
from amt.gp.posterior import AbstractSourcePosterior
from amt.search.acquisition import Acquisition, upper_confidence_bound
from amt.search.rule import recommend, suggest


class Forecast(NamedTuple):
    r"""How well the final scores were predicted of the configurations not yet trained to the end.

    With the draws' predictive distributions \(N(\mu_{id}, v_{id})\) of the final score \(y_i\)
    of configuration i, noise included, and their average F over the draws d,

    \[ \mathrm{density} = \mathrm{mean}_i \log \mathrm{mean}_d\, N(y_i; \mu_{id}, v_{id}), \qquad
       \mathrm{coverage}_p = \mathrm{mean}_i\, 1[\,|F_i(y_i) - 1/2| \le p / 2\,] . \]

    NaN where there is no such configuration. A calibrated forecast has coverage p.

    Attributes:
        log_density: mean log predictive density, in nats.
        coverage50, coverage90: shares of the scores in the central 50% and 90% intervals.
    """

    log_density: Float[Array, "query"]
    coverage50: Float[Array, "query"]
    coverage90: Float[Array, "query"]


class Trajectory(NamedTuple):
    """What a tuner did, one entry a query.

    Attributes:
        config: configuration trained.
        epoch: position of the epoch trained (from 0).
        score: score observed.
        recommended: configuration recommended after that observation.
        forecast: after that observation; None of a tuner that predicts nothing.
    """

    config: Int[Array, "query"]
    epoch: Int[Array, "query"]
    score: Float[Array, "query"]
    recommended: Int[Array, "query"]
    forecast: Forecast | None = None


def forecast(
    posterior: TargetPosterior,
    noise: Float[Array, "*component epoch"],
    target: Float[Array, "config epoch"],
    held_out: Bool[Array, "config"],
) -> Forecast:
    """How well the last scores of the configurations `held_out` are predicted."""
    mean = posterior.mean[..., -1].reshape(-1, len(target))
    variance = (posterior.variance[..., -1] + noise[..., -1:]).reshape(-1, len(target))
    last = jnp.where(held_out, target[:, -1], 0)
    deviation = jnp.sqrt(variance)
    weights = posterior.log_weights
    log_weights = jnp.zeros(len(mean), mean.dtype) if weights is None else weights
    densities = norm.logpdf(last, mean, deviation) + log_weights[:, None]
    log_density = logsumexp(densities, axis=0)
    shares = jnp.exp(log_weights) @ norm.cdf(last, mean, deviation)
    center = jnp.abs(shares - 0.5)

    def average(values):
        return jnp.sum(jnp.where(held_out, values, 0)) / jnp.sum(held_out)

    return Forecast(average(log_density), average(center <= 0.25), average(center <= 0.45))


def simulate(
    source: AbstractSourcePosterior | Mixture,
    target: Float[Array, "config epoch"],
    *,
    budget: int,
    acquisition: Acquisition = upper_confidence_bound,
) -> Trajectory:
    """Tune on a target whose learning curves are known, for `budget` epochs in all.

    Every query trains one configuration for one more epoch (`amt.search.rule.suggest`) and
    conditions the exact posterior on the score, task similarities included. Where `target` is NaN,
    the configuration ends there. `score` is NaN from a query on that found nothing left to train, or
    whose posterior was not finite.
    """
    # A missing epoch ends a curve: what comes after it is never reached.
    reachable = jnp.cumprod(jnp.isfinite(target), axis=1).astype(bool)

    def query(carry, _):
        observations, remaining = carry
        posterior = source.condition(observations)
        config, epoch = suggest(posterior, observations, remaining, acquisition)
        usable = remaining[config, epoch] & jnp.isfinite(posterior.variance).all()
        score = jnp.where(usable, target[config, epoch], jnp.nan)
        told = observations.append(config, epoch, score)
        observations = jax.tree.map(lambda a, b: jnp.where(usable, a, b), told, observations)
        before = recommend(posterior), forecast(posterior, source.noise, target, remaining[:, -1])
        remaining = remaining.at[config, epoch].set(False)
        return (observations, remaining), (config, epoch, score, before)

    # What is known after a query is that before the next one: one more, which is not reported.
    start = Observations.empty(budget, target.dtype), reachable
    _, (config, epoch, score, before) = jax.lax.scan(query, start, length=budget + 1)
    recommended, predicted = jax.tree.map(lambda leaf: leaf[1:], before)
    return Trajectory(config[:-1], epoch[:-1], score[:-1], recommended, predicted)
