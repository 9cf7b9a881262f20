"""The closed tuning loop on recorded learning curves, as one compiled scan.

`replay` answers the queries of any tuner that is a pure function from a target's recorded curves.
It is pure, so that many (splits of a database, seeds, models) run at once under `jax.vmap`. What
decides, and by which model, is the tuner's.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int

from amt.gp.observations import TargetPosterior
from amt.outcome import Outcome


class Forecast(NamedTuple):
    r"""Scores of a prediction of final scores, for configurations not yet trained to the end.

    With the components' predictive distributions \(N(\mu_{ik}, v_{ik})\) of the final score
    \(y_i\) of configuration i, noise included, their weights \(w_k\) and their mixture F,

    \[ \mathrm{density} = \mathrm{mean}_i \log \sum_k w_k\, N(y_i; \mu_{ik}, v_{ik}), \qquad
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
    """The queries of a tuner and what came of them, one entry a query.

    Attributes:
        config: configuration trained.
        epoch: position of the epoch trained (from 0).
        score: score observed.
        recommended: configuration recommended after that observation.
        forecast: after that observation; None for a tuner that predicts nothing.
        stop: whether the tuner would stop after that observation, for each utility that it was
            given (`until_stop`); None for one that cannot.
    """

    config: Int[Array, "query"]
    epoch: Int[Array, "query"]
    score: Float[Array, "query"]
    recommended: Int[Array, "query"]
    forecast: Forecast | None = None
    stop: Bool[Array, "query utility"] | None = None


def forecast(
    posterior: TargetPosterior,
    noise: Float[Array, "*component epoch"],
    target: Float[Array, "config epoch"],
    held_out: Bool[Array, "config"],
    outcome: Outcome | None = None,
) -> Forecast:
    r"""Score a prediction of the last scores of the configurations `held_out`.

    Args:
        outcome: transform g of the scores y that the prediction is one of; the density is then one
            of y, \(p(g(y))\, |g'(y)|\), in g' with y kept 1e-4 from the ends of [0, 1].
    """
    last = jnp.where(held_out, target[:, -1], 0)
    log_slope = jnp.zeros_like(last)
    if outcome is not None:
        inside = jnp.clip(last, 1e-4, 1 - 1e-4)
        log_slope = jnp.log(jnp.abs(jax.vmap(jax.grad(outcome.forward))(inside)))
        last = outcome.forward(last)
    posterior = posterior.widened()
    mean = posterior.mean[..., -1].reshape(-1, len(target))
    variance = (posterior.variance[..., -1] + noise[..., -1:]).reshape(-1, len(target))
    deviation = jnp.sqrt(variance)
    weights = posterior.log_weights
    log_weights = jnp.zeros(len(mean), mean.dtype) if weights is None else weights
    densities = norm.logpdf(last, mean, deviation) + log_weights[:, None]
    log_density = logsumexp(densities, axis=0) + log_slope
    center = jnp.abs(jnp.exp(log_weights) @ norm.cdf(last, mean, deviation) - 0.5)

    def average(values: Array) -> Float[Array, ""]:
        return jnp.sum(jnp.where(held_out, values, 0)) / jnp.sum(held_out)

    return Forecast(average(log_density), average(center <= 0.25), average(center <= 0.45))


class Feedback(NamedTuple):
    """The answer to a tuner's latest query.

    Before the first query nothing is `observed`, and only `remaining` has a meaning.

    Attributes:
        config: configuration trained.
        epoch: position of the epoch trained (from 0).
        score: score observed; NaN unless `observed`.
        observed: whether there is a score.
        remaining: epochs that can still be trained, of each configuration from its next one on.
    """

    config: Int[Array, ""]
    epoch: Int[Array, ""]
    score: Float[Array, ""]
    observed: Bool[Array, ""]
    remaining: Bool[Array, "config epoch"]


class Prediction(NamedTuple):
    """Marginals of the target's noise-free scores, and the noise variance of each epoch.

    Attributes:
        outcome: the transform of the scores that these are in units of; None for none.
    """

    posterior: TargetPosterior
    noise: Float[Array, "*component epoch"]
    outcome: Outcome | None = None


class Decision(NamedTuple):
    """A tuner's next query and its recommendation, given all feedback so far.

    Attributes:
        config: configuration to train for its next remaining epoch.
        recommended: configuration that is best as far as the tuner knows.
        valid: whether the query is to be answered; False where a tuner has failed.
        prediction: of the target's scores, from a tuner that makes one.
        stop: whether to stop before this query, for each of some utilities, from a tuner that can.
    """

    config: Int[Array, ""]
    recommended: Int[Array, ""]
    valid: Bool[Array, ""] | bool = True
    prediction: Prediction | None = None
    stop: Bool[Array, "utility"] | None = None


State = TypeVar("State")


def replay(
    state: State,
    step: Callable[[State, Feedback], tuple[State, Decision]],
    target: Float[Array, "config epoch"],
    *,
    budget: int,
) -> Trajectory:
    """Run a tuner on a target whose learning curves are known, for `budget` epochs in all.

    A missing score ends its configuration's curve. `score` is NaN where nothing was left to train
    of the configuration asked for, or the decision was not valid.

    Args:
        state: the tuner's before its first query.
        step: one query; the tuner sees nothing of the target but its feedback.
    """
    # A missing epoch ends a curve: what comes after it is never reached.
    reachable = jnp.cumprod(jnp.isfinite(target), axis=1).astype(bool)

    def query(carry, _):
        state, feedback = carry
        state, decision = step(state, feedback)
        remaining = feedback.remaining
        config = jnp.asarray(decision.config, int)
        epoch = jnp.argmax(remaining[config])
        observed = remaining[config, epoch] & decision.valid
        score = jnp.where(observed, target[config, epoch], jnp.nan)
        predicted = None
        if decision.prediction is not None:
            posterior, noise, outcome = decision.prediction
            predicted = forecast(posterior, noise, target, remaining[:, -1], outcome)
        before = jnp.asarray(decision.recommended, int), predicted, decision.stop
        remaining = remaining.at[config, epoch].set(False)
        feedback = Feedback(config, epoch, score, observed, remaining)
        return (state, feedback), (config, epoch, score, before)

    # What is known after a query is that before the next one: one more, which is not reported.
    none, nan = jnp.asarray(0, int), jnp.asarray(jnp.nan, target.dtype)
    first = Feedback(none, none, nan, jnp.asarray(False), reachable)
    _, (config, epoch, score, before) = jax.lax.scan(query, (state, first), length=budget + 1)
    recommended, predicted, stop = jax.tree.map(lambda leaf: leaf[1:], before)
    return Trajectory(config[:-1], epoch[:-1], score[:-1], recommended, predicted, stop)


def until_stop(trajectory: Trajectory, utility: int) -> Trajectory:
    """Cut a trajectory off where its tuner stops; the last recommendation stays.

    As a tuner's queries before it stops do not depend on when it does, one trajectory gives those
    of all utilities. After the stop `score` is NaN.

    Args:
        trajectory: without leading axes.
        utility: position of that which the tuner stops by.

    Raises:
        ValueError: the tuner cannot stop.
    """
    if trajectory.stop is None:
        raise ValueError("this tuner has no stopping rule")
    stop = trajectory.stop[:, utility]
    query = jnp.arange(len(stop))
    last = jnp.where(stop.any(), jnp.argmax(stop), len(stop) - 1)
    at = jnp.minimum(query, last)
    return trajectory._replace(
        config=trajectory.config[at],
        epoch=trajectory.epoch[at],
        score=jnp.where(query > last, jnp.nan, trajectory.score),
        recommended=trajectory.recommended[at],
    )
