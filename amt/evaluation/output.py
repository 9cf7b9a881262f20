"""Files of an experiment: one table and one figure, each complete or not there."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from amt.evaluation.figures import save_figure
from amt.files import atomic_write


def write_output(folder: Path, name: str, table: pd.DataFrame, figure: Figure) -> None:
    """Write a table as `name`.csv and `name`.md, and its figure as `name`.pdf and `name`.png."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"csv": table.to_csv(index=False), "md": markdown(table)}
    for ending, text in texts.items():
        atomic_write(folder / f"{name}.{ending}", lambda f, text=text: f.write(text.encode()))
    for ending in ("pdf", "png"):
        save_figure(figure, folder / f"{name}.{ending}")


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown: numbers with three digits, nothing where they are missing."""
    heads = [str(column).replace("_", " ") for column in table]
    rows = [[_entry(value) for value in row] for row in table.itertuples(index=False)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])


def _entry(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else ""
    if not isinstance(value, float | np.floating):
        return str(value)
    if np.isnan(value):
        return ""
    return f"{value:.0f}" if 100 <= abs(value) < np.inf else f"{value:.3g}"
