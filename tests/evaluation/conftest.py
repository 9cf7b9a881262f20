"""Shared by tests of experiments: their settings, as scripts are given them."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.processes import ROOT


@pytest.fixture
def experiment_settings() -> Callable[..., dict[str, Any]]:
    """The settings of a file in `experiments/conf`, with what is given on the command line."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    def settings(name: str, *overrides: str) -> dict[str, Any]:
        folder = str(ROOT / "experiments/conf")
        with initialize_config_dir(folder, version_base=None):
            return OmegaConf.to_container(compose(name, list(overrides)), resolve=True)  # type: ignore

    return settings


@pytest.fixture
def no_figures(monkeypatch):
    """Figures are made but not drawn, which takes seconds; `test_output.py` draws one."""
    monkeypatch.setattr("amt.evaluation.output.save_figure", lambda figure, path: None)
