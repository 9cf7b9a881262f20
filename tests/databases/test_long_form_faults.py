"""Faults of files in long form: each is named, and nothing passes."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from amt.databases.long_form import examine, grid, read_curves
from amt.outcome import RobustOutcome
from tests.databases.long_form import at, lines, make_rows, make_space, notes, read
from tests.processes import Script

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
