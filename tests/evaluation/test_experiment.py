"""Tuners on many cells at once."""

import dataclasses
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from amt.evaluation.experiment import Experiment
from amt.evaluation.splits import make_cells, make_splits
from amt.evaluation.stages import stage_of
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.inference import fit_mle
from amt.parameters import stack
from amt.search.acquisition import upper_confidence_bound
from amt.search.simulate import simulate
from amt.tuners import TUNERS, Host
from amt.tuners import amt as amt_tuner
from amt.tuners.amt import Settings, amt
from amt.tuners.replay import replay_pure
from tests.problems import METHODS, small_curves
from tests.processes import Script

BUDGET, ORDERS = 4, 3
SETTINGS = Settings(inference_options={"steps": 3}, acquisition_options={"beta": 0.5})
CELLS = make_cells(make_splits("made up", small_curves(), kind="leave_one_out"))
STAGES = [stage_of(f) for f in (amt_tuner._fit, amt_tuner._condition, replay_pure)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": 0}, "budget must be a whole number from 1, not 0"),
        ({"budget": 1, "precision": "float16"}, "float32 or float64"),
    ],
)
def test_an_experiment_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Experiment(**wrong)


@pytest.fixture(scope="module")
def experiment():
    return Experiment(budget=BUDGET, chunk=2)


@pytest.fixture(scope="module")
def together(experiment):
    return experiment.run(amt(SETTINGS), CELLS[:2]).trajectory


@pytest.mark.parametrize("name", METHODS[2:])
def test_what_learns_nothing_before_runs_on_every_cell_and_order(experiment, name):
    result = experiment.run(TUNERS[name].make(), CELLS[:2], orders=ORDERS)
    assert all(leaf.shape == (2, ORDERS, BUDGET) for leaf in jax.tree.leaves(result.trajectory))
    assert np.isfinite(result.trajectory.score).all()
    assert list(result.diagnostics) == [{}] * 2
    assert result.seconds.keys() == {"compile", "loop"}


def test_the_first_order_is_the_same_whatever_their_number(experiment):
    tuner = TUNERS["random_search"].make()
    several = experiment.run(tuner, CELLS[:2], orders=ORDERS).trajectory
    alone = experiment.run(tuner, CELLS[:2]).trajectory
    jax.tree.map(lambda a, b: assert_array_equal(a[:, :1], b), several, alone)
    assert len({tuple(order) for order in several.config[0].tolist()}) > 1


def test_scores_are_those_of_the_target(together):
    assert all(leaf.shape == (2, 1, BUDGET) for leaf in jax.tree.leaves(together))
    assert np.isfinite(together.score).all()
    for index, cell in enumerate(CELLS[:2]):
        scores = cell.split.target.scores[0][together.config[index, 0], together.epoch[index, 0]]
        assert_array_equal(together.score[index, 0], scores)


def test_a_cell_does_what_the_library_does(together):
    cell = CELLS[1]
    key = jax.random.split(jax.random.split(cell.key)[0], 1)[0]
    grid = CurveGrid.of(cell.split.sources)
    starts = stack([MultiTaskGP.init(cell.split.sources, key)])
    acquisition = partial(upper_confidence_bound, beta=0.5)

    @jax.jit
    def tune(target):
        source = fit_mle(starts, grid, steps=3).posterior(grid)
        return simulate(source, target, budget=BUDGET, acquisition=acquisition)

    expected = tune(jnp.asarray(cell.split.target.scores[0]))
    jax.tree.map(lambda a, b: assert_allclose(a[1, 0], b, rtol=1e-5), together, expected)


def test_a_chunk_that_is_not_full_shares_the_compilation_and_its_numbers(together):
    compiled = [stage.compilations for stage in STAGES]
    one = Experiment(budget=BUDGET, chunk=2).run(amt(SETTINGS), CELLS[1:2])
    assert compiled == [stage.compilations for stage in STAGES]
    assert one.seconds.keys() == {"compile", "fit", "condition", "loop"}
    assert list(one.diagnostics) == [{"converged": 0.0}]
    jax.tree.map(lambda a, b: assert_array_equal(a, b[1:]), one.trajectory, together)


@pytest.mark.parametrize(
    ("inference", "options", "reported"),
    [
        ("map", {"steps": 3}, {"converged"}),
        ("dense", {"steps": 3}, {"converged"}),
        ("svgp", {"num_inducing": 20, "batch_size": 40, "passes": 2}, {"elbo"}),
        ("svi", {"map_steps": 3, "steps": 5, "kept": 3}, {"elbo"}),
        (
            "nuts",
            {"steps": 3, "chains": 2, "warmup": 12, "draws": 8, "max_tree_depth": 3, "kept": 3},
            {"r_hat", "divergences"},
        ),
    ],
)
def test_every_way_of_inference_runs_the_loop(experiment, together, inference, options, reported):
    settings = dataclasses.replace(
        SETTINGS, config="matern", inference=inference, inference_options=options
    )
    loops = STAGES[-1].compilations
    cells = CELLS[:2]
    if inference in ("nuts", "svi"):  # of many programs those that take longest to compile
        cells, experiment = CELLS[:1], Experiment(budget=BUDGET, chunk=1)
    result = experiment.run(amt(settings), cells)
    if inference == "map":  # a loop does not depend on the kernel of configurations
        assert STAGES[-1].compilations == loops
    tuned = result.trajectory
    assert np.isfinite(tuned.score).all()
    assert tuned.forecast is not None
    assert np.isfinite(tuned.forecast.log_density).all()
    assert [set(of_cell) for of_cell in result.diagnostics] == [reported] * len(cells)
    assert all(np.isfinite(v) for of_cell in result.diagnostics for v in of_cell.values())


def test_sources_that_are_incomplete_are_refused_with_their_split(experiment):
    sources = CELLS[0].split.sources
    scores = sources.scores.copy()
    scores[1, 2, 3] = np.nan
    split = CELLS[0].split._replace(sources=dataclasses.replace(sources, scores=scores), index=7)
    message = "an experiment with split 7 needs complete source curves.*task 1, configuration 2"
    with pytest.raises(ValueError, match=message):
        experiment.run(amt(SETTINGS), [CELLS[0]._replace(split=split)])


class Alone:
    """Trains and recommends one configuration, which its seed says."""

    def __init__(self, seed, problem):
        self.config = seed % problem.sources.num_configs

    def ask(self, remaining):
        return self.config if remaining[self.config].any() else int(np.argmax(remaining.any(1)))

    def tell(self, config, epoch, score):
        pass

    def recommend(self):
        return self.config


def test_a_tuner_on_the_host_has_a_seed_for_each_cell_and_order(experiment):
    result = experiment.run(Host(Alone), CELLS[:2], orders=20)
    assert result.trajectory.recommended.shape == (2, 20, BUDGET)
    for index in range(2):
        assert len(set(result.trajectory.recommended[index, :, 0].tolist())) > 2
    again = experiment.run(Host(Alone), CELLS[1:2], orders=1).trajectory
    assert_array_equal(again.score[0, 0], result.trajectory.score[1, 0])
    assert result.seconds.keys() == {"compile", "loop"}


SHARDED = """
import sys

import jax
import numpy as np

from amt.compilation import use_compilation_cache
from amt.tuners import TUNERS
from amt.tuners.amt import amt
from tests.evaluation.test_experiment import BUDGET, CELLS, Experiment, SETTINGS

use_compilation_cache()
assert jax.device_count() == 4
jax.config.update("jax_enable_x64", True)
tuners = amt(SETTINGS), TUNERS["random_search"].make()
several = [Experiment(budget=BUDGET, chunk=3).run(tuner, CELLS[:3]) for tuner in tuners]
np.savez(sys.argv[1], *jax.tree.leaves([result.trajectory for result in several]))
"""


def test_four_devices_do_what_one_does(experiment, tmp_path):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    (tmp_path / "sharded.py").write_text(SHARDED)
    arguments = [str(tmp_path / "several.npz")]
    Script(tmp_path / "sharded.py", arguments, environment=environment).finish()
    tuners = amt(SETTINGS), TUNERS["random_search"].make()
    # Two and one, of which the shapes are compiled already.
    chunks = [[experiment.run(t, c).trajectory for c in (CELLS[:2], CELLS[2:3])] for t in tuners]
    one = [jax.tree.map(lambda *leaves: np.concatenate(leaves), *chunk) for chunk in chunks]
    with np.load(tmp_path / "several.npz") as several:
        for a, name in zip(jax.tree.leaves(one), several.files, strict=True):
            assert len(several[name]) == 3
            compare = assert_array_equal if a.dtype.kind == "i" else assert_allclose
            compare(a, several[name])
