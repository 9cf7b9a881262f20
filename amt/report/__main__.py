"""Writes one HTML page of results and of the states of live tuners.

```sh
python -m amt.report PATH ... [--output FILE] [--sources NAME [--tasks TASK ...]] ...
```

The exit status is 0 if a page was written, else 1.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from amt import databases
from amt.compilation import use_compilation_cache
from amt.curves import LearningCurves


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command, and returns its exit status."""
    chosen = _parser().parse_args(arguments)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    try:
        from amt.report.write import write_report

        first = chosen.paths[0]
        output = chosen.output or (first if first.is_dir() else first.parent) / "report.html"
        write_report(chosen.paths, output, sources=_sources(chosen))
    except (ImportError, KeyError, OSError, ValueError) as error:
        console.print(str(error.args[0] if isinstance(error, KeyError) else error))
        return 1
    console.print(str(output))
    return 0


def _sources(chosen: argparse.Namespace) -> LearningCurves | None:
    if chosen.sources is None:
        return None
    curves = databases.load(chosen.sources, **chosen.options)
    curves = curves if chosen.repeat is None else curves.repeat(chosen.repeat)
    return curves.select(tasks=chosen.tasks)


def _parser() -> argparse.ArgumentParser:
    def options(text: str) -> dict[str, Any]:
        try:
            values = json.loads(text)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise argparse.ArgumentTypeError(f"{text!r} is no object in JSON")
        return values

    parser = argparse.ArgumentParser(
        prog="python -m amt.report",
        description="Writes one HTML page of results and of the states of live tuners.",
    )
    add = parser.add_argument
    add("paths", metavar="PATH", nargs="+", type=Path, help="a folder, or a tuner's state file")
    add("--output", metavar="FILE", type=Path, help="by default report.html in the first folder")
    add("--sources", metavar="NAME", help="database or file of the tuners' past tasks")
    add("--tasks", metavar="TASK", nargs="+", help="the past tasks in their order (all)")
    add("--repeat", metavar="N", type=int, help="training run of the database (their mean)")
    add(
        "--options",
        metavar="JSON",
        type=options,
        default={},
        help="of amt.databases.load, such as '{\"minimise\": true}'",
    )
    return parser


if __name__ == "__main__":
    use_compilation_cache()
    sys.exit(main())
