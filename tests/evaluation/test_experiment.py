import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from ConfigSpace import ConfigurationSpace, Float
from jax.sharding import Mesh
from numpy.testing import assert_allclose, assert_array_equal

from amt.curves import LearningCurves
from amt.databases import DATABASES
from amt.evaluation.experiment import (
    _STAGES,
    METHODS,
    Cell,
    Experiment,
    Settings,
    Split,
    Stage,
    make_cells,
    make_chunks,
    make_splits,
)
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.inference import fit_mle
from amt.search.acquisition import upper_confidence_bound
from amt.search.simulate import simulate
from amt.search.fitting import stack

ROOT = Path(__file__).parents[2]
TASKS, CONFIGS, EPOCHS, BUDGET = 4, 6, 5, 4


def make_curves(tasks: int = TASKS, configs: int = CONFIGS) -> LearningCurves:
    random = np.random.default_rng(tasks)
    x = random.uniform(size=(configs, 2))
    level = 0.5 + 0.3 * np.sin(3 * x @ random.uniform(size=(2, tasks)) + random.uniform(size=tasks))
    decay = np.exp(-np.arange(1, EPOCHS + 1) / 2)
    noise = 0.01 * random.normal(size=(tasks, configs, EPOCHS))
    return LearningCurves(
        configs=[{"x": float(a), "y": float(b)} for a, b in x],
        space=ConfigurationSpace({"x": Float("x", (0, 1)), "y": Float("y", (0, 1))}),
        tasks=[f"task {i}" for i in range(tasks)],
        scores=level.T[:, :, None] * (1 - decay) + noise,
    )


SETTINGS = Settings(
    inference_options={"steps": 3}, budget=BUDGET, acquisition_options={"beta": 0.5}
)
CELLS = make_cells(make_splits("made up", make_curves(), kind="leave_one_out"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "x"}, "no task kernel 'x'; there are at2"),
        ({"config": "x"}, "no config kernel 'x'"),
        ({"fidelity": "x"}, "no fidelity kernel 'x'"),
        ({"noise": "x"}, "no noise 'x'; there are homoscedastic"),
        ({"nugget": True, "inference": "nuts"}, "nuts knows no nugget: use mle or map"),
        ({"inference": "x"}, "no inference 'x'; there are mle, map, svgp, dense, nuts, svi"),
        ({"inference_options": {"passes": 1}}, "no option of mle 'passes'; there are optimizer"),
        ({"inference_options": {"optimizer": "x"}}, "no optimizer 'x'; there are adam, lbfgs"),
        (
            {"inference": "svgp", "inference_options": {"preset": "x"}},
            "no preset 'x'; there are light, reference",
        ),
        ({"acquisition": "x"}, "no acquisition 'x'; there are ucb"),
        ({"acquisition_options": {"x": 1}}, "no option of ucb 'x'; there are beta"),
        ({"acquisition": "ei", "acquisition_options": {"beta": 1}}, "there are none"),
        ({"budget": 0}, "budget must be a whole number from 1, not 0"),
        ({"inference_options": {"steps": 1.5}}, "steps must be"),
        ({"precision": "float16"}, "float32 or float64"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)


def test_leave_one_out_has_every_task_as_target_once():
    splits = make_splits("made up", make_curves(), kind="leave_one_out")
    assert [split.target.tasks[0] for split in splits] == [f"task {i}" for i in range(TASKS)]
    assert all(split.sources.num_tasks == TASKS - 1 for split in splits)


def test_chosen_pairs_keep_their_number():
    chosen = partial(make_splits, "made up", make_curves(), kind="leave_one_out")
    assert [split.index for split in chosen(pair=2)] == [2]
    assert [split.index for split in chosen(pair=[3, 1])] == [3, 1]
    with pytest.raises(ValueError, match="no pair 4; leave_one_out of made up has pairs 0 to 3"):
        chosen(pair=4)
    with pytest.raises(ValueError, match="no split 'half'; there are paper, leave_one_out"):
        make_splits("made up", make_curves(), kind="half")


def test_chunks_have_one_shape_and_all_cells():
    small, large = (Split(0, *next(make_curves(n).leave_one_out())) for n in (3, 4))
    cells = [Cell(split, seed) for seed in range(3) for split in (small, large)]
    chunks = make_chunks(cells, size=2)
    assert [len(chunk) for chunk in chunks] == [2, 1, 2, 1]
    assert all(len({cell.shape for cell in chunk}) == 1 for chunk in chunks)
    assert {id(c) for chunk in chunks for c in chunk} == {id(cell) for cell in cells}


def test_repeats_are_splits_of_their_own():
    both = np.stack([make_curves().scores, make_curves().scores + 1])
    curves = dataclasses.replace(make_curves(), scores=None, repeats=both)
    chosen = partial(make_splits, "made up", curves, kind="leave_one_out", pair=[1, 0])
    splits = chosen(repeat="all")
    assert [(s.repeat, s.index) for s in splits] == [(0, 1), (0, 0), (1, 1), (1, 0)]
    assert_array_equal(splits[2].target.scores, both[1, 1:2])
    assert [(s.repeat, s.index) for s in chosen(repeat=1)] == [(1, 1), (1, 0)]
    mean = chosen()
    assert [s.repeat for s in mean] == [-1, -1]
    assert_array_equal(mean[0].target.scores, both[:, 1:2].mean(0))
    with pytest.raises(ValueError, match="no repeat 2; there are 0, 1"):
        chosen(repeat=[0, 2])
    single = make_splits("made up", make_curves(), kind="leave_one_out", repeat=0)
    assert [s.repeat for s in single] == [0] * TASKS


def test_a_stage_runs_on_every_cell_and_compiles_once_for_each_shape():
    traced = []

    def double(x, *, offset):
        traced.append(x.shape)
        return 2 * x + offset

    stage, mesh = Stage(double), Mesh(jax.devices()[:1], ("cell",))
    for size in (2, 3, 2, 3):
        output, compiling, running = stage(mesh, jnp.ones((4, size)), offset=1)
        assert_array_equal(output, np.full((4, size), 3.0))
        assert compiling >= 0 < running
    assert traced == [(2,), (3,)]
    assert stage(mesh, jnp.ones((4, 2)), offset=2)[0].tolist() == [[4, 4]] * 4
    assert len(traced) == 3


@pytest.fixture(scope="module")
def experiment():
    return Experiment(SETTINGS, chunk=2)


@pytest.fixture(scope="module")
def together(experiment):
    return experiment.run(CELLS[:2]).trajectories


def test_every_method_runs_on_every_cell(together):
    assert tuple(together) == METHODS
    for trajectory in together.values():
        assert all(leaf.shape == (2, BUDGET) for leaf in jax.tree.leaves(trajectory))
        assert np.isfinite(trajectory.score).all()
    for index, cell in enumerate(CELLS[:2]):
        amt = together["amt"]
        scores = cell.split.target.scores[0][amt.config[index], amt.epoch[index]]
        assert_array_equal(amt.score[index], scores)


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
    jax.tree.map(lambda a, b: assert_allclose(a[1], b, rtol=1e-5), together["amt"], expected)


def test_a_chunk_that_is_not_full_shares_the_compilation_and_its_numbers(together):
    compiled = {name: len(stage._compiled) for name, stage in _STAGES.items()}
    one = Experiment(SETTINGS, chunk=2).run(CELLS[1:2])
    assert compiled == {name: len(stage._compiled) for name, stage in _STAGES.items()}
    assert one.seconds.keys() == {"compile", "fit", "condition", "loop", "baselines"}
    assert one.diagnostics == [{"converged": 0.0}]
    jax.tree.map(lambda a, b: assert_array_equal(a, b[1:]), one.trajectories, together)


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
def test_every_way_of_inference_runs_the_loop(together, inference, options, reported):
    settings = dataclasses.replace(
        SETTINGS, config="matern", inference=inference, inference_options=options
    )
    result = Experiment(settings, chunk=2).run(CELLS[:2])
    tuned = result.trajectories["amt"]
    assert np.isfinite(tuned.score).all()
    assert tuned.forecast is not None
    assert np.isfinite(tuned.forecast.log_density).all()
    assert [set(one) for one in result.diagnostics] == [reported] * 2
    assert all(np.isfinite(value) for one in result.diagnostics for value in one.values())
    others = {name: result.trajectories[name] for name in METHODS[1:]}
    jax.tree.map(assert_array_equal, others, {name: together[name] for name in METHODS[1:]})


SHARDED = """
import jax
import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from tests.evaluation.test_experiment import CELLS, Experiment, SETTINGS

assert jax.device_count() == 4
jax.config.update("jax_enable_x64", True)
several = Experiment(SETTINGS, chunk=3).run(CELLS[:3]).trajectories
one = Experiment(SETTINGS, chunk=3, devices=jax.devices()[:1]).run(CELLS[:3]).trajectories
for name, trajectory in one.items():
    for a, b in zip(jax.tree.leaves(trajectory), jax.tree.leaves(several[name]), strict=True):
        assert len(b) == 3
        compare = assert_array_equal if a.dtype.kind == "i" else assert_allclose
        compare(a, b)
"""


def test_four_devices_do_what_one_does():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SHARDED]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_seeds_and_splits_draw_from_keys_of_their_own():
    keys = [Cell(split, seed).key for split in (CELLS[0].split, CELLS[1].split) for seed in (0, 1)]
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 4


def start(cwd: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "experiments" / "at2.py"), *overrides]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> str:
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return printed


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("database=nope", f"at2.py: no database 'nope'; there are {', '.join(DATABASES)}"),
        ("kernel.config=nope", "at2.py: no config kernel 'nope'; there are deep_poly"),
    ],
)
def test_a_wrong_name_gives_one_clear_line(tmp_path, override, message):
    process = start(tmp_path, override)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert errors.startswith(message)
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_an_experiment_that_is_killed_goes_on_to_the_same_bytes(tmp_path):
    settings = "chunk=1", "seeds=3", "budget=5", "inference.steps=5"
    chunks = 5 * 3
    whole = start(tmp_path, *settings, "output=whole")

    killed = tmp_path / "killed"
    process = start(tmp_path, *settings, "output=killed")
    while not list(killed.glob("parts/*.parquet")) and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    count = len(list(killed.glob("parts/*.parquet")))
    assert process.returncode == -signal.SIGKILL
    assert 0 < count < chunks
    assert not (killed / "results.parquet").exists()

    resumed = finish(start(tmp_path, *settings, "output=killed"))
    printed = finish(whole)
    results = [tmp_path / name / "results.parquet" for name in ("whole", "killed")]
    assert results[0].read_bytes() == results[1].read_bytes()
    assert len(pd.read_parquet(results[0])) == chunks * len(METHODS) * 5
    assert f"{chunks - count} of {chunks} chunks computed" in resumed
    seconds = [json.loads((tmp_path / n / "timings.json").read_text()) for n in ("whole", "killed")]
    assert all(one["seconds"]["loop"] > 0 and one["cells"] == chunks for one in seconds)
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "killed"}
    assert str(tmp_path / "whole" / "figure.pdf") in printed


def test_an_experiment_on_a_file_of_losses(tmp_path):
    curves = make_curves()
    index = itertools.product(range(TASKS), range(CONFIGS), range(EPOCHS))
    rows = [
        {"task": f"t{t}", "config": c, "epoch": e + 1, "loss": 2 - curves.scores[t, c, e]}
        | curves.configs[c]
        for t, c, e in index
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "losses.csv", index=False)
    settings = "split=leave_one_out", "budget=4", "inference.steps=3", "output=out"
    options = "+database_options={minimise: true, columns: {score: loss}}"
    printed = finish(start(tmp_path, f"database={tmp_path / 'losses.csv'}", *settings, options))
    assert "1 of 1 chunks computed" in printed
    results = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert set(results["target"]) == {f"t{t}" for t in range(TASKS)}
    best = results[results["rank"] == 0].iloc[0]
    losses = np.min(2 - curves.scores[int(best["target"][1:])], axis=1)
    assert losses[best["recommended"]] == losses.min()
