"""A bar in the terminal that shows how far a run is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def bar_of_parts(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar, and give the function that moves it (`progress` of `amt.evaluation.runs.run`)."""
    columns = TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("parts")
        yield lambda number, total, stage: progress.update(
            bar, completed=number, total=total, description=f"part {number}: {stage}"
        )
