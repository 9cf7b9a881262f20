"""Settings that cannot be are refused in one line that names them."""

import pytest
import yaml
from hydra.errors import ConfigCompositionException, MissingConfigException

from amt.evaluation.runs import run
from amt.evaluation.settings import check_settings, run_main
from amt.tuners import TUNERS
from tests.problems import SMALL_RUN
from tests.processes import ROOT

WHOLE = SMALL_RUN | {
    "kernel": {"task": "at2", "config": "matern", "fidelity": "at2"},
    "inference": {"name": "svgp", "preset": "light", "passes": None, "learning_rate": 0.1},
    "acquisition": {"name": "ucb", "beta": 0.25},
    "noise": "task",
    "nugget": False,
}


@pytest.mark.parametrize(
    "right",
    [
        {"pair": 3, "repeat": "all", "workers": None, "nugget": True},
        {"pair": [0, 2], "repeat": None},
        {"repeat": [1, 0], "database_options": {"minimise": True}},
        {"acquisition": {"name": "ei"}},
        {"num_sources": 4, "draws": 3},
    ],
)
def test_settings_that_can_be(right):
    check_settings(WHOLE | right)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nugget": "maybe"}, "nugget must be true or false, not 'maybe'"),
        ({"log_x": "maybe"}, "log_x must be true or false, not 'maybe'"),
        ({"nugget": 1}, "nugget must be true or false, not 1"),
        ({"nuget": True}, "no setting 'nuget'; there are acquisition, bad_sources"),
        ({"pair": "x"}, "pair must be null, a number from 0 or a list .*, not 'x'"),
        ({"pair": []}, r"pair must be .*, not \[\]"),
        ({"pair": [0, 0]}, r"pair must be .* a list of different ones, not \[0, 0\]"),
        ({"pair": -1}, "pair must be .*, not -1"),
        ({"pair": True}, "pair must be .*, not True"),
        ({"repeat": "x"}, "repeat must be null, all, a number from 0 or .*, not 'x'"),
        ({"repeat": [0, 0]}, r"repeat must be .*, not \[0, 0\]"),
        ({"acquisition": {"name": "ucb", "beta": "abc"}}, "acquisition.beta must be a number, not"),
        ({"inference": {"name": "mle", "steps": "many"}}, "inference.steps must be a number, not"),
        ({"inference": {"name": 3}}, "inference.name must be a name, not 3"),
        ({"inference": "mle"}, "inference must be settings by name, not 'mle'"),
        ({"kernel": {"configuration": "at2"}}, "no setting 'kernel.configuration'; there are kern"),
        ({"kernel": {"task": 3}}, "kernel.task must be a name, not 3"),
        ({"database_options": "x"}, "database_options must be settings by name, not 'x'"),
        ({"database": 3}, "database must be a name, not 3"),
        ({"tuners": "amt"}, r"tuners must be a list of names such as \[amt,random_search\], not"),
        ({"workers": 0}, "workers must be null or a whole number from 1, not 0"),
        ({"seeds": True}, "seeds must be a whole number from 1, not True"),
        ({"budget": 0}, "budget must be a whole number from 1, not 0"),
        ({"precision": 64}, "precision must be a name, not 64"),
    ],
)
def test_settings_that_cannot_be(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message) as raised:
        run(WHOLE | wrong, tmp_path)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_settings_of_other_tuners_are_known(monkeypatch):
    record = TUNERS["random_search"]
    theirs = type(record)(
        name="theirs", label="", source="", make=record.make, settings=("theirs_alone",)
    )
    with pytest.raises(ValueError, match="no setting 'theirs_alone'"):
        check_settings(WHOLE | {"theirs_alone": 3})
    monkeypatch.setattr("amt.evaluation.settings.TUNERS", {**TUNERS, "theirs": theirs})
    check_settings(WHOLE | {"theirs_alone": 3})


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            MissingConfigException("of\nmany lines", "inference/foo", ["dense", "mle"]),
            "a.py: inference=foo: no inference 'foo'; there are dense, mle",
        ),
        (MissingConfigException("no\nfile", "x", []), "a.py: no file"),
        (ConfigCompositionException("Could not override 'x'.\nTo append"), "a.py: Could not"),
    ],
)
def test_errors_of_hydra_are_one_line(error, message, monkeypatch):
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def main():
        raise error

    with pytest.raises(SystemExit, match=message) as raised:
        run_main(main, "a.py")
    assert "\n" not in str(raised.value)


def test_results_of_all_experiments_are_of_one_chunk_but_where_trajectories_differ():
    """Another one rounds otherwise, and numbers that are published side by side would differ."""
    settings = {
        path.stem: yaml.safe_load(path.read_text())
        for path in (ROOT / "experiments" / "conf").glob("*.yaml")
    }
    chunks = {name: of["chunk"] for name, of in settings.items() if "chunk" in of}
    assert len(settings) > 5
    assert chunks == {"at2": 5, "inference_ablation": 1}
