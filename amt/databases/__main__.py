"""Examines a file of learning curves.

```sh
python -m amt.databases check FILE [--space SPACE] [--minimise] ...
```

says what is in the file, how its metric becomes scores, and names every bad row. The exit status is
0 if `amt.databases.load` reads the file, else 1.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from amt.compilation import use_compilation_cache
from amt.databases.long_form import LIMIT, OPTIONAL, REQUIRED, SUFFIXES, Examination, examine
from amt.databases.long_form.fidelities import FIDELITIES
from amt.databases.spaces import describe_space
from amt.files import write_json


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command, and returns its exit status."""
    chosen = _parser().parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    try:
        found = examine(
            chosen.file,
            space=chosen.space,
            minimise=chosen.minimise,
            diverged=chosen.diverged,
            columns=dict(chosen.column),
            ignore=chosen.ignore,
            hyperparameters=chosen.hyperparameter,
            nan=chosen.nan,
            first_epoch=chosen.first_epoch,
            epoch_unit=chosen.epoch_unit,
            fidelities=chosen.fidelities,
        )
    except (ImportError, OSError, ValueError) as error:
        console.print(str(error))
        return 1
    if found.curves is not None:
        _print_curves(found, console)
    if chosen.save_space is not None and found.space is not None:
        write_json(Path(chosen.save_space), found.space.to_serialized_dict())
        console.print(f"Search space written to {chosen.save_space}.\n")
    for title, findings in (("Notes", found.notes), ("Faults", found.faults)):
        if findings:
            console.print(title, style="bold")
            for finding in findings:
                console.print("\n".join(f"  {line}" for line in finding.lines(chosen.limit)))
            console.print()
    count = len(found.faults)
    faults = f"{count or 'no'} {'kind' if count == 1 else 'kinds'} of fault"
    console.print(f"{chosen.file}: {found.rows} rows, {faults}.")
    return 1 if found.faults else 0


def _parser() -> argparse.ArgumentParser:
    def renamed(text: str) -> tuple[str, str | None]:
        name, equals, column = text.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=COLUMN")
        return name, column or None

    def whole(text: str) -> int:
        if not text.isdecimal():
            raise argparse.ArgumentTypeError(f"must be a whole number from 0, not {text}")
        return int(text)

    parser = argparse.ArgumentParser(prog="python -m amt.databases", description=__doc__)
    check = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "check", help="examine a file", description="Examine a file of learning curves."
    )
    names = ", ".join(REQUIRED + OPTIONAL)
    add = check.add_argument
    add("file", metavar="FILE", help=f"{', '.join(SUFFIXES)}, a row for each score")
    add("--space", help="search space of ConfigSpace, .json or .yaml; by default inferred")
    add("--minimise", action="store_true", help="smaller values of the metric are better")
    add("--diverged", choices=["missing", "worst"], default="missing", help="see long_form")
    add(
        "--column",
        action="append",
        default=[],
        type=renamed,
        metavar="NAME=COLUMN",
        help=f"what {names} is called in the file; `--column cost=` if cost is a hyperparameter",
    )
    add("--ignore", action="append", default=[], metavar="COLUMN", help="leave a column out")
    add(
        "--hyperparameter",
        action="append",
        metavar="COLUMN",
        help="a column of hyperparameters, or a pattern such as 'config/*'; by default all others",
    )
    add("--nan", choices=["diverged", "missing"], default="diverged", help="what it stands for")
    add("--first-epoch", type=int, default=1, help="what the file calls it (%(default)s)")
    add("--epoch-unit", type=float, default=1.0, help="of fractions of epochs (%(default)s)")
    add("--fidelities", type=int, default=FIDELITIES, help="largest number of epochs (%(default)s)")
    add("--limit", type=whole, default=LIMIT, help="rows to print of each kind (%(default)s)")
    add("--save-space", metavar="PATH", help="write the search space to this .json file")
    return parser


def _print_curves(found: Examination, console: Console) -> None:
    curves, metric = found.curves, found.metric
    assert curves is not None
    assert metric is not None
    epochs = curves.epochs
    facts = {
        "tasks": f"{curves.num_tasks}",
        "configurations": f"{curves.num_configs}",
        "epochs": f"{curves.num_epochs}, from {epochs[0]} to {epochs[-1]}",
        "repeats (seeds)": f"{len(metric)}",
        "missing": f"{np.isnan(metric).mean():.1%} of all scores, "
        f"{np.isnan(curves.scores).mean():.1%} of their means over repeats",
        "metric": f"from {np.nanmin(metric):.6g} to {np.nanmax(metric):.6g}, "
        + ("minimised" if curves.outcome.sign < 0 else "maximised"),
        "outcome transform": str(curves.outcome),
        "cost of an epoch": "not known"
        if curves.cost is None
        else f"from {np.nanmin(curves.cost):.6g} to {np.nanmax(curves.cost):.6g}",
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in facts.items():
        table.add_row(name, fact)
    console.print(table, "")

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("task", overflow="fold")
    for name in ("curves", "epochs", "missing", "worst", "median", "best", "scores"):
        table.add_column(name, justify="right", no_wrap=True)
    for t, task in enumerate(curves.tasks):
        values, scores = metric[:, t], curves.scores[t]
        lengths = (~np.isnan(values)).sum(-1)
        lengths = lengths[lengths > 0]
        quantiles = np.nanquantile(values, [0, 0.5, 1])[:: int(curves.outcome.sign)]
        table.add_row(
            task,
            f"{lengths.size}",
            f"{lengths.min()}-{lengths.max()}",
            f"{np.isnan(values).mean():.1%}",
            *(f"{value:.3g}" for value in quantiles),
            f"{np.nanmin(scores):.2f}, {np.nanmax(scores):.2f}",
        )
    console.print(table, "")
    console.print("Search space", style="bold")
    for line in describe_space(curves.space):
        console.print(f"  {line}")
    console.print()


if __name__ == "__main__":
    use_compilation_cache()
    sys.exit(main())
