"""Files in long form, read as they are."""

import gzip

import jax
import numpy as np
import pandas as pd
import pytest
from ConfigSpace import Categorical
from ConfigSpace.hyperparameters import UniformFloatHyperparameter
from numpy.testing import assert_allclose, assert_array_equal

from amt import Tuner
from amt.databases import bundled, load, paper_pairs
from amt.databases.long_form import examine
from amt.evaluation.splits import make_splits
from amt.space import Encoder
from tests.databases.long_form import (
    CONFIGS,
    EPOCHS,
    TASKS,
    lines,
    make_rows,
    make_space,
    notes,
    read,
)

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
