"""Fits that processes share."""

import threading

import jax
import numpy as np
import pytest

from amt.search import fit_cache
from amt.search.fit_cache import fit_folder, fit_once
from amt.search.state import arrays_of
from tests.problems import small_curves

OPTIONS = {"kernels": {"config": "matern"}, "steps": 5}


@pytest.fixture
def fits(monkeypatch):
    """The arguments of every fit."""
    made, fit_sources = [], fit_cache.fit_sources

    def counted(*args, **options):
        made.append(options)
        return fit_sources(*args, **options)

    monkeypatch.setattr(fit_cache, "fit_sources", counted)
    return made


def test_those_that_start_together_fit_once(tmp_path, fits):
    """A lock is of an open file: threads wait for each other as processes do."""
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(fit_once(small_curves(), 0, folder=tmp_path, **OPTIONS))
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert len(fits) == 1
    first, *others = map(arrays_of, results)
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, first, other)
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    assert not list(tmp_path.glob("*.tmp"))


def test_other_curves_seeds_and_options_are_other_fits(tmp_path, fits):
    curves = small_curves()
    names = {
        fit_cache._digest(of, jax.random.key(seed), {"dtype": "float64", "steps": steps})
        for of, seed, steps in [
            *((curves, 0, 5), (curves, 0, 5), (curves, 1, 5), (curves, 0, 6)),
            *((curves.select(configs=[0, 1, 2]), 0, 5), (curves.select(epochs=[1, 2]), 0, 5)),
        ]
    }
    assert len(names) == 5


def test_without_a_folder_nothing_is_kept(tmp_path, fits, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    for folder in (None, file / "fits"):  # one that cannot be made
        fit_once(small_curves(), 0, folder=folder, **OPTIONS)
    assert len(fits) == 2
    monkeypatch.setenv("AMT_CACHE_DIR", "")
    assert fit_folder() is None
    monkeypatch.setenv("AMT_CACHE_DIR", str(tmp_path))
    assert fit_folder() == tmp_path / "fits"
