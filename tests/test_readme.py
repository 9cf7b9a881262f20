"""What the README shows works as it stands."""

import math
import re
import runpy
import shlex
import sys
from pathlib import Path

import optuna
import pytest

from amt.databases import load

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the code of a section in an empty folder, and returns its names."""
    monkeypatch.chdir(tmp_path)

    def run(title: str, **names) -> dict:
        text = README.read_text()
        section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
        assert section is not None
        for language, code in re.findall(r"^```(\w+)\n(.*?)^```", section[1], re.M | re.S):
            if language == "python":
                exec(compile(code, "README.md", "exec"), names)
                continue
            for line in code.splitlines():
                program, option, module, *arguments = shlex.split(line)
                assert (program, option) == ("python", "-m")
                monkeypatch.setattr(sys, "argv", [module, *arguments])
                with pytest.raises(SystemExit) as status:
                    runpy.run_module(module, run_name="__main__")
                assert status.value.code == 0
        return names

    return run


def test_the_tuner_of_the_readme_finds_a_good_configuration(run):
    names = run("Tune")
    target = load("bundled").repeat(0).select(tasks=["vowel"]).scores[0]
    chosen = target[names["tuner"].configs.index(names["best"])].max()
    assert (target.max(1) > chosen).mean() < 0.2


def test_own_learning_curves_are_read_and_tuned_on(run, capsys):
    names = run("Your own learning curves")
    assert "momentum: real from 0.5 to 0.99, if optimizer == 'sgd'" in capsys.readouterr().out
    curves, target, best = names["curves"], names["target"], names["best"]
    assert curves.scores.shape == (4, 30, 10)
    losses = curves.outcome.inverse(target.scores[0, :, -1])
    assert names["validation_loss"](-2.4, best, 10) < losses.min() + 0.05


def make_objective(best):
    """A made-up accuracy; `best` is the task's best learning rate, as log10."""

    def objective(trial):
        rate = trial.suggest_float("learning_rate", 1e-5, 1, log=True)
        width = trial.suggest_int("width", 16, 256, log=True)
        final = 0.9 - (math.log10(rate) - best) ** 2 / 20 - (math.log2(width) - 7) ** 2 / 100
        for epoch in range(10):
            accuracy = final - math.exp(-epoch / 4) / 2
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    return objective


def full_study(best, **where) -> optuna.Study:
    """Every configuration of a grid trained to the end."""
    grid = {"learning_rate": [1e-5, 1e-4, 1e-3, 1e-2, 1e-1], "width": [16, 64, 256]}
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.GridSampler(grid),
        pruner=optuna.pruners.NopPruner(),
        **where,
    )
    study.optimize(make_objective(best))
    return study


def test_an_optuna_study_learns_from_past_ones(run):
    for name, best in {"first": -3.0, "second": -2.5}.items():
        full_study(best, study_name=name, storage="sqlite:///past.db")
    names = run("With Optuna", objective=make_objective(-2.8))
    study = names["study"]
    assert study.best_value > full_study(-2.8).best_value
    states = [trial.state for trial in study.trials]
    assert len(states) == 8
    assert optuna.trial.TrialState.PRUNED in states
