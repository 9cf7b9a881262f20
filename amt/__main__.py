"""Lists what can be run, and runs the part that is in the package.

```sh
python -m amt                 # the list
python -m amt check FILE ...  # as python -m amt.databases check
python -m amt report PATH ... # as python -m amt.report
```
"""

import sys
from collections.abc import Sequence

from rich.console import Console

COMMANDS = {
    "check": ("python -m amt check FILE", "name every bad row of a file of learning curves"),
    "tune": ("python experiments/live.py", "tune networks that are trained meanwhile"),
    "run": ("python experiments/at2.py", "compare tuners on a database, tables and figures"),
    "report": ("python -m amt report PATH", "one HTML page of results and tuners' state files"),
    "paper": ("make paper", "the paper's figures and tables from results/"),
    "download": ("python scripts/download_databases.py", "fetch HyperRec and LCBench"),
}
"""Commands and what they do, by name; scripts need a clone of the repository."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command, and returns its exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["check"]:
        from amt.databases.__main__ import main as check

        return check(arguments)
    if arguments[:1] == ["report"]:
        from amt.report.__main__ import main as report

        return report(arguments[1:])
    console = Console(highlight=False, soft_wrap=True, markup=False)
    unknown = bool(arguments) and arguments[0] not in ("-h", "--help")
    if unknown:
        console.print(f"no command {arguments[0]!r}; there are\n")
    width = max(len(command) for command, _ in COMMANDS.values())
    for command, purpose in COMMANDS.values():
        console.print(f"{command:<{width}}  {purpose}")
    console.print("\nIn Python: amt.Tuner, amt.simulate; with Optuna: amt.integrations.optuna.")
    return 2 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
