import dataclasses
import importlib
import sys

import numpy as np
import pytest

from amt.evaluation import provenance as module
from amt.evaluation.provenance import (
    PACKAGES,
    code_fingerprint,
    data_fingerprint,
    fingerprint,
    imported_files,
    provenance,
)
from amt.evaluation.splits import make_cells, make_splits
from amt.tuners import TUNERS
from tests.problems import small_curves

CURVES = small_curves(3)


def test_a_fingerprint_tells_values_types_and_shapes_apart():
    zeros = [np.zeros(4), np.zeros((2, 2)), np.zeros(4, np.float32), "zeros", np.ones(4)]
    assert len({fingerprint(item) for item in zeros}) == len(zeros)
    assert fingerprint(np.zeros((2, 2)).T) == fingerprint(np.zeros((2, 2)))


def cells_of(curves):
    return make_cells(make_splits("made up", curves, kind="leave_one_out"))


def test_data_are_scores_epochs_features_and_costs():
    changed = [
        {"scores": CURVES.scores + 1},
        {"epochs": 2 * CURVES.epochs},
        {"configs": small_curves(3, seed=1).configs},
        {"cost": np.ones_like(CURVES.scores)},
        {"cost": 2 * np.ones_like(CURVES.scores)},
    ]
    others = [dataclasses.replace(CURVES, **change) for change in changed]
    prints = {data_fingerprint(cells_of(curves)) for curves in (CURVES, *others)}
    assert len(prints) == 1 + len(changed)
    assert data_fingerprint(cells_of(CURVES)) in prints


def test_a_trivial_tuner_depends_on_its_file_and_what_runs_it():
    files = imported_files(["amt.tuners.past_tasks.best_list", *module._RUN_BY])
    names = {"amt.tuners.past_tasks.best_list", "amt.tuners.in_order", "amt.tuners.record"}
    names |= {"amt.tuners.replay", "amt.evaluation.metrics", "amt.evaluation.stages"}
    assert names | {"amt.search.replay", "amt.curves"} <= set(files)
    others = {"amt.tuners.amt", "amt.tuners.no_model.random_search", "amt.tuners", "amt"}
    others |= {"amt.evaluation.figures", "amt.evaluation.store", "amt.databases"}
    assert not others & set(files)
    assert not [name for name in files if name.startswith("amt.databases")]


@pytest.mark.parametrize(
    "tuner", ["amt", "no_model.hyperband", "one_task.dyhpo", "past_tasks.rgpe"]
)
def test_a_change_of_task_regression_leaves_other_tuners_results(tuner):
    files = imported_files([f"amt.tuners.{tuner}", *module._RUN_BY])
    assert not [name for name in files if "task_regression" in name]


def test_amt_depends_on_kernels_inference_and_rule():
    files = imported_files(["amt.tuners.amt"])
    names = {"amt.kernels", "amt.kernels.task.icm", "amt.inference", "amt.inference.svgp"}
    assert names | {"amt.search.acquisition", "amt.gp.posterior", "amt.space"} <= set(files)
    assert not [name for name in files if name.startswith("amt.evaluation")]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of a user, whose tuner imports one of two modules of its own."""
    texts = {
        "__init__.py": "",
        "tuner.py": "import numpy\nfrom . import near\nfrom .near import x\ndef f():\n"
        "    from tuners_of_a_user.deep import y\n    import amt.linalg",
        "near.py": "x = 1",
        "deep/__init__.py": "y = 1",
        "apart.py": "",
    }
    folder = tmp_path / "tuners_of_a_user"
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("tuners_of_a_user")]:
        del sys.modules[name]


def test_code_of_a_user_is_followed_within_its_package(package):
    importlib.import_module("tuners_of_a_user.tuner")
    tuner = "tuners_of_a_user.tuner"
    files = imported_files([tuner])
    expected = {tuner, "tuners_of_a_user.near", "tuners_of_a_user.deep", "amt.linalg"}
    assert expected <= set(files)
    assert {name for name in files if not name.startswith("amt")} == expected - {"amt.linalg"}

    def code():
        code_fingerprint.cache_clear()
        return code_fingerprint(frozenset([tuner]))

    before = code()
    (package / "apart.py").write_text("z = 1")
    assert code() == before
    (package / "near.py").write_text("x = 2")
    assert code() != before


def test_provenance_has_what_numbers_depend_on():
    values = {"kernel": {"config": "matern"}, "budget": 7}
    of_amt, of_list = (provenance(TUNERS[name], values, "data") for name in ("amt", "best_list"))
    assert of_amt["settings"] == {"kernel": {"config": "matern"}}
    assert of_list["settings"] == {}
    assert of_amt["code"] != of_list["code"]
    assert set(of_amt["versions"]) == set(PACKAGES)
    assert {"jax", "jaxlib", "optax", "numpyro", "tinygp", "numpy"} == set(PACKAGES)
    needs = dataclasses.replace(TUNERS["best_list"], packages=("pandas",))
    assert "pandas" in provenance(needs, values, "data")["versions"]
