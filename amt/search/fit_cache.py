"""Fits kept on disk, so that processes that fit the same model to the same sources do it once."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import platformdirs
from jax.typing import DTypeLike
from jaxtyping import PRNGKeyArray

from amt.curves import LearningCurves
from amt.files import atomic_write
from amt.inference import INFERENCE
from amt.search.fitting import DEFAULT_MODEL, as_key, fit_sources, unfitted
from amt.search.state import arrays_of, digest, with_arrays

try:
    import fcntl
except ImportError:  # Windows, where processes that start together fit each for itself
    fcntl = None


def fit_folder() -> Path | None:
    """The folder of fits: `fits` in `$AMT_CACHE_DIR`, or in the user's cache directory of amt.

    None where that variable is empty, which turns it off.
    """
    chosen = os.environ.get("AMT_CACHE_DIR")
    if chosen == "":
        return None
    return (Path(chosen) if chosen else platformdirs.user_cache_path("amt")) / "fits"


def fit_once(
    sources: LearningCurves,
    key: PRNGKeyArray | int,
    *,
    folder: Path | None,
    model: str = DEFAULT_MODEL,
    dtype: DTypeLike = jnp.float64,
    **options: Any,
) -> Any:
    """Fit a model to source tasks as `fit_sources` does, or read the fit where it was made before.

    The file is named by a digest of the arguments, the learning curves among them, amt's source
    and the version of jaxlib. It is written atomically, under a lock that ends with the process:
    of those that start together one fits, and the others wait for it.

    Args:
        folder: of the files; with None, and where it cannot be written to, nothing is kept.
    """
    keywords = {"model": model, "dtype": dtype, **options}
    key = as_key(key)
    if folder is None or not _has_structure(options):
        return fit_sources(sources, key, **keywords)[0]
    path = folder / f"{_digest(sources, key, keywords)}.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(path.with_suffix(".lock")):
            if path.exists():
                with np.load(path, allow_pickle=False) as file:
                    arrays = [file[f"arr_{index}"] for index in range(len(file.files))]
                return with_arrays(unfitted(sources, key, **keywords), arrays)
            fit = fit_sources(sources, key, **keywords)[0]
            atomic_write(path, lambda file: np.savez(file, *arrays_of(fit)))
            return fit
    except OSError:
        return fit_sources(sources, key, **keywords)[0]


def _has_structure(options: Mapping[str, Any]) -> bool:
    """Whether `unfitted` has the structure of a fit with these options."""
    inference = options.get("inference")
    live = inference is None or (inference in INFERENCE and INFERENCE[inference].live)
    return live and "solver" not in options


def _digest(sources: LearningCurves, key: PRNGKeyArray, keywords: Mapping[str, Any]) -> str:
    settings = sorted((name, repr(value)) for name, value in keywords.items())
    settings.append(("dtype", str(jnp.dtype(keywords["dtype"]))))
    data = sources.scores, sources.epochs, sources.tasks, sources.configs, str(sources.space)
    outcome = str(sources.outcome), jax.tree.leaves(sources.outcome)
    random = np.asarray(jax.random.key_data(key))
    versions = _source(), version("jaxlib"), jax.default_backend()
    return digest(*data, outcome, random, settings, versions)


@cache
def _source() -> str:
    """A digest of amt's source."""
    root = Path(__file__).parents[1]
    return digest(*(path.read_bytes() for path in sorted(root.rglob("*.py"))))


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file's lock, which the system gives back however the process ends."""
    with open(path, "ab") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
