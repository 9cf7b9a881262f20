"""Settings of amt's tuner; that it does what the library does is in test_experiment."""

from functools import partial

import pytest

from amt.inference import INFERENCE
from amt.search.acquisition import ACQUISITIONS
from amt.tuners.amt import RECORD, Settings, amt


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "x"}, "no task kernel 'x'; there are at2"),
        ({"config": "x"}, "no config kernel 'x'"),
        ({"fidelity": "x"}, "no fidelity kernel 'x'"),
        ({"noise": "x"}, "no noise 'x'; there are homoscedastic"),
        ({"nugget": True, "inference": "nuts"}, "nuts knows no nugget: use mle or map"),
        ({"nugget": "maybe"}, "no nugget 'maybe'; there are True, False"),
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
        ({"inference_options": {"steps": 1.5}}, "steps must be"),
        ({"restarts": 0}, "restarts must be a whole number from 1, not 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)


def test_equal_settings_make_a_loop_that_shares_its_compilation():
    same = [amt(Settings(config=config)) for config in ("matern", "tree")]
    assert same[0].step is same[1].step
    assert same[0].init is same[1].init
    other = amt(Settings(acquisition_options={"beta": 1.0}))
    assert other.step is not same[0].step


def test_settings_of_the_command_line_name_what_the_tuner_uses():
    chosen = {
        "kernel": {"task": "icm", "config": "tree", "fidelity": "matern"},
        "noise": "task",
        "inference": {"name": "map", "restarts": 2, "steps": 7},
        "acquisition": {"name": "ucb", "beta": 0.5},
    }
    assert Settings.of(**chosen) == Settings(
        task="icm",
        config="tree",
        fidelity="matern",
        noise="task",
        inference="map",
        restarts=2,
        inference_options={"steps": 7},
        acquisition_options={"beta": 0.5},
    )
    used = RECORD.uses(**chosen)
    assert [kernel.__name__ for kernel in used[:3]] == ["ICM", "AdditiveTree", "LogMatern"]
    assert used[3:] == [INFERENCE["map"].fit, ACQUISITIONS["ucb"]]
    assert RECORD.chosen({**chosen, "budget": 3}) == chosen
    assert isinstance(RECORD.make(**chosen).step, partial)
