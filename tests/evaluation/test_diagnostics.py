"""ArviZ's view of a posterior, and the plot of held-out curves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from amt.evaluation.diagnostics import (
    inference_data,
    predictive_figure,
    predictive_quantiles,
    summary,
)
from amt.gp.observations import Observations

# Of `simulated`.
CHAINS, DRAWS, TASKS = 2, 100, 4


@pytest.fixture
def first(simulated):
    of_first = lambda leaf: jnp.asarray(np.asarray(leaf)[0])  # noqa: E731
    return jax.tree.map(of_first, (simulated.posterior, simulated.grid))


def test_inference_data_has_draws_statistics_and_scores(first):
    posterior, grid = first
    data = inference_data(posterior, grid, tasks="abcd")
    draws = data["posterior"]
    assert draws.sizes["chain"], draws.sizes["draw"] == (CHAINS, DRAWS)
    assert draws["means"].dims == draws["noise.variance"].dims == ("chain", "draw", "task")
    assert list(draws["task"].values) == list("abcd")
    assert_allclose(draws["means"].values.reshape(-1, TASKS), posterior.means)
    assert_allclose(draws["scales"].values.reshape(-1, TASKS), posterior.model.task.scales)
    statistics = data["sample_stats"]
    assert {"diverging", "n_steps", "acceptance_rate", "energy"} <= set(statistics.data_vars)
    assert_allclose(statistics["n_steps"], posterior.statistics.num_steps)
    assert_allclose(data["observed_data"]["scores"], grid.scores)


def test_summary_says_how_well_everything_mixed(first):
    posterior, grid = first
    table = summary(inference_data(posterior, grid))
    assert {"r_hat", "ess_bulk", "ess_tail", "mean", "sd"} <= set(table.columns)
    assert len(table) == sum(v[0, 0].size for v in posterior.sites.values()) + 2 * TASKS
    assert np.isfinite(table.to_numpy()).all()
    # The last bit of the data decides where few draws go: most have mixed, on any machine.
    assert table["r_hat"].median() < 1.1
    spread = table.loc["mean.spread", "mean"]
    assert_allclose(spread, posterior.sites["mean.spread"].mean())


def test_summary_says_which_parameter_did_not_mix(first):
    posterior, grid = first
    data = inference_data(posterior, grid)
    spread = data["posterior"]["mean.spread"]
    data["posterior"]["mean.spread"] = spread + 20 * float(spread.std()) * spread["chain"]
    r_hat = summary(data)["r_hat"]
    assert r_hat["mean.spread"] > 1.5  # of ranks, which reaches 1.83 with two chains
    assert r_hat.drop("mean.spread").median() < 1.1


def test_bands_cover_the_held_out_curve_and_the_figure_is_written(first, tmp_path):
    posterior, grid = first
    (sources,) = jax.jit(posterior.thin(20).posterior)(grid).components
    # The target repeats the first source; two of its scores are known.
    target = np.asarray(grid.scores)[0]
    told = [(config, 3, target[config, 3]) for config in (1, 3)]
    observations = Observations.of(told, 4, jnp.dtype("float64"))
    levels = (0.05, 0.5, 0.95)
    quantiles = predictive_quantiles(sources, observations, jax.random.key(0), levels=levels)
    assert quantiles.shape == (3, *target.shape)
    assert (np.diff(quantiles, axis=0) > 0).all()
    width = quantiles[2] - quantiles[0]
    assert width[1, 3] < width[:, 3].mean()
    assert np.mean((quantiles[0] < target) & (target < quantiles[2])) > 0.7
    figure = predictive_figure(quantiles, observations, target, range(4), [0, 1, 3])
    assert len([axis for axis in figure.axes if axis.get_visible()]) == 3
    figure.savefig(tmp_path / "bands.png")
    assert (tmp_path / "bands.png").stat().st_size > 5000
