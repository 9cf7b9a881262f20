"""Writes files that are complete or not there, and reads JSON files."""

import json
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


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, completely or not at all."""
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    atomic_write(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> Any:
    """Read a JSON file; None unless it is there and whole."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
