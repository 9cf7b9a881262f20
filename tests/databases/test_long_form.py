"""Files in long form: read as they are, and every fault in them found."""

import gzip
import warnings
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from ConfigSpace import Categorical, ConfigurationSpace, EqualsCondition, Float, Integer
from ConfigSpace.hyperparameters import UniformFloatHyperparameter
from numpy.testing import assert_allclose, assert_array_equal

from amt import Tuner
from amt.curves import LearningCurves
from amt.databases import bundled, load, paper_pairs
from amt.databases.long_form import examine, grid, read_curves
from amt.evaluation.splits import make_splits
from amt.outcome import RobustOutcome
from amt.space import Encoder
from tests.processes import Script

TASKS, CONFIGS, EPOCHS = ("a", "b", "c"), 6, 4


def make_space() -> ConfigurationSpace:
    space = ConfigurationSpace()
    optimizer = Categorical("optimizer", ["sgd", "adam"])
    momentum = Float("momentum", (0, 1))
    space.add(Float("lr", (1e-4, 1), log=True), Integer("width", (1, 64)), optimizer, momentum)
    space.add(EqualsCondition(momentum, optimizer, "sgd"))
    return space


def make_rows() -> pd.DataFrame:
    """Rows of tasks, configurations and epochs, in that order: row r of the frame is row r + 2."""
    random = np.random.default_rng(0)
    sgd = np.arange(CONFIGS) % 2 == 0
    configs = pd.DataFrame(
        {
            "lr": 10.0 ** -np.linspace(0.5, 3.5, CONFIGS),
            "width": 2 ** np.arange(CONFIGS),
            "optimizer": np.where(sgd, "sgd", "adam"),
            "momentum": np.where(sgd, np.linspace(0.1, 0.9, CONFIGS), np.nan),
        }
    )
    t, c, e = np.indices((len(TASKS), CONFIGS, EPOCHS)).reshape(3, -1)
    level = random.uniform(0.3, 0.6, size=(len(TASKS), CONFIGS))[t, c]
    score = level * (1 - 0.5 ** (e + 1)) + 0.01 * random.normal(size=t.size)
    rows = pd.DataFrame({"task": np.array(TASKS)[t], "config": c, "epoch": e + 1, "score": score})
    rows["cost"] = 1.0 + c
    return rows.join(configs, on="config").astype(object)


@pytest.fixture
def rows():
    return make_rows()


@pytest.fixture
def write(tmp_path):
    """Writes rows to a file, as CSV by default."""

    def write(rows: pd.DataFrame | str | bytes, name: str = "curves.csv") -> Path:
        path = tmp_path / name
        if isinstance(rows, bytes | str):
            path.write_bytes(rows if isinstance(rows, bytes) else rows.encode())
        elif path.suffix == ".csv":
            rows.to_csv(path, index=False)
        else:
            rows.infer_objects().to_parquet(path, index=False)
        return path

    return write


def read(path: Path, **options) -> LearningCurves:
    """The examination of a file without faults and notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_curves(path, **{"space": make_space(), **options})


def lines(path: Path, **options) -> list[str]:
    """The message of the error on a file."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        read(path, **options)
    return str(raised.value).splitlines()


def notes(path: Path, **options) -> list[str]:
    found = examine(path, **{"space": make_space(), **options})
    assert not found.faults
    return [line for note in found.notes for line in note.lines()]


# What is right


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_file(rows, write, ending):
    curves = read(write(rows, f"curves.{ending}"))
    assert curves.tasks == TASKS
    assert_array_equal(curves.epochs, [1, 2, 3, 4])
    scores = rows["score"].to_numpy(float).reshape(len(TASKS), CONFIGS, EPOCHS)
    assert_array_equal(curves.repeats, scores[None])
    assert_array_equal(curves.cost, rows["cost"].to_numpy(float).reshape(scores.shape))
    first = rows.iloc[0]
    assert curves.configs[0] == {n: first[n] for n in ("lr", "width", "optimizer", "momentum")}
    assert curves.configs[1].keys() == {"lr", "width", "optimizer"}
    assert type(curves.configs[1]["width"]) is int
    assert curves.space == make_space()


def test_bundled_goes_through_a_file(write):
    whole = bundled()
    database = whole.select(tasks=whole.tasks[:3], configs=range(0, 100, 5), epochs=[1, 10, 50])
    r, t, c, e = np.indices(database.repeats.shape).reshape(4, -1)
    rows = pd.DataFrame(
        {
            "seed": 7 * (r + 1),
            "task": np.array(database.tasks)[t],
            "config": c,
            "epoch": database.epochs[e],
            "score": database.repeats.ravel(),
            "cost": database.cost[t, c, e],
        }
    ).join(pd.DataFrame(list(database.configs)), on="config")
    for name in ("curves.csv", "curves.parquet"):
        curves = read(write(rows, name), space=database.space).select(tasks=database.tasks)
        assert curves.configs == database.configs
        for attribute in ("repeats", "scores", "cost", "epochs", "features"):
            assert_array_equal(getattr(curves, attribute), getattr(database, attribute))


def test_order_of_rows_and_columns_does_not_matter(rows, write):
    rows["config"] = [str(c) if c else "10" for c in rows["config"]]  # 10 comes after 5
    curves = read(write(rows))
    shuffled = rows.sample(frac=1, random_state=0)[[*reversed(rows.columns)]]
    other = read(write(shuffled, "shuffled.csv"))
    assert_array_equal(other.repeats, curves.repeats)
    assert other.configs == curves.configs
    assert curves.configs[-1]["width"] == 1


def test_curves_of_unequal_length(rows, write):
    short = (rows["config"] == 2) & (rows["task"] == "b") & (rows["epoch"] > 2)
    never = (rows["config"] == 3) & (rows["task"] == "c")
    curves = read(write(rows[~short & ~never]))
    missing = np.zeros(curves.scores.shape, bool)
    missing[1, 2, 2:] = missing[2, 3] = True
    assert_array_equal(np.isnan(curves.scores), missing)
    assert_array_equal(np.isnan(curves.cost), missing)


def test_seeds_are_repeats(rows, write):
    """The smallest seed of each task and configuration is its repeat 0."""
    again = rows.assign(score=rows["score"] / 2, cost=rows["cost"] + 1)
    seeds = [9, 10, 11, 12, 13, 14]
    both = pd.concat(
        [rows.assign(seed=rows["config"].map(dict(enumerate(seeds)))), again.assign(seed=8)]
    )
    curves = read(write(both))
    scores = rows["score"].to_numpy(float).reshape(len(TASKS), CONFIGS, EPOCHS)
    assert_allclose(curves.repeats, [scores / 2, scores], rtol=1e-15)
    assert_array_equal(curves.cost[0, :, 0], 1.5 + np.arange(CONFIGS))


def test_other_names(rows, write):
    renamed = rows.rename(columns={"score": "val_acc", "epoch": "step"}).assign(score="?", host="x")
    path = write(renamed)
    options = {"columns": {"score": "val_acc", "epoch": "step"}}
    assert any("'score'" in line for line in lines(path, ignore=["host"], **options))
    curves = read(path, ignore=["host", "score"], **options)
    assert_array_equal(curves.scores, read(write(rows, "plain.csv")).scores)
    with pytest.raises(ValueError, match="no column 'value'; there are task, config, epoch, score"):
        read(path, columns={"value": "val_acc"})


def test_hyperparameters_with_the_names_of_other_columns(rows, write):
    """SVMs have a cost, networks may have epochs and a seed; nothing of them is swallowed."""
    plain = read(write(rows.drop(columns="cost"), "plain.csv"))
    rows = rows.rename(columns={"epoch": "step", "lr": "cost", "width": "epoch"})
    rows = rows.loc[:, ~rows.columns.duplicated(keep="last")].assign(seed=rows["config"] + 5)
    rows["cost"] = make_rows()["lr"]
    columns = {"epoch": "step", "cost": None, "seed": None}
    path = write(rows)
    found = examine(path, columns=columns)
    assert not found.faults
    assert [*found.space] == ["cost", "epoch", "optimizer", "seed", "momentum"]
    assert "column 'epoch' is a hyperparameter, as column 'step' is the epoch: ignore it" in str(
        found.notes
    )
    for config, other in zip(found.curves.configs, plain.configs, strict=True):
        assert (config["cost"], config["epoch"]) == (other["lr"], other["width"])
    assert [config["seed"] for config in found.curves.configs] == list(range(5, 11))
    assert found.curves.cost is None
    assert_array_equal(found.curves.scores, plain.scores)
    # With the search space, all that is ambiguous follows from it, but for what is needed.
    again = examine(path, columns={"epoch": "step"}, space=found.space)
    assert again.curves.configs == found.curves.configs
    assert "column 'cost' is the hyperparameter of the search space: columns={'cost': 'cost'}" in (
        str(again.notes)
    )
    fault, *_ = examine(path, space=found.space, ignore=["step"]).faults
    assert fault.what == (
        "hyperparameter 'epoch' has the name of the column of epochs: say which column has those "
        "by columns={'epoch': NAME}"
    )


def test_a_column_that_may_be_a_hyperparameter_is_noted(rows, write):
    def noted(rows):
        found = examine(write(rows))
        assert not found.faults
        return [n.what.split(":")[0] for n in found.notes if "is read as" in n.what]

    assert noted(rows) == [
        "column 'cost' is read as the cost of a run, and is the same in all rows of a configuration"
    ]
    assert noted(rows.assign(cost=rows["cost"] + rows["epoch"])) == []
    assert noted(rows.assign(cost=2, seed=3)) == []
    assert len(noted(rows.assign(seed=rows["config"]))) == 2


@pytest.mark.parametrize("ending", ["json", "yaml", "yml"])
def test_space_file(rows, write, tmp_path, ending):
    path = tmp_path / f"space.{ending}"
    (make_space().to_json if ending == "json" else make_space().to_yaml)(path)
    assert read(write(rows), space=path).space == make_space()


def test_numbers_and_booleans_as_choices(rows, write):
    space = make_space()
    space.add(Categorical("nesterov", [True, False]), Categorical("batch", [16, 32]))
    given = rows.assign(nesterov=rows["config"] > 2, batch=16.0 * (1 + rows["config"] % 2))
    for name in ("curves.csv", "curves.parquet"):
        curves = read(write(given, name), space=space)
        assert [config["nesterov"] for config in curves.configs] == [False] * 3 + [True] * 3
        assert [config["batch"] for config in curves.configs] == [16, 32] * 3


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("space", [None, "given"])
def test_values_are_the_same_from_any_file(rows, write, ending, space):
    if space is not None:
        space = make_space()
        space.add(Categorical("nesterov", [True, False]), Categorical("factor", [1, 2, 0.5]))
    factors = [1, 2, 0.5] if ending == "csv" else [1.0, 2.0, 0.5]
    rows["nesterov"] = rows["config"] % 2 == 0
    rows["factor"] = [factors[c % 3] for c in rows["config"]]
    found = examine(write(rows, f"curves.{ending}"), space=space)
    configs = found.curves.configs
    assert [config["nesterov"] for config in configs] == [True, False] * 3
    assert {type(config["nesterov"]) for config in configs} == {bool}
    assert [config["factor"] for config in configs] == [1, 2, 0.5] * 2
    expected = [float] * 3 if space is None else [int, int, float]
    assert [type(config["factor"]) for config in configs[:3]] == expected


@pytest.mark.parametrize("text", ["", "NA", "nan", "None", "null", "<NA>"])
def test_texts_of_an_inactive_hyperparameter(rows, write, text):
    rows.loc[rows["optimizer"] == "adam", "momentum"] = text
    path = write(rows)
    assert read(path).configs == read(write(make_rows(), "plain.csv")).configs
    found = examine(path)  # without a space
    assert isinstance(found.space["momentum"], UniformFloatHyperparameter)
    assert [*map(str, found.space.conditions)] == ["momentum | optimizer == 'sgd'"]
    rows.loc[4:5, "momentum"] = ["", text]  # both, in rows of one configuration
    assert read(write(rows)).configs == read(path).configs


def test_lists_in_a_file_are_choices_of_a_space_in_json(rows, write, tmp_path):
    space = make_space()
    space.add(Categorical("kernel", [[3, 3], [5, 5]]))
    space.to_json(tmp_path / "space.json")
    rows["kernel"] = ["(3, 3)" if c % 2 else "[5, 5]" for c in rows["config"]]
    curves = read(write(rows), space=tmp_path / "space.json")
    assert [config["kernel"] for config in curves.configs] == [[5, 5], [3, 3]] * 3
    at = Encoder(curves.space).columns.index("kernel=[5, 5]")
    assert_array_equal(curves.features[:, at], [1, 0] * 3)


def test_a_header_with_line_breaks(rows, write):
    text = rows.rename(columns={"lr": "learning\nrate"}).to_csv(index=False).splitlines()
    assert text[0].count('"') == 1  # the header is two lines
    found = examine(write("\n".join(text)))
    assert "learning\nrate" in found.space
    plain = examine(write(rows, "plain.csv"))
    assert [c["learning\nrate"] for c in found.curves.configs] == [
        c["lr"] for c in plain.curves.configs
    ]
    text[5] = "too,short"
    text[9] = text[9].replace("0.", "x.", 1)
    faults = [line for f in examine(write("\n".join(text))).faults for line in f.where]
    assert faults[0] == "row 5: 2 of 9"
    assert faults[1].startswith("row 9: ")


def test_costs_that_are_all_empty_are_none(rows, write):
    assert read(write(rows.assign(cost=""))).cost is None


def test_whole_numbers_are_names_however_they_are_written(rows, write):
    plain = read(write(rows.replace({"task": {"a": 3, "b": 31, "c": 7}}), "plain.csv"))
    mixed = rows.replace({"task": {"a": "3", "b": "31.0", "c": "7"}}).astype({"config": str})
    mixed.loc[mixed.index % 4 > 1, "task"] = mixed["task"].replace({"3": "3.0", "31.0": "31"})
    mixed.loc[mixed.index % 3 > 1, "config"] += ".0"
    path = write(mixed)
    assert notes(path) == [
        "tasks are read as the whole numbers that they are",
        "  '3.0' as '3'",
        "  '31.0' as '31'",
        "configs are read as the whole numbers that they are",
        *[f"  '{c}.0' as '{c}'" for c in (0, 1, 2, 3, 4, 5)],
    ]
    curves = examine(path, space=make_space()).curves
    assert curves.tasks == ("3", "7", "31")
    assert_array_equal(curves.scores, plain.scores)
    sources, target = curves.split([3, 31], 7)
    assert (sources.tasks, target.tasks) == (("3", "31"), ("7",))
    assert notes(write(rows.replace({"task": {"a": "03", "b": "3.0", "c": "0.3"}}))) == []


def test_only_constants_are_nothing_to_choose_from(rows, write):
    rows = rows.assign(lr=0.1, width=3, optimizer="adam", momentum="")
    path = write(rows.drop(columns="momentum"))
    with pytest.raises(ValueError, match=r"than one value \(lr, optimizer, width\): nothing"):
        read(path, space=None)


def test_a_metric_that_is_the_same_everywhere_is_noted(rows, write):
    assert notes(write(rows.assign(score=0.5))) == [
        "the metric is 0.5 everywhere: it tells nothing"
    ]
    rows.loc[rows["task"] == "b", "score"] = 0.5
    assert notes(write(rows)) == [
        "tasks have the same metric everywhere, which tells nothing",
        "  'b'",
    ]


# Tables of other shapes


def test_tabulators_compression_and_home(rows, write, tmp_path, monkeypatch):
    plain = read(write(rows))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, separator in {"a.tsv": "\t", "a.csv.gz": ",", "A.TSV.GZ": "\t"}.items():
        rows.to_csv(tmp_path / name, sep=separator, index=False)  # compressed as the name ends
        if name == "A.TSV.GZ":
            with gzip.open(tmp_path / name, "wt") as file:
                file.write((tmp_path / "a.tsv").read_text())
        curves = load(f"~/{name}", space=make_space())
        assert_array_equal(curves.scores, plain.scores)
        assert curves.configs == plain.configs
    with pytest.raises(ValueError, match="not a CSV file in UTF-8"):
        load(write("task,config", "broken.csv.gz"))


def test_a_table_in_memory(rows, write):
    plain = read(write(rows))
    curves = read(rows.infer_objects())
    assert_array_equal(curves.scores, plain.scores)
    assert curves.configs == plain.configs
    mixed = rows.assign(optimizer=[1 if x == "adam" else x for x in rows["optimizer"]])
    mixed.loc[5, "score"] = np.nan  # of objects: missing
    found = examine(mixed)
    assert [*found.space["optimizer"].choices] == ["1", "sgd"]
    assert np.isnan(found.metric).sum() == 1
    found = examine(mixed.astype({"score": float}), nan="diverged")  # of numbers: it diverged
    assert np.isnan(found.metric).sum() == 3


def test_configurations_without_a_number_are_told_apart_by_their_hyperparameters(rows, write):
    plain = read(write(rows))
    rows["lr"] = [
        f"{lr:.6e}" if i % 2 else repr(float(f"{lr:.6e}")) for i, lr in rows["lr"].items()
    ]
    path = write(rows.drop(columns="config"))
    found = examine(path, space=make_space())
    assert notes(path)[-1].startswith("there is no column config: what has equal hyperparameters")
    order = np.argsort([config["lr"] for config in plain.configs])
    assert_array_equal(found.curves.scores, plain.scores[:, order])
    metric = rows.drop(columns="config").assign(train_loss=np.arange(len(rows)) / 7)
    (fault,) = examine(write(metric)).faults
    assert "hyperparameters=" in fault.what
    assert [*fault.where] == ["'train_loss', 72 different values in 72 rows"]
    named = examine(write(metric), hyperparameters=["lr", "wid*", "optimizer", "momentum"])
    assert_array_equal(named.curves.scores, found.curves.scores)
    assert [*named.space] == [*found.space]
    assert "no such hyperparameters" in lines(write(metric), hyperparameters=["lr", "config/*"])[1]


def test_epochs_from_zero_and_fractions_of_epochs(rows, write):
    plain = read(write(rows))
    zero = read(write(rows.assign(epoch=rows["epoch"] - 1)), first_epoch=0)
    tenths = [f"{0.1 * epoch:.17g}" for epoch in rows["epoch"]]  # 0.30000000000000004 is one
    for curves in (zero, read(write(rows.assign(epoch=tenths)), epoch_unit=0.1)):
        assert_array_equal(curves.epochs, plain.epochs)
        assert_array_equal(curves.scores, plain.scores)
    path = write(rows.assign(epoch=(rows["epoch"] - 1) / 2))
    assert "first_epoch=0" in lines(path)[1]
    assert "epoch_unit=0.5" in lines(path, first_epoch=0)[1]
    assert_array_equal(read(path, first_epoch=0, epoch_unit=0.5).scores, plain.scores)


def test_scores_that_are_nan_can_be_missing(rows, write):
    rows.loc[7, "score"] = "nan"
    path = write(rows)
    expected = make_rows()["score"].to_numpy(float)
    expected[7] = np.nan
    found = examine(path, space=make_space(), nan="missing")
    assert_array_equal(found.metric.ravel(), expected)
    assert [note.what for note in found.notes] == ["1 rows have no score: it is missing"]
    with pytest.raises(ValueError, match="nan is 'diverged' or 'missing', not 'zero'"):
        read(path, nan="zero")


def test_rows_without_a_score_conflict_with_nothing(rows, write):
    """As where training is logged in rows of its own, at steps between or without an epoch."""
    plain = read(write(rows))
    training = rows.assign(score="", cost="")
    between = training.assign(epoch=rows["epoch"] + 100)
    without = training[:5].assign(epoch="")
    found = examine(write(pd.concat([training, rows, between, without])), space=make_space())
    assert not found.faults
    assert [note.what for note in found.notes] == [
        "5 rows without epoch and score are left out",
        "72 rows have no score: it is missing",
    ]
    assert_array_equal(found.curves.scores, plain.scores)
    assert_array_equal(found.curves.epochs, plain.epochs)


def test_steps_that_no_two_runs_share_are_put_together(rows, write):
    """Each run logs at 50 steps of its own of 20,000; a curve is exact up to its last step."""
    rng, curves = np.random.default_rng(0), []
    for run in range(18):
        steps = np.sort(rng.choice(np.arange(1, 20001), 50, replace=False))
        first = rows.iloc[4 * run].to_dict()
        curves += [
            first | {"epoch": step, "score": 1 - 1 / step, "cost": 0.5} for step in steps.tolist()
        ]
    curves[-1]["score"] = "inf"
    path = write(pd.DataFrame(curves))
    found = examine(path, space=make_space(), fidelities=20)
    (note,) = [n.what for n in found.notes if "put together" in n.what]
    assert note.startswith("runs have scores at ")
    assert "fidelities from" in note
    epochs, metric = found.curves.epochs, found.metric[0]
    assert len(epochs) <= 20
    steps = np.array([c["epoch"] for c in curves])
    assert epochs[-1] == steps.max()
    assert {*epochs} <= {*steps}
    assert np.diff(np.log(epochs))[-7:].std() < 0.05
    run = steps[:50]
    ends = [run[run <= epoch].max(initial=0) for epoch in epochs]
    previous = [0, *ends[:-1]]
    expected = [1 - 1 / e if e > p else np.nan for e, p in zip(ends, previous, strict=True)]
    assert_allclose(metric[0, 0], expected)
    assert np.nansum(found.curves.cost) == 0.5 * len(curves)
    assert np.isnan(metric[2, 5, np.searchsorted(epochs, steps[-1])])  # where the last diverges
    assert len(examine(path, space=make_space()).curves.epochs) <= 100
    with pytest.raises(ValueError, match="fidelities must be a whole number from 1, not 0"):
        read(path, fidelities=0)


def test_a_column_that_is_no_hyperparameter_is_one_fault(rows, write):
    rows = rows.assign(train_loss=np.arange(len(rows)), fold=rows["epoch"] % 2)
    faults = examine(write(rows)).faults
    assert [[*fault.where] for fault in faults] == [
        ["'train_loss', in 6 of 6 configurations", "'fold', in 6 of 6 configurations"]
    ]
    assert "ignore=" in faults[0].what


def test_findings_make_no_more_lines_than_are_asked_for(rows, write):
    whole = pd.concat([rows] * 3)
    (fault,) = examine(write(whole), space=make_space()).faults
    made = []
    lazy = type(fault.where)(range(10**9), lambda i: made.append(i) or f"{i}")
    assert fault._replace(where=lazy).lines(3) == [
        fault.what,
        *["  0", "  1", "  2"],
        "  and 999999997 more",
    ]
    assert len(made) == 3
    assert len(fault.where) == 144
    assert fault.where[-1].startswith("row 217: task 'c', configuration '5', epoch 4: as row 73")


# Metrics other than accuracy


def test_losses(rows, write):
    loss = rows.assign(score=np.exp(-5 * rows["score"].astype(float)))
    curves = read(write(loss), minimise=True)
    values = loss["score"].to_numpy(float).reshape(curves.scores.shape)
    assert curves.outcome.sign == -1
    assert curves.outcome.softening is not None
    assert_allclose(curves.outcome.inverse(curves.scores), values, rtol=1e-12)
    assert_array_equal(np.argsort(curves.scores, axis=None), np.argsort(-values, axis=None))
    for part in (curves.repeat(0), curves.select(tasks=["b"]), curves.split(["a"], "b")[1]):
        assert part.outcome == curves.outcome


def test_tuner_on_losses(rows, write):
    loss = rows.assign(score=np.exp(-5 * rows["score"].astype(float)))
    curves = read(write(loss), minimise=True).repeat(0)
    sources, target = curves.split(["a", "b"], "c")
    losses = loss["score"].to_numpy(float).reshape(curves.scores.shape)[2]
    options = {"model": "multi_task", "kernels": {"config": "matern"}, "steps": 20}
    tuner = Tuner(sources, jax.random.key(0), **options)
    for config, epoch in np.ndindex(CONFIGS, EPOCHS):
        score = sources.outcome.forward(losses[config, epoch])
        assert_allclose(score, target.scores[0, config, epoch], rtol=1e-12)
        tuner.tell(config, epoch + 1, losses[config, epoch])
    predicted = sources.outcome.inverse(tuner.posterior().mean)
    assert_allclose(predicted[:, -1], losses[:, -1], rtol=0.25)
    assert losses[tuner.recommend()].min() == losses.min()


def test_direction_is_questioned(rows, write):
    path = write(rows.assign(score=1 - rows["score"]))
    assert notes(path) == [
        "the metric gets worse along 100% of the curves: set minimise if smaller is better"
    ]
    assert notes(path, minimise=True) == []
    assert notes(write(rows), minimise=True) == [
        "the metric gets worse along 100% of the curves: leave out minimise if larger is better"
    ]


# Runs that diverge, and other gaps


@pytest.mark.parametrize("value", ["nan", "NaN", "inf", "-inf", "1e300", "Infinity", "1e999"])
@pytest.mark.parametrize("diverged", ["missing", "worst"])
def test_runs_that_diverge(rows, write, value, diverged):
    rows.loc[5, "score"] = value  # task a, configuration 1, epoch 2; epochs 3 and 4 are finite
    path = write(rows)
    with pytest.warns(UserWarning, match="1 of 18 runs diverge") as warned:
        curves = read_curves(path, space=make_space(), diverged=diverged)
    message = str(warned[0].message).splitlines()
    treatment = {"missing": "missing", "worst": "the worst score of their task"}[diverged]
    assert message == [
        f"{path}: 1 of 18 runs diverge and are {treatment} from there on, 2 finite scores included",
        "  row 7: task 'a', configuration '1', repeat 0, from epoch 2 on",
    ]
    expected = make_rows()["score"].to_numpy(float).reshape(curves.scores.shape)
    expected[0, 1, 1:] = np.nan
    if diverged == "worst":
        expected[0, 1, 1:] = np.nanmin(expected[0])
    assert_array_equal(curves.scores, expected)


def test_worst_loss_is_the_largest(rows, write):
    rows.loc[5, "score"] = "inf"
    rows = rows.drop([6, 7])  # the run ended when it diverged
    path = write(rows)
    found = examine(path, space=make_space(), minimise=True, diverged="worst")
    given = pd.to_numeric(rows["score"][rows["task"] == "a"])
    assert_array_equal(found.metric[0, 0, 1, 1:], [given[given < np.inf].max()] * 3)
    with pytest.raises(ValueError, match="'missing' or 'worst', not 'dropped'"):
        read(path, diverged="dropped")


def test_scores_are_made_by_a_transform_of_ones_own(rows, write):
    outcome = RobustOutcome(sign=-1.0, location=-0.3, scale=0.1)
    rows.loc[5, "score"] = "inf"
    found = examine(write(rows), space=make_space(), outcome=outcome, diverged="worst")
    assert found.curves.outcome is outcome
    assert_allclose(found.curves.repeats, (0.3 - found.metric) / 0.1)
    assert_array_equal(found.metric[0, 0, 1, 1], np.nanmax(found.metric[0, 0]))  # it is minimised


def test_parquet_nan_diverges_and_null_is_missing(rows, write):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = write(rows, "curves.parquet")
    table = pq.read_table(path)
    scores = table["score"].to_pylist()
    scores[5], scores[23] = float("nan"), None
    pq.write_table(table.set_column(3, "score", pa.array(scores)), path)
    assert notes(path) == [
        "1 rows have no score: it is missing",
        "  row 24: task 'a', configuration '5', epoch 4",
        "1 of 18 runs diverge and are missing from there on, 2 finite scores included",
        "  row 6: task 'a', configuration '1', repeat 0, from epoch 2 on",
    ]


def test_gaps_blank_rows_and_unscored_configurations(rows, write):
    rows.loc[1, "score"] = np.nan
    rows.loc[rows["config"] == 4, "score"] = np.nan
    text = rows.to_csv(index=False).splitlines()
    path = write("\n".join([text[0], "", *text[1:3], "," * text[0].count(","), *text[3:]]))
    found = notes(path)
    assert found[:2] == ["2 blank rows are left out", "  rows 2, 5"]
    assert found[2] == "13 rows have no score: it is missing"
    assert found[3] == "  row 4: task 'a', configuration '0', epoch 2"
    assert found[-3:] == [
        "configurations have no score on any task",
        "  '4'",
        "1 curves lack epochs before their last, which are missing",
    ]


def test_a_task_with_epochs_of_its_own_is_noted(rows, write):
    rows.loc[rows["task"] == "b", "epoch"] = rows["epoch"] * 1000
    assert "tasks share no epoch with another task" in notes(write(rows))
    assert "  'b': 1000, 2000, 3000, 4000 ..." in notes(write(rows))
    assert notes(write(rows[rows["task"] == "b"])) == []


def test_same_configurations(rows, write):
    rows.loc[rows["config"] == 4, ["lr", "width", "momentum"]] = [
        *rows.loc[0, ["lr", "width", "momentum"]]
    ]
    assert notes(write(rows)) == ["configurations have the same hyperparameters", "  '0', '4'"]


# Rows that are wrong: each is named, and nothing passes


def at(row: int) -> str:
    """How the row of a CSV file is named."""
    cell = make_rows().iloc[row - 2]
    return (
        f"row {row}: task {cell['task']!r}, configuration '{cell['config']}', epoch {cell['epoch']}"
    )


@pytest.mark.parametrize(
    ("column", "value", "what", "detail"),
    [
        ("score", "abc", "scores that are not numbers", ", score 'abc'"),
        ("score", "0,5", "scores that are not numbers", ", score '0,5'"),
        ("score", "NA", "scores that are not numbers", ", score 'NA'"),
        ("score", "True", "scores that are not numbers", ", score 'True'"),
        ("score", "1_0", "scores that are not numbers", ", score '1_0'"),
        ("cost", "-1", "costs that are negative or not finite numbers", ", cost '-1'"),
        ("cost", "nan", "costs that are negative or not finite numbers", ", cost 'nan'"),
        ("cost", "inf", "costs that are negative or not finite numbers", ", cost 'inf'"),
        ("cost", "free", "costs that are negative or not finite numbers", ", cost 'free'"),
    ],
)
def test_values_that_are_wrong(rows, write, column, value, what, detail):
    rows.loc[[3, 40], column] = value
    path = write(rows)
    assert lines(path) == [f"{path}:", what, f"  {at(5)}{detail}", f"  {at(42)}{detail}"]


@pytest.mark.parametrize("value", ["1.5", "0", "-2", "", "nan", "inf", "two", "1e300"])
def test_epochs_that_are_wrong(rows, write, value):
    rows.loc[[3, 40], "epoch"] = value
    path = write(rows)
    hint = {
        "0": " (first_epoch=0, --first-epoch 0, where they count from 0)",
        "1.5": " (epoch_unit=0.5, say, --epoch-unit, where they are multiples of that)",
    }
    assert lines(path) == [
        f"{path}:",
        f"epochs that are not whole numbers from 1{hint.get(value, '')}",
        f"  row 5: task 'a', configuration '0', epoch {value}",
        f"  row 42: task 'b', configuration '4', epoch {value}",
    ]


@pytest.mark.parametrize("column", ["task", "config", "seed"])
def test_rows_without_a_name(rows, write, column):
    rows["seed"] = "0"
    rows.loc[[3, 40], column] = ""
    path = write(rows)
    found = lines(path)
    assert found[1] == f"rows without a {column}"
    assert [line.split(":")[0] for line in found[2:]] == ["  row 5", "  row 42"]


@pytest.mark.parametrize("seeds", [False, True])
def test_rows_that_repeat(rows, write, seeds):
    if seeds:
        rows["seed"] = 3
    path = write(pd.concat([rows, rows.iloc[[10]].assign(epoch="3.0", score=0.1)]))
    hint = (
        ", seed of another" if seeds else " of another (runs of several seeds need a column seed)"
    )
    assert lines(path) == [
        f"{path}:",
        f"rows are of the task, config, epoch{hint}",
        "  row 74: task 'a', configuration '2', epoch 3: as row 12",
    ]


def test_configurations_with_two_settings(rows, write):
    rows["lr"] = [f"{lr:.6f}" for lr in rows["lr"]]
    rows.loc[0, "lr"] = "0.5"  # the first row of its configuration is the one that is wrong
    rows.loc[4, "lr"] = f"{float(rows.loc[4, 'lr']):.12e}"  # the same number
    rows.loc[[40, 41], "momentum"] = ""
    path = write(rows)
    momentum = rows.loc[16, "momentum"]
    assert lines(path) == [
        f"{path}:",
        "configurations have several values of lr",
        f"  {at(2)}: lr is '0.5', but '0.316228' in row 3",
        "configurations have several values of momentum",
        f"  {at(42)}: momentum is '', but '{momentum}' in row 18",
        f"  {at(43)}: momentum is '', but '{momentum}' in row 18",
    ]


@pytest.mark.parametrize(
    ("config", "column", "value", "why"),
    [
        (1, "lr", "2", "lr is 2, outside of real from 0.0001 to 1, log scale"),
        (1, "lr", "nan", "Hyperparameter is active but has no value set."),
        (1, "lr", "fast", "lr is 'fast', not a number"),
        (1, "width", "65", "width is 65, outside of integer from 1 to 64"),
        (1, "width", "2.5", "width is '2.5', not a whole number"),
        (1, "optimizer", "lion", "optimizer is 'lion', not one of "),
        (1, "momentum", "0.5", "Hyperparameter is inactive but has a value set as 0.5."),
        (2, "momentum", "", "Hyperparameter is active but has no value set."),
        (1, "width", "", "Hyperparameter is active but has no value set."),
    ],
)
def test_configurations_outside_of_the_space(rows, write, config, column, value, why):
    rows.loc[rows["config"] == config, column] = value
    path = write(rows)
    found = lines(path)
    first = 2 + 4 * config
    ranges = ", ".join(f"{start}-{start + 3}" for start in (first, first + 24, first + 48))
    assert len(found) == 3
    assert found[1] == "configurations are not in the search space"
    assert found[2].startswith(f"  configuration '{config}', rows {ranges}: ")
    assert why in found[2]


def test_all_that_is_wrong_with_a_configuration(rows, write):
    rows.loc[rows["config"] == 1, ["lr", "width"]] = ["2", "x"]
    rows.loc[rows["config"] == 2, "lr"] = "0"
    found = lines(write(rows))
    assert len(found) == 4
    assert "lr is 2" in found[2]
    assert "width is 'x'" in found[2]
    assert "lr is 0" in found[3]


@pytest.mark.parametrize("value", ["", "nan"])
def test_task_without_a_score(rows, write, value):
    rows.loc[rows["task"] == "b", "score"] = value
    path = write(rows)
    assert lines(path) == [f"{path}:", "task 'b' has no finite score", "  rows 26-49"]


def test_one_configuration(rows, write):
    path = write(rows[rows["config"] == 2])
    assert lines(path)[1:] == ["there is one configuration only: nothing to choose from", "  2"]


def test_rows_of_the_wrong_length(rows, write):
    text = rows.to_csv(index=False).splitlines()
    text[3] = text[3].rsplit(",", 1)[0]
    text[20] += ",1"
    path = write("\n".join([*text[:10], "", *text[10:]]))
    assert lines(path) == [
        f"{path}:",
        "rows have another number of cells than the header",
        "  row 4: 8 of 9",
        "  row 22: 10 of 9",
    ]


def test_many_faults_at_once(rows, write):
    """Nothing hides anything else, and 20 rows of a kind are named."""
    rows["score"] = "?"
    rows.loc[:3, "epoch"] = -1
    rows.loc[5, "task"] = ""
    found = lines(write(rows))
    assert found.count("rows without a task") == 1
    assert found.count("epochs that are not whole numbers from 1") == 1
    at_scores = found.index("scores that are not numbers")
    assert len(found[at_scores + 1 :]) == 21
    assert found[-1] == "  and 52 more"
    whole = examine(write(rows), space=make_space()).faults[-1]
    assert [line.split(":")[0] for line in whole.where] == [f"row {i}" for i in range(2, 74)]
    assert whole.lines(1000)[-1].startswith("  row 73")


def test_row_numbers_survive_faults_and_blanks(rows, write):
    """Rows that are left out shift no number of those after them."""
    rows.loc[30, "score"] = "x"
    text = rows.to_csv(index=False).splitlines()
    text.insert(5, "")
    text.insert(9, "too,short")
    text.insert(12, "")
    found = lines(write("\n".join(text)))
    assert "  row 10: 2 of 9" in found
    assert f"  row 35: {at(32).split(': ')[1]}, score 'x'" in found


# Columns and files that are wrong


@pytest.mark.parametrize("column", ["task", "epoch", "score"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_missing_column(rows, write, column, ending):
    path = write(rows.rename(columns={column: column.upper()}), f"curves.{ending}")
    found = lines(path, space=None)
    assert found[1].startswith("columns are missing; there are ")
    assert column.upper() in found[1]
    assert found[2] == f"  {column!r}"


def test_columns_and_search_space_disagree(rows, write):
    path = write(rows.rename(columns={"width": "widht"}))
    assert lines(path)[1:] == [
        "columns are not in the search space: ignore them",
        "  'widht'",
        "hyperparameters have no column",
        "  'width'",
        *lines(path)[5:],
    ]


def test_columns_of_one_name_and_of_none(rows, write):
    text = rows.to_csv().splitlines()
    text[0] = text[0].replace("cost", "score")
    found = lines(write("\n".join(text)))
    assert found[1:3] == ["columns have the same name", "  'score'"]
    assert "columns have no name (an index?): ignore them" in found


def test_unknown_columns_in_options(rows, write):
    found = lines(write(rows), ignore=["hots"], columns={"seed": "random_state"})
    assert found[1].startswith("no such columns; there are task, config, ")
    assert sorted(found[2:]) == ["  'hots'", "  'random_state'"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Empty CSV file"),
        (b"\n", "Empty CSV file"),
        (b"task;config;epoch;score\na;1;1;0.5\n", "columns are missing"),
        (b"task,config,epoch,score,lr\n", "there are no rows"),
        (b"task,config,epoch,score,lr\n,,,,\n\n", "there are no rows"),
        (b"task,config,epoch,score,lr\n\xff,1,1,1,1\n", "not a CSV file in UTF-8"),
        (b"\xff\xfet\x00a\x00s\x00k\x00", "not a CSV file in UTF-8"),
        (b"task,config,epoch,score,lr\n,,x,y,z\n", "rows without a task"),
    ],
)
def test_broken_csv(write, content, message):
    path = write(content)
    assert message in "\n".join(lines(path, space=None))


def test_broken_parquet(rows, write):
    path = write(b"PAR1 or not", "curves.parquet")
    with pytest.raises(ValueError, match="not a Parquet file"):
        read(path)
    nested = rows.assign(lr=[[1.0, 2.0]] * len(rows))
    assert "column 'lr' holds list" in lines(write(nested, "curves.parquet"))[1]
    with pytest.raises(ValueError, match="there are no rows"):
        read(write(rows.iloc[:0].astype(str), "curves.parquet"))


def test_other_files(rows, write, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        read(tmp_path / "absent.csv")
    with pytest.raises(ValueError, match=r"must end in \.csv, .*, \.parquet"):
        read(write("x", "curves.xlsx"))
    path = write(rows)
    with pytest.raises(FileNotFoundError, match="no search space"):
        read(path, space=tmp_path / "absent.json")
    for name, content in {
        "a.json": '{"a": 1}',
        "b.json": "{",
        "c.yaml": "[1",
        "d.json": '{"hyperparameters": [{"name": "x", "type": "magic"}]}',
        "e.pcs": "",
    }.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=r"search space"):
            read(path, space=tmp_path / name)


def test_grid_that_is_too_large(rows, write, monkeypatch):
    monkeypatch.setattr(grid, "_LARGEST_GRID", 71)
    (line,) = lines(write(rows))[1:]
    assert line == (
        "the grid of 1 repeats, 3 tasks, 6 configurations and 4 epochs has more than 71 entries"
    )


def test_without_pandas(rows, write, tmp_path):
    """`amt` needs neither pandas nor pyarrow, and says what reading a file needs.

    In a process that has imported nothing but JAX and what that needs.
    """
    code = f"""
import sys
kept = sys.stdlib_module_names | {{"__main__", "jax", "jaxlib", "ml_dtypes", "numpy", "scipy"}}
for name in [name for name in sys.modules if name.partition(".")[0] not in kept]:
    del sys.modules[name]
sys.modules["pandas"] = sys.modules["pyarrow"] = None
import amt, amt.databases
try:
    amt.databases.load({str(write(rows))!r})
except ImportError as error:
    assert "amt[experiments]" in str(error), error
else:
    raise SystemExit("no error")
"""
    (tmp_path / "bare.py").write_text(code)
    Script(tmp_path / "bare.py", []).finish()


# By name


def test_load(rows, write, tmp_path):
    path = write(rows)
    curves = load(path, space=make_space())
    assert_array_equal(curves.scores, load(str(path), space=make_space()).scores)
    with pytest.raises(KeyError, match=r"hyperrec, lcbench and files that end in \.csv"):
        load("curves.xlsx")
    with pytest.raises(KeyError, match="leave_one_out"):
        paper_pairs(str(path))
    splits = make_splits(str(path), curves.repeat(0), kind="leave_one_out")
    assert [split.target.tasks for split in splits] == [("a",), ("b",), ("c",)]
