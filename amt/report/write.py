"""The report of some folders and files, written as one page."""

from collections.abc import Sequence
from pathlib import Path

from amt.curves import LearningCurves
from amt.files import atomic_write
from amt.report.live import state_section
from amt.report.page import Section, render
from amt.report.results import result_sections
from amt.search.state import read


def write_report(
    paths: Sequence[Path], output: Path, *, sources: LearningCurves | None = None
) -> None:
    """Write the page of what is in some folders, and of some state files.

    Args:
        paths: folders, searched to any depth for results of experiments and states of tuners, and
            state files.
        sources: of the tuners, from which their predictions follow.

    Raises:
        FileNotFoundError: a path is not there, or there is neither a result nor a state below.
        ValueError: a file is no state of a tuner.
    """
    sections: list[Section] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"there is no folder or file {path}")
        if not path.is_dir():
            sections.append(state_section(path.name, path, sources))
            continue
        for file in sorted(path.rglob("*.npz")):
            if _is_state(file):
                title = f"Tuner {file.relative_to(path).as_posix()}"
                sections.append(state_section(title, file, sources))
        sections += result_sections(path)
    if not sections:
        raise FileNotFoundError(
            f"nothing to report in {', '.join(map(str, paths))}: there are neither finished "
            "results of experiments nor the state file of a tuner"
        )
    title = "amt: " + ", ".join(path.resolve().name for path in paths)
    page = render(title, sections)
    atomic_write(output, lambda file: file.write(page.encode()))


def _is_state(path: Path) -> bool:
    try:
        read(path)
    except ValueError:
        return False
    return True
