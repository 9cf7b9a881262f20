"""Diagnostics of a posterior with ArviZ, and posterior-predictive plots of learning curves."""

from collections.abc import Sequence

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array, Float, PRNGKeyArray
from matplotlib.figure import Figure

from amt.gp.grid import CurveGrid
from amt.gp.observations import Observations
from amt.gp.posterior import AbstractSourcePosterior
from amt.inference.draws import Draws
from amt.kernels.task.scaled import ScaledTask


def inference_data(
    posterior: Draws, grid: CurveGrid, *, tasks: Sequence[str] | None = None
) -> az.InferenceData:
    """Draws, sampler statistics, task means and the scores, for ArviZ.

    Groups: `posterior` with the sites of the hierarchical model, and what is made of them, the
    task means (`means`) and output scales (`scales`); `sample_stats` with
    `diverging`, `n_steps`, `acceptance_rate`, `energy` and `step_size` (of NUTS); `observed_data`
    with the source scores.

    Args:
        tasks: names of the tasks, else their numbers.
    """
    sites = {name: np.asarray(value) for name, value in posterior.sites.items()}
    leading = next(iter(sites.values())).shape[:2]
    derived = {"means": posterior.means}
    if isinstance(posterior.model.task, ScaledTask):
        derived["scales"] = posterior.model.task.scales
    sites |= {name: np.asarray(x).reshape(*leading, -1) for name, x in derived.items()}
    by_task = [n for n in ("means", "scales", "task.scales", "noise.variance") if n in sites]
    statistics, names = None, {"num_steps": "n_steps", "accept_prob": "acceptance_rate"}
    if posterior.statistics is not None:
        recorded = posterior.statistics._asdict()
        del recorded["warmup_steps"]
        statistics = {names.get(name, name): np.asarray(x) for name, x in recorded.items()}
    num_tasks = posterior.means.shape[1]
    return az.from_dict(
        posterior=sites,
        sample_stats=statistics,
        observed_data={"scores": np.asarray(grid.scores)},
        coords={"task": list(tasks or range(num_tasks))},
        dims={name: ["task"] for name in by_task} | {"scores": ["task", "config", "epoch"]},
    )


def summary(data: az.InferenceData) -> pd.DataFrame:
    """Mean, sd, 94% interval, R-hat and effective sample sizes of everything that was drawn."""
    table = az.summary(data, round_to="none")
    assert isinstance(table, pd.DataFrame)
    return table


def predictive_quantiles(
    sources: AbstractSourcePosterior,
    observations: Observations,
    key: PRNGKeyArray,
    *,
    levels: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
    samples: int = 20,
) -> Float[Array, "level config epoch"]:
    """Quantiles of the target's scores, noise included, under the mixture over all draws.

    Args:
        sources: source posteriors stacked along a leading axis of draws of equal weight
            (a member of `amt.gp.mixture.Mixture.components`).
        observations: what is known of the target.
        samples: scores simulated from each draw; the quantiles are theirs.
    """

    def simulate(source: AbstractSourcePosterior, key: PRNGKeyArray):
        posterior = source.condition(observations)
        standard = jax.random.normal(key, (samples, *posterior.mean.shape), posterior.mean.dtype)
        return posterior.mean + jnp.sqrt(posterior.variance + source.noise) * standard

    keys = jax.random.split(key, len(sources.source_mean))
    scores = jax.lax.map(lambda args: simulate(*args), (sources, keys))
    return jnp.quantile(scores.reshape(-1, *scores.shape[2:]), jnp.asarray(levels), axis=0)


def predictive_figure(
    quantiles: Float[Array, "level config epoch"],
    observations: Observations,
    target: Float[np.ndarray, "config epoch"],
    epochs: Sequence[int],
    configs: Sequence[int],
) -> Figure:
    """Held-out learning curves in their predictive bands, one panel a configuration.

    Args:
        quantiles: of `predictive_quantiles`, at symmetric levels, the median in the middle.
        observations: what the bands are conditioned on, drawn as dots.
        target: the held-out scores.
        epochs: of the last axis.
        configs: positions of the configurations to draw.
    """
    columns = min(len(configs), 4)
    rows = -(-len(configs) // columns)
    figure = Figure(figsize=(2.2 * columns + 0.4, 1.9 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    bands, middle = np.asarray(quantiles), len(quantiles) // 2
    seen = int(observations.count)
    for panel, config in zip(panels, configs, strict=False):
        for outer in range(middle):
            low, high = bands[outer, config], bands[-1 - outer, config]
            panel.fill_between(epochs, low, high, color="#0072B2", alpha=0.2, lw=0)
        panel.plot(epochs, bands[middle, config], color="#0072B2", lw=1.4, label="median")
        panel.plot(epochs, target[config], color="#D55E00", ls="--", lw=1.2, label="held out")
        of_config = np.asarray(observations.config[:seen]) == config
        at = np.asarray(observations.epoch[:seen])[of_config]
        score = np.asarray(observations.score[:seen])[of_config]
        panel.plot(np.asarray(epochs)[at], score, "k.", ms=5, label="observed")
        panel.set_title(f"configuration {config}", fontsize="small")
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(configs) :]:
        panel.set_visible(False)
    figure.supxlabel("epoch", fontsize="small")
    figure.supylabel("score", fontsize="small")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure
