"""HyperRec and LCBench: the real files, and crafted ones."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from amt.databases.published import (
    _database,
    hyperrec,
    hyperrec_space,
    lcbench,
    lcbench_space,
    paper_pairs,
)
from amt.kernels.task import task_distances
from amt.space import Encoder

HYPERREC_TASKS = (
    "ACTION40 AWA2 BOOKCOVER30 CALTECH256 CARS196 CIFAR10 CIFAR100 CUB200 FLOWER102 FOOD101 IP102 "
    "ISR OIPETS PLANT39 RESISC45 SCENE15 SDD SOP IMAGENET64SUB1 IMAGENET64SUB2 IMAGENET64SUB3 "
    "PLACE365SUB1 PLACE365SUB2 PLACE365SUB3 SUN397SUB1 SUN397SUB2 SUN397SUB3"
)
LCBENCH_TASKS = (
    "APSFailure Amazon_employee_access Australian Fashion-MNIST KDDCup09_appetency MiniBooNE adult "
    "airlines albert bank-marketing blood-transfusion-service-center car christine cnae-9 "
    "connect-4 covertype credit-g dionis fabert helena higgs jannis jasmine "
    "jungle_chess_2pcs_raw_endgame_complete kc1 kr-vs-kp mfeat-factors nomao numerai28.6 phoneme "
    "segment shuttle sylvine vehicle volkert"
)
REFERENCE = Path(__file__).parents[1] / "data" / "at2_reference_kernels.json"
DATABASES = {"HyperRec": hyperrec, "LCBench": lcbench}


@pytest.fixture(params=DATABASES)
def database(request) -> str:
    return request.param


@pytest.fixture
def reference(database) -> dict:
    return json.loads(REFERENCE.read_text())[database]


# The real files


def test_hyperrec(at2_folder):
    curves = hyperrec(at2_folder)
    assert curves.tasks == tuple(HYPERREC_TASKS.split())
    assert curves.repeats.shape == (2, 27, 100, 75)
    assert_array_equal(curves.scores, curves.repeats.mean(0))
    assert_array_equal(curves.epochs, np.arange(1, 76))
    assert curves.repeats.min() >= 0
    assert curves.repeats.max() <= 1
    assert sum(config["optimizer"] == "Adam" for config in curves.configs) == 38
    assert sum("gamma_CyclicLR" in config for config in curves.configs) == 27
    assert curves.features.min() >= 0
    assert curves.features.max() <= 1


def test_lcbench(at2_folder):
    curves = lcbench(at2_folder)
    assert curves.tasks == tuple(LCBENCH_TASKS.split())
    assert curves.repeats.shape == (1, 35, 100, 52)
    assert_array_equal(curves.scores, curves.repeats[0])
    assert {type(config["num_layers"]) for config in curves.configs} == {int}
    assert sum(config["num_layers"] == 1 for config in curves.configs) == 36


def test_default_folder(at2_folder, monkeypatch):
    monkeypatch.setenv("AMT_DATA_DIR", str(at2_folder.parent))
    assert_array_equal(lcbench().scores, lcbench(at2_folder).scores)
    assert paper_pairs("LCBench") == paper_pairs("LCBench", at2_folder)


def test_pairs(at2_folder, database):
    pairs = paper_pairs(database, at2_folder)
    tasks = DATABASES[database](at2_folder).tasks
    assert len(pairs) == 5
    for sources, target in pairs:
        assert len(sources) == 4
        assert target not in sources
        assert {*sources, target} <= set(tasks)
    with pytest.raises(KeyError, match="HyperRec, LCBench"):
        paper_pairs("NAS-Bench", at2_folder)


def test_pair_of_the_reference(at2_folder, database, reference):
    sources, target = paper_pairs(database, at2_folder)[reference["pair"]]
    assert sorted(sources) == sorted(reference["source_tasks"])
    assert target == reference["target_task"]


def test_points_of_the_reference(at2_folder, database, reference):
    """Each of the reference's points is a configuration, with the task, epoch and score it has."""
    curves = DATABASES[database](at2_folder).repeat(reference["profile"])
    *names, _, _ = reference["feature_names"]
    features = _as_reference(curves, names)
    points = np.array(reference["points"])
    assert len(points) == 20
    for *point, task, epoch in points:
        matches = np.flatnonzero(np.abs(features - point).max(1) < 1e-6)
        assert len(matches) == 1
        assert curves.tasks[int(task)] in {*reference["source_tasks"], reference["target_task"]}
        at = round(epoch * curves.num_epochs) - 1
        assert_allclose(epoch, curves.epochs[at] / curves.num_epochs, rtol=1e-6)
        score = reference["scores"][np.flatnonzero((points == [*point, task, epoch]).all(1))[0]]
        assert_allclose(curves.scores[int(task), matches[0], at], score, rtol=1e-6)


def _as_reference(curves, names):
    """Features as the reference has them: each categorical as the index of its value."""
    columns = dict(zip(Encoder(curves.space).columns, curves.features.T, strict=True))
    return np.stack(
        [
            columns[name]
            if name in columns
            else [curves.space[name].choices.index(config[name]) for config in curves.configs]
            for name in names
        ],
        axis=1,
    )


def test_task_order_of_the_reference(at2_folder, database, reference):
    tasks = DATABASES[database](at2_folder).tasks
    assert {task: tasks.index(task) for task in reference["task_order"]} == reference["task_order"]


def test_task_distances_of_the_reference(at2_folder, database, reference):
    curves = DATABASES[database](at2_folder).repeat(reference["profile"])
    names = [*reference["source_tasks"], reference["target_task"]]
    scores = np.array(curves.select(tasks=names).scores)
    config, epoch = np.array(reference["revealed_target_observations"]).T
    revealed = np.full(scores.shape[1:], np.nan)
    revealed[config, epoch] = scores[-1, config, epoch]
    scores[-1] = revealed
    distance, share = task_distances(scores)
    U = reference["params"]["task"]["U"]
    for pair, expected in reference["task_distances"].items():
        a, b = (names.index(name) for name in pair.split("|"))
        assert_allclose(distance[a, b], expected, rtol=1e-5, atol=1e-9)
        gamma = U / (1 + (U - 1) * share[a, b])
        assert_allclose(gamma, reference["task_gammas"][pair], rtol=1e-6)


# The search spaces


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (
            hyperrec_space(),
            "batchsize model optimizer lr weight_decay betas0 betas1 momentum scheduler step_size "
            "gamma_StepLR gamma_ExponentialLR gamma_CyclicLR max_lr step_size_up T_0 T_mult "
            "eta_min",
        ),
        (
            lcbench_space(),
            "batch_size learning_rate momentum weight_decay num_layers max_units max_dropout",
        ),
    ],
    ids=DATABASES,
)
def test_positions_are_the_published_order(space, names):
    assert sorted(space, key=lambda name: space[name].meta["position"]) == names.split()
    assert [h.meta["position"] for h in space.values()] != sorted(
        h.meta["position"] for h in space.values()
    )  # otherwise ConfigSpace keeps the order, and positions are no longer needed


def test_gammas_share_a_column():
    space = hyperrec_space()
    columns = {h.name for h in space.values() if h.meta.get("column") == "gamma"}
    assert columns == {"gamma_StepLR", "gamma_ExponentialLR", "gamma_CyclicLR"}


def test_samples_activate_one_scheduler_and_one_optimizer():
    space = hyperrec_space()
    space.seed(0)
    active = {
        "StepLR": {"step_size", "gamma_StepLR"},
        "ExponentialLR": {"gamma_ExponentialLR"},
        "CyclicLR": {"gamma_CyclicLR", "max_lr", "step_size_up"},
        "CosineAnnealingWarmRestarts": {"T_0", "T_mult", "eta_min"},
        "Adam": {"betas0", "betas1"},
        "SGD": {"momentum"},
    }
    always = {"batchsize", "model", "optimizer", "lr", "weight_decay", "scheduler"}
    for config in space.sample_configuration(50):
        expected = always | active[config["scheduler"]] | active[config["optimizer"]]
        assert set(dict(config)) == expected


# Files that are missing, altered or crafted


def test_missing_files(tmp_path, monkeypatch, database):
    monkeypatch.setenv("AMT_DATA_DIR", str(tmp_path))
    for folder in (None, tmp_path / "at2"):
        with pytest.raises(FileNotFoundError, match=r"download_databases\.py.*AMT_DATA_DIR"):
            DATABASES[database](folder)
        with pytest.raises(FileNotFoundError, match=r"at2.train_test_pairs\.json is not there"):
            paper_pairs(database, folder)


def test_altered_files_are_not_read(at2_folder, tmp_path):
    altered = shutil.copytree(at2_folder, tmp_path / "at2", copy_function=shutil.copyfile)
    reads = {"LCBench/configs.pkl": lcbench, "LCBench/profiles.pkl": lcbench}
    reads["train_test_pairs.json"] = lambda folder: paper_pairs("LCBench", folder)
    for name, read in reads.items():
        path = altered / name
        published = path.read_bytes()
        path.write_bytes(published + b" ")  # which a pickle's end would hide
        with pytest.raises(ValueError, match=rf"{path.name} is not the published file"):
            read(altered)
        path.write_bytes(published)
        read(altered)


@pytest.fixture
def crafted(tmp_path):
    """Reads a crafted LCBench of 2 repeats, 3 tasks, 4 configurations and 5 epochs."""
    rng = np.random.default_rng(0)
    config = {
        "batch_size": 32,
        "learning_rate": 1e-3,
        "momentum": 0.5,
        "weight_decay": 1e-2,
        "num_layers": True,
        "max_units": 100,
        "max_dropout": 0.25,
        "optimizer": "sgd",
    }
    configs = {index: dict(config) for index in range(4)}
    profiles = {
        repeat: {task: {c: rng.uniform(size=5) for c in configs} for task in ("b", "a", "xSUB1")}
        for repeat in range(2)
    }

    def read(name="LCBench"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "configs.pkl").write_bytes(pickle.dumps(configs, 4))
        (folder / "profiles.pkl").write_bytes(pickle.dumps(profiles, 4))
        return _database(name, tmp_path, checksums={})

    return configs, profiles, read


def test_crafted(crafted):
    _, profiles, read = crafted
    curves = read()
    assert curves.tasks == ("a", "b", "xSUB1")
    assert curves.repeats.shape == (2, 3, 4, 5)
    assert_array_equal(curves.repeats[1, 0, 3], profiles[1]["a"][3])
    assert curves.configs[0] | {"num_layers": 1} == curves.configs[0]
    assert "optimizer" not in curves.configs[0]


def test_missing_curve(crafted):
    _, profiles, read = crafted
    del profiles[1]["b"][2]
    with pytest.raises(
        ValueError, match="LCBench: repeat 1, task 'b', configuration 2 has no curve"
    ):
        read()


def test_missing_task(crafted):
    _, profiles, read = crafted
    del profiles[0]["b"]
    with pytest.raises(ValueError, match="repeat 0, task 'b', configuration 0 has no curve"):
        read()


@pytest.mark.parametrize(
    "curve", [np.zeros(4), np.zeros(6), np.zeros((5, 1)), np.float64(1).item()]
)
def test_ragged_curve(crafted, curve):
    _, profiles, read = crafted
    profiles[0]["a"][0] = curve
    with pytest.raises(
        ValueError, match=r"task 'a', configuration 0 has a curve of shape .* \(5,\)"
    ):
        read()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_missing_epoch(crafted, value):
    _, profiles, read = crafted
    profiles[1]["xSUB1"][1][3] = value
    with pytest.raises(ValueError, match=f"task 'xSUB1', configuration 1, epoch 4 is {value}"):
        read()


def test_illegal_value(crafted):
    configs, _, read = crafted
    configs[2]["momentum"] = 1.5
    with pytest.raises(ValueError, match="configuration 2 is not legal"):
        read()


def test_missing_hyperparameter(crafted):
    configs, _, read = crafted
    del configs[1]["max_units"]
    with pytest.raises(ValueError, match="configuration 1 is not legal"):
        read()
