"""The report of a sweep, when all of its jobs are done.

table.csv      one row a run, the best first
table.tex      the best, the worst and the published of each database, if there are many
table.md       the same in Markdown
figure.pdf, figure.png
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.experimental.callback import Callback
from matplotlib.figure import Figure
from rich.console import Console

from amt.evaluation.figures import save_figure
from amt.evaluation.sweeps import CHOICES, budgets_of, collect, highlights
from amt.evaluation.tables import latex_of_runs, markdown_of_runs
from amt.files import atomic_write

Draw = Callable[[pd.DataFrame, Sequence[int]], Figure]


def write_report(folder: Path, draw: Draw, console: Console) -> None:
    """Write table and figure of the folder of a sweep, and print the best runs.

    Args:
        draw: makes the figure, of a table from `collect` and the budgets in it.
    """
    table = collect(folder)
    budgets, shown = budgets_of(table), highlights(table)
    texts = {
        "table.csv": table.to_csv(index=False),
        "table.tex": latex_of_runs(shown),
        "table.md": markdown_of_runs(shown),
    }
    for file, text in texts.items():
        atomic_write(folder / file, lambda f, text=text: f.write(text.encode()))
    figure = draw(table, budgets)
    for ending in ("pdf", "png"):
        save_figure(figure, folder / f"figure.{ending}")
    say = partial(console.print, soft_wrap=True, highlight=False)
    for database, rows in shown.groupby("database", sort=False):
        say(f"{database}: mean rank of the recommended ({', '.join(map(str, budgets))} epochs)")
        for _, row in rows.iterrows():
            name = "-".join(str(row[c]) for c in CHOICES[1:]) + " (published)" * row["published"]
            ranks = (f"{row[f'rank_{b}']:.1f} ± {row[f'rank_{b}_error']:.1f}" for b in budgets)
            say(f"  {row['place']}. {name}: {row['mean_rank']:.1f} ({', '.join(ranks)})")
    for file in (*texts, "figure.pdf", "figure.png"):
        say(str(folder / file))


class Report(Callback):
    """Writes the report of a sweep when all of its jobs are done.

    Args:
        figure: makes the figure, such as `amt.evaluation.figures.kernel_figure`.
    """

    def __init__(self, figure: Draw):
        self._figure = figure

    def on_multirun_end(self, config: Mapping[str, Any], **_: Any) -> None:
        try:
            write_report(Path(config["output"]).resolve(), self._figure, Console())
        except Exception as error:  # Hydra would only warn
            raise SystemExit(f"the report of the sweep failed: {error!r}") from error
