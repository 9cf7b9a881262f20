"""What the README shows works as it stands."""

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
    """Runs the code of a section, each block by itself and twice, in an empty folder.

    Returns the names of its last block in Python.
    """
    monkeypatch.chdir(tmp_path)

    def run(title: str) -> dict:
        section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README.read_text(), re.M | re.S)
        assert section is not None
        names = {}
        for language, code in 2 * re.findall(r"^```(\w+)\n(.*?)^```", section[1], re.M | re.S):
            if language == "python":
                names = {}
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


def test_own_learning_curves_are_read_and_tuned_on(run, capsys, tmp_path):
    names = run("Your own learning curves")
    assert "learning_rate: real from 1e-05 to 0.97, log scale" in capsys.readouterr().out
    assert (tmp_path / "space.json").is_file()
    curves, target, best = names["curves"], names["target"], names["best"]
    assert curves.scores.shape == (4, 30, 10)
    losses = curves.outcome.inverse(target.scores[0, :, -1])
    assert names["validation_loss"](-2.4, best["learning_rate"], 10) < losses.min() + 0.05


def test_an_optuna_study_learns_from_past_ones(run):
    study = run("With Optuna")["study"]
    assert study.best_value > 0.9 - 0.3**2 / 20
    assert len(study.trials) == 8  # run again, it has what it was to have
    past = optuna.load_study(study_name="first", storage="sqlite:///studies.db")
    assert {trial.state for trial in past.trials} == {optuna.trial.TrialState.COMPLETE}


def test_it_says_what_to_install_first():
    text = README.read_text()
    needs = {"import pandas": ".[experiments]", "import optuna": ".[optuna]"}
    for module, extra in needs.items():
        assert 0 <= text.index(f"pip install '{extra}'") < text.index(module)
