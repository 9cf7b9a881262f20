"""Tuning networks that are trained meanwhile, killed again and again."""

import importlib.util
import json
import os
import random
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from amt.databases.bundled import bundled
from tests.processes import ROOT, Script

BUDGET = 14
ARGUMENTS = [
    "--target=breast_cancer",
    "--sources",
    "wisconsin",
    "pima",
    f"--budget={BUDGET}",
    "--at-once=2",
    "--steps=20",
]


@pytest.fixture(scope="module")
def script():
    """`experiments/live.py` as a module."""
    spec = importlib.util.spec_from_file_location("live", ROOT / "experiments/live.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at-once", "0"], "argument --at-once: must be a whole number from 1, not 0"),
        (["--steps", "0"], "argument --steps: must be a whole number from 1, not 0"),
        (["--budget", "0"], "argument --budget: must be a whole number from 1, not 0"),
        (["--budget=-3"], "argument --budget: must be a whole number from 1, not -3"),
        (["--target", "segment"], "argument --target: segment is among the --sources"),
    ],
)
def test_arguments_that_cannot_be(script, arguments, message, capsys):
    with pytest.raises(SystemExit):
        script.main(arguments)
    assert capsys.readouterr().err.splitlines()[-1].endswith(message)


def test_networks_are_those_of_the_database_however_often_training_stops(script, tmp_path):
    curves = bundled().repeat(0).select(tasks=["breast_cancer"])
    rows = 142
    number = 8
    stored = curves.scores[0, number, :4]
    train = script.Trainer("breast_cancer", 0, tmp_path / "once")
    accuracy = [train(number, curves.configs[number], epoch)[0] for epoch in (4, 2, 3, 1)]
    # Of another kind of processor than the database's, a few rows come out otherwise.
    np.testing.assert_allclose(accuracy, stored[[3, 1, 2, 0]], atol=2.5 / rows)
    for epoch in (1, 2, 4):
        again = script.Trainer("breast_cancer", 0, tmp_path / "again")
        assert again(number, curves.configs[number], epoch) == train(
            number, curves.configs[number], epoch
        )
    with (
        np.load(tmp_path / "once" / f"{number}.npz") as once,
        np.load(tmp_path / "again" / f"{number}.npz") as again,
    ):
        for name in once.files:
            np.testing.assert_array_equal(once[name], again[name])


def start(folder: Path, cache: Path) -> Script:
    """The script in a process, with the compiled programs of the tests at hand, else in `cache`."""
    arguments = [*ARGUMENTS, f"--folder={folder}"]
    environment = {"AMT_CACHE_DIR": str(cache)} | os.environ
    return Script(ROOT / "experiments/live.py", arguments, environment=environment)


def told(folder: Path) -> list:
    if not (folder / "tuner.npz").exists():
        return []
    with np.load(folder / "tuner.npz", allow_pickle=False) as file:
        return json.loads(str(file["state"]))["told"]


def test_killed_at_random_moments_it_loses_nothing_told_and_ends_the_same(tmp_path):
    assert jax.default_backend() == "cpu"
    output = start(tmp_path / "whole", tmp_path / "cache").finish()
    assert "beyond the budget, network" in output.split("\nrecommended:")[0].splitlines()[-1]
    expected = told(tmp_path / "whole")
    assert len(expected) == BUDGET

    rng, killed, before = random.Random(0), tmp_path / "killed", []
    kills = 0
    while len(before) < BUDGET - 1 and kills < 3:
        process = start(killed, tmp_path / "cache")
        lines = rng.randrange(4)
        while process.output.count("\n") < lines and process.status is None:
            time.sleep(0.01)
        time.sleep(rng.random() * (0.3 if lines else 4))
        process.kill()
        process.wait()
        printed = process.output.splitlines()
        kills += 1
        after = told(killed)
        assert after[: len(before)] == before
        assert len(after) >= len(before) + len([line for line in printed if "epoch" in line])
        assert after == expected[: len(after)]
        before = after
    assert kills == 3
    last = start(killed, tmp_path / "cache").finish()
    assert last.splitlines()[-5:] == output.splitlines()[-5:]
    assert told(killed) == expected
