"""Options of fits that there are not are named in one line, before anything is computed."""

import jax
import pytest
from numpy.testing import assert_array_equal

import amt
from amt.search.fitting import as_key, check_options, fit_sources
from tests.problems import small_curves


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stepz": 3}, "no option 'stepz' of mle; there are inference, kernels, optimizer, steps"),
        ({"steps": 0}, "steps must be a whole number from 1, not 0"),
        ({"steps": 2.5}, "steps must be a whole number from 1, not 2.5"),
        ({"restarts": True}, "restarts must be a whole number from 1, not True"),
        ({"optimizer": "sgd"}, "optimizer must be adam or lbfgs, not 'sgd'"),
        ({"inference": "svgp", "preset": "heavy"}, "preset must be light or .*, not 'heavy'"),
        ({"inference": "svgp", "steps": 3}, "no option 'steps' of svgp; there are inference"),
        ({"inference": "magic"}, "no inference 'magic'; there are mle, map"),
        (
            {"kernels": {"configuration": "matern"}},
            "kernels has no 'configuration'; there are task, config, fidelity, noise, nugget",
        ),
        ({"kernels": {"config": "mattern"}}, "no config kernel 'mattern'; there are deep_poly"),
        ({"kernels": "matern"}, "kernels must be names by axis, .*, not 'matern'"),
    ],
)
def test_options_that_there_are_not(options, message):
    curves = small_curves(num_tasks=2, num_configs=4, num_epochs=3)
    for use in (
        check_options,
        lambda **o: amt.Tuner(curves, 0, **o),
        lambda **o: fit_sources(curves, 0, **o),
    ):
        with pytest.raises((KeyError, ValueError), match=message) as raised:
            use(**options)
        assert "\n" not in str(raised.value)


def test_keys_and_seeds():
    for seed in (3, jax.random.PRNGKey(3), jax.random.key(3)):
        assert_array_equal(
            jax.random.key_data(as_key(seed)), jax.random.key_data(jax.random.key(3))
        )
    for wrong in (0.5, None, "0", True):
        with pytest.raises(TypeError, match=r"key must be a key, such as jax.random.key\(0\), or"):
            amt.Tuner(small_curves(num_tasks=2, num_configs=4, num_epochs=3), wrong)


def test_a_folder_for_the_state_that_is_not_there(tmp_path):
    curves = small_curves(num_tasks=2, num_configs=4, num_epochs=3)
    with pytest.raises(FileNotFoundError, match=r"state='.*tuner.npz': there is no folder .*runs"):
        amt.Tuner(curves, 0, state=str(tmp_path / "runs" / "tuner.npz"))
