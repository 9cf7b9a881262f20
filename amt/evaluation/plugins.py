"""Modules of a user that register tuners, kernels, databases or decision rules."""

import sys
from collections.abc import Iterable
from hashlib import sha256
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path


def load_plugins(plugins: Iterable[str]) -> None:
    """Import modules by name, or by the path of their `.py` file, unless they are imported already.

    Raises:
        FileNotFoundError, ImportError: there is no such file or module.
    """
    for plugin in plugins:
        if plugin.endswith(".py"):
            _load_file(Path(plugin).resolve())
        else:
            import_module(plugin)


def _load_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no plugin {path}")
    # A name of its own, which cannot hide another module, and is the same in all processes.
    name = f"amt_plugin_{path.stem}_{sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
