"""Provenance of results: everything that numbers depend on beside the settings of a run.

A tuner's code is the module of its record, the modules of the objects that its settings name
(`amt.tuners.record.Record.uses`), those that run it, and all that they import. Only imports within
`amt` and the package of a module are followed, by the names in their source code: a package's own
`__init__` counts where something is imported from it, not where it only leads to a module.
Databases do not count, as data have a fingerprint of their own.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np

from amt.evaluation.splits import Cell
from amt.tuners.record import Record

PACKAGES = ("jax", "jaxlib", "optax", "numpyro", "tinygp", "numpy")
_RUN_BY = ("amt.evaluation.experiment", "amt.evaluation.rows")
_APART = ("amt.databases",)


def provenance(record: Record, values: Mapping[str, Any], data: str) -> dict[str, Any]:
    """The provenance of a tuner's results on cells with a fingerprint of their data."""
    chosen = record.chosen(values)
    used = [obj.__module__ for obj in (record.make, *record.uses(**chosen))]
    return {
        "settings": chosen,
        "data": data,
        "code": code_fingerprint(frozenset(used)),
        "versions": {name: version(name) for name in PACKAGES} | _versions(record.packages),
        "platform": jax.default_backend(),
        "devices": jax.device_count(),
    }


def fingerprint(*content: bytes | np.ndarray | str) -> str:
    """SHA-256 of bytes, texts and arrays."""
    digest = hashlib.sha256()
    for item in content:
        if isinstance(item, np.ndarray):
            digest.update(f"{item.dtype}{item.shape}".encode())
            item = np.ascontiguousarray(item).tobytes()
        digest.update(item.encode() if isinstance(item, str) else item)
    return digest.hexdigest()


def data_fingerprint(cells: Sequence[Cell]) -> str:
    """SHA-256 of the cells' curves, epochs, features and costs."""
    splits = {(cell.split.index, cell.split.repeat): cell.split for cell in cells}.values()
    arrays: list[np.ndarray | str] = []
    for split in splits:
        for curves in (split.sources, split.target):
            arrays += [curves.scores, curves.epochs, curves.features]
            arrays += ["no costs"] if curves.cost is None else [curves.cost]
    return fingerprint(*arrays)


@cache
def code_fingerprint(modules: frozenset[str]) -> str:
    """SHA-256 of the source code of modules, of those that run them, and of what they import."""
    files = imported_files([*sorted(modules), *_RUN_BY])
    return fingerprint(
        *(part for name in sorted(files) for part in (name, files[name].read_bytes()))
    )


def imported_files(modules: Iterable[str]) -> dict[str, Path]:
    """The files of modules and of all that they import within `amt` and their own packages."""
    files: dict[str, Path] = {}
    pending = list(modules)
    while pending:
        module = pending.pop()
        file = None if module in files or module.startswith(_APART) else _file(module)
        if file is not None:
            files[module] = file
            pending += _imports(module, file)
    return files


def _imports(module: str, file: Path) -> list[str]:
    """The modules that one names in its import statements, wherever these stand."""
    parents = module.split(".")[: None if file.name == "__init__.py" else -1]
    within = {"amt", module.split(".")[0]}
    names = []
    for level, base, imported in _statements(file.read_bytes()):
        if level is None:
            names += [name for name in imported if name.split(".")[0] in within]
            continue
        above = parents[: len(parents) - level + 1] if level else []
        base = ".".join([*above, *filter(None, [base])])
        if base.split(".")[0] in within:
            imported = [f"{base}.{name}" for name in imported]
            submodules = [name for name in imported if _file(name) is not None]
            names += submodules if len(submodules) == len(imported) else [base, *submodules]
    return names


@cache  # tuners share most of their modules
def _statements(code: bytes) -> list[tuple[int | None, str | None, list[str]]]:
    """Every import: its level, None without a "from"; what it is from; and the names."""
    statements: list[tuple[int | None, str | None, list[str]]] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            statements.append((None, None, [alias.name for alias in node.names]))
        elif isinstance(node, ast.ImportFrom):
            statements.append((node.level, node.module, [alias.name for alias in node.names]))
    return statements


@cache
def _file(module: str) -> Path | None:
    """The Python file of a module; None for what is no module, such as a name in one."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if module not in sys.modules:
        try:
            spec = find_spec(module)
        except ModuleNotFoundError:  # its parent is no package
            return None
        file = None if spec is None else spec.origin
    return Path(file) if file is not None and file.endswith(".py") else None


def _versions(modules: Sequence[str]) -> dict[str, str]:
    """The versions of what distributes some modules."""
    distributions = packages_distributions() if modules else {}
    return {name: version(name) for module in modules for name in distributions.get(module, ())}
