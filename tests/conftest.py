"""Shared by all tests: float64, and the real databases where they are at hand."""

import os

# Small factorisations gain nothing from OpenBLAS's threads, which spin when cores are taken. It
# reads this when it is loaded, below.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from pathlib import Path

import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)
pytest_plugins = ["tests.inference.simulated"]
# A new shape compiles anew, which takes a second: few examples, and no deadline.
hypothesis.settings.register_profile("amt", max_examples=12, deadline=None, derandomize=True)
hypothesis.settings.load_profile("amt")


@pytest.fixture(scope="session")
def at2_folder() -> Path:
    """The files of HyperRec and LCBench."""
    folder = os.environ.get("AMT_DATA_DIR")
    if not folder:
        pytest.skip(
            "needs the real databases: set AMT_DATA_DIR (see scripts/download_databases.py)"
        )
    return Path(folder) / "at2"
