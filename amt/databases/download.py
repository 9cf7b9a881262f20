"""Downloads HyperRec and LCBench as the authors of AT2 published them.

The five files come from one commit of their repository and are kept only if their SHA-256 is the
expected one.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from rich.progress import track

BASE_URL = (
    "https://raw.githubusercontent.com/xiaoyuxin1002/amortized-auto-tuning/"
    "b3b962ad837b7b64af37fe7049e839f4f1d4131b/data"
)
CHECKSUMS = {
    "HyperRec/configs.pkl": "343ce512e7a4bca6556531e2567ea7651f8433fd9da7ab202409bd23ac1c8ae8",
    "HyperRec/profiles.pkl": "d3498b0e17e14722aa5eb25187e7c85fc3c29ba187c6fe6fb8608361f42dfef6",
    "LCBench/configs.pkl": "365edd1e144b5d752cad8330b5fba6a849b37346ee0d436770e99e0f49ce55ee",
    "LCBench/profiles.pkl": "ccde6817331b2028d038b11032abaf4e791d30c38151454e440342f1d5bbc24a",
    "train_test_pairs.json": "35dc40422a4bb2ae7a34cb9a0a6bc9dfca9bd80a2bf4bd584d6d5bba6b45c8f1",
}


def data_folder() -> Path:
    """Where downloaded databases are: `$AMT_DATA_DIR` if that is set, else the user's cache."""
    folder = os.environ.get("AMT_DATA_DIR")
    return Path(folder) if folder else Path(_pooch().os_cache("amt"))


def download(
    folder: Path | str | None = None,
    *,
    base_url: str = BASE_URL,
    checksums: Mapping[str, str] = CHECKSUMS,
) -> Path:
    """Fetches the files that are not there yet into `<folder>/at2`, and returns that folder.

    A file appears under its name only once it is complete and its checksum is right.

    Args:
        folder: by default `data_folder()`.
        base_url: where to fetch from.
        checksums: SHA-256 of each file, by its path below `base_url`.

    Raises:
        ImportError: pooch is not installed.
        ValueError: a downloaded file has the wrong checksum.
        requests.RequestException: a file could not be fetched.
    """
    at2 = Path(data_folder() if folder is None else folder) / "at2"
    registry = _pooch().create(
        path=at2, base_url=f"{base_url.rstrip('/')}/", registry=dict(checksums)
    )
    for name in track(checksums, description="Databases of AT2"):
        try:
            registry.fetch(name)
        except ValueError as error:
            raise ValueError(
                f"{registry.get_url(name)} is not the expected file: {error}"
            ) from error
    return at2


def _pooch() -> ModuleType:
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            "downloads, and the cache that they go to, need pooch: `pip install amt[experiments]`, "
            "or set AMT_DATA_DIR to a folder that holds at2/"
        ) from error
    return pooch
