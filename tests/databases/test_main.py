"""`python -m amt.databases check`."""

import numpy as np
import pytest
from ConfigSpace import Categorical, ConfigurationSpace, Float

from amt.databases import read_curves
from amt.databases.__main__ import main
from amt.databases.spaces import read_space
from tests.processes import Script

HEADER = "task,config,epoch,val_loss,seed,cost,lr,[optimizer]"


@pytest.fixture
def path(tmp_path):
    """Losses of 2 tasks, 5 configurations, 3 epochs and 2 seeds, one run cut off."""
    random = np.random.default_rng(0)
    rows = [
        f"{task},{c},{e},{10**t * random.uniform(1, 2) / e},{s},{0.5 * e},{10.0**-c},{'ab'[c % 2]}"
        for t, task in enumerate(["[red]a", "b"])
        for c in range(5)
        for e in range(1, 4)
        for s in range(2)
    ]
    path = tmp_path / "losses.csv"
    path.write_text("\n".join([HEADER, *rows[:-1]]))
    return path


OPTIONS = ["--column", "score=val_loss", "--minimise"]


def test_check(path, capsys):
    assert main(["check", str(path), *OPTIONS]) == 0
    output = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in output.splitlines()]
    for line in (
        "tasks 2",
        "configurations 5",
        "epochs 3, from 1 to 3",
        "repeats (seeds) 2",
        "missing 1.7% of all scores, 0.0% of their means over repeats",
        "cost of an epoch from 0.5 to 1.5",
        "lr: real from 0.0001 to 1, log scale",
        "[optimizer]: categorical a, b",
        f"{path}: 59 rows, no kinds of fault.",
    ):
        assert line in lines, line
    curves = read_curves_quietly(path, columns={"score": "val_loss"}, minimise=True)
    assert str(curves.outcome) in " ".join(lines)
    assert any(line.startswith("metric from 0.") and "minimised" in line for line in lines)
    (a,) = [line.split() for line in lines if line.startswith("[red]a ")]
    (b,) = [line.split() for line in lines if line.startswith("b ")]
    assert a[1:4] == ["10", "3-3", "0.0%"]
    assert b[1:4] == ["10", "2-3", "3.3%"]
    worst, median, best = map(float, a[4:7])
    assert worst > median > best > 0
    assert "the search space was inferred" in output


def read_curves_quietly(path, **options):
    with pytest.warns(UserWarning, match="was inferred"):
        return read_curves(path, **options)


def test_faults(path, capsys):
    text = [line.split(",") for line in path.read_text().splitlines()]
    for row in range(2, 32):
        text[row - 1][2] = "one"
    path.write_text("\n".join(map(",".join, text)))
    what = "epochs that are not whole numbers from 1"
    for limit, options in ((20, []), (2, ["--limit", "2"]), (30, ["--limit", "30"])):
        assert main(["check", str(path), *OPTIONS, *options]) == 1
        lines = capsys.readouterr().out.splitlines()
        start = lines.index(f"  {what}") + 1
        named = [f"    row {row}: task '[red]a'" for row in range(2, 2 + limit)]
        assert [line.split(",")[0] for line in lines[start : start + limit]] == named
        assert ("    and 10 more" in lines) == (limit == 20)
        assert lines[-1] == f"{path}: 59 rows, 1 kind of fault."


def test_space(path, tmp_path, capsys):
    space = tmp_path / "space.json"
    assert main(["check", str(path), *OPTIONS, "--save-space", str(space)]) == 0
    assert f"Search space written to {space}." in capsys.readouterr().out
    assert "lr" in read_space(space)
    assert {*tmp_path.iterdir()} == {space, path}
    assert main(["check", str(path), *OPTIONS, "--space", str(space)]) == 0
    assert "inferred" not in capsys.readouterr().out
    narrow = ConfigurationSpace(
        {"lr": Float("lr", (1e-2, 1)), "[optimizer]": Categorical("[optimizer]", ["a", "b"])}
    )
    narrow.to_json(space)
    assert main(["check", str(path), *OPTIONS, "--space", str(space)]) == 1
    output = capsys.readouterr().out
    assert "configuration '3', rows 20-25, 50-55: lr is 0.001, outside of real" in output
    assert "configuration '4', rows 26-31, 56-60: lr is 0.0001, outside of real" in output


def test_ignored_columns_and_divergence(path, capsys):
    text = path.read_text().splitlines()
    cells = text[1].split(",")
    cells[3] = "inf"
    text[1] = ",".join(cells)
    path.write_text("\n".join([f"{line},{i}" for i, line in enumerate(text)]))
    text = path.read_text().replace("[optimizer],0", "[optimizer],host", 1)
    path.write_text(text)
    assert main(["check", str(path), *OPTIONS]) == 1
    assert "'host', in " in capsys.readouterr().out
    assert main(["check", str(path), *OPTIONS, "--ignore", "host", "--diverged", "worst"]) == 0
    assert "1 of 20 runs diverge and are the worst score of their task" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.csv"], "there is no file absent.csv"),
        (["{path}", "--space", "absent.json"], "there is no search space absent.json"),
        (["{path}", "--column", "loss=val_loss"], "no column 'loss'"),
        (["{path}"], "columns are missing"),
    ],
)
def test_nothing_to_examine(path, capsys, arguments, message):
    assert main(["check", *(text.format(path=path) for text in arguments)]) == 1
    assert message in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["check"], ["check", "a.csv", "--column", "score"]])
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: python -m amt.databases" in capsys.readouterr().err


def test_as_a_module(path):
    arguments = ["check", str(path)]
    output = Script("amt.databases", [*arguments, *OPTIONS]).finish()
    assert "59 rows, no kinds of fault." in output
    assert Script("amt.databases", arguments).wait() == 1
