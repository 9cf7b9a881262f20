"""Scripts that run parts: a bar in the terminal that shows how far they are, and their errors."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from amt.compilation import use_compilation_cache


@contextmanager
def bar_of_parts(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Show a bar, and give the function that moves it (`progress` of `amt.evaluation.runs.run`)."""
    columns = TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        bar = progress.add_task("parts")
        yield lambda number, total, stage: progress.update(
            bar, completed=number, total=total, description=f"part {number}: {stage}"
        )


@contextmanager
def script_of_parts(name: str, console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Run a script's parts under `bar_of_parts`, with compiled programs kept on disk.

    What is wrong with its settings ends the script with one line, which begins with its name.
    """
    use_compilation_cache()
    try:
        with bar_of_parts(console) as progress:
            yield progress
    except (KeyError, ValueError, FileNotFoundError, ImportError, RuntimeError) as error:
        sys.exit(f"{name}: {error.args[0] if isinstance(error, KeyError) else error}")
