"""Scripts in processes of their own, forked from one that has imported what they use.

To import JAX, NumPyro and the rest takes four seconds, to fork a tenth of one. What is forked
(`multiprocessing`'s fork server) is a fresh interpreter in which nothing but imports has happened:
JAX has no devices yet, and what JAX reads of the environment when it is imported is as in the
tests.
"""

import os
import runpy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORTS = ["amt.evaluation.reports", "amt.evaluation.runs", "amt.integrations.optuna", "hydra"]
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(IMPORTS)


def _run(
    script: str, arguments: list[str], folder: str, environment: dict[str, str], names: list[str]
) -> None:
    """Run a file, or a module where `script` names one, as the interpreter does."""
    for number, name in enumerate(names, 1):  # standard output and errors
        os.dup2(os.open(name, os.O_WRONLY), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [script, *arguments]
    if script.endswith(".py"):
        sys.path.insert(0, str(Path(script).parent))
        runpy.run_path(script, run_name="__main__")
    else:
        sys.path.insert(0, folder)
        runpy.run_module(script, run_name="__main__", alter_sys=True)


class Script:
    """A process of a script (its file, or the name of a module), which has been started."""

    def __init__(
        self,
        script: str | Path,
        arguments: Sequence[str],
        folder: Path = ROOT,
        environment: Mapping[str, str] | None = None,
    ):
        self._files = [tempfile.NamedTemporaryFile("r") for _ in range(2)]  # noqa: SIM115
        names = [file.name for file in self._files]
        environment = dict(os.environ if environment is None else environment)
        run = str(script), list(arguments), str(folder), environment, names
        self._process = _CONTEXT.Process(target=_run, args=run)
        self._process.start()

    @property
    def status(self) -> int | None:
        """The exit status, or minus the signal that killed it; None while it runs."""
        return self._process.exitcode

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return Path(self._files[0].name).read_text()

    @property
    def errors(self) -> str:
        """What it has written to the standard error so far."""
        return Path(self._files[1].name).read_text()

    def kill(self) -> None:
        """Kill it, as `kill -9` does."""
        self._process.kill()

    def wait(self, seconds: float = 300) -> int:
        """Wait for its end, and return the exit status."""
        self._process.join(seconds)
        if self.status is None:
            self.kill()
            raise TimeoutError(f"it runs after {seconds} seconds: {self.output}{self.errors}")
        return self.status

    def finish(self, seconds: float = 300) -> str:
        """Wait for its end, without an error, and return what it has printed."""
        assert self.wait(seconds) == 0, self.errors
        return self.output
