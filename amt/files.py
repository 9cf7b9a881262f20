"""Files that are complete or not there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

TEMPORARY = ".tmp"


def atomic_write(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file under a temporary name beside it, flush it to disk, then rename it.

    However the process or the machine ends, `path` is what it was before or what `write` wrote.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself
    finally:
        os.close(folder)
