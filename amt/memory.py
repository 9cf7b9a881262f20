"""Memory of this process."""

from contextlib import suppress
from pathlib import Path
from types import TracebackType

_PROCESS = Path("/proc/self")


class PeakMemory:
    """A context that measures by how much the process grows in it, at its peak.

    Attributes:
        bytes: of resident memory, beyond what was resident at the start; NaN where the system does
            not say (it is Linux that does).
    """

    def __init__(self):
        self.bytes = float("nan")

    def __enter__(self) -> "PeakMemory":
        self._start = float("nan")
        with suppress(OSError):
            (_PROCESS / "clear_refs").write_text("5")  # the peak so far is forgotten
            self._start = _resident("VmRSS")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self.bytes = max(_resident("VmHWM") - self._start, 0.0)


def _resident(entry: str) -> float:
    for line in (_PROCESS / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == entry:
            return 1024.0 * int(value.split()[0])
    return float("nan")
