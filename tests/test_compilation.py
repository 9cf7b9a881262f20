"""Programs that take less time to compile, and their cache, which the next process reads."""

import json
import os
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from amt.compilation import MIN_COMPILE_SECONDS, quick_vmap, use_compilation_cache
from tests.processes import Script

FOLDER, SECONDS = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
PROGRAM = """
import json, os
import jax, jax.numpy as jnp
import amt
from amt.compilation import use_compilation_cache

users = os.environ.get("JAX_COMPILATION_CACHE_DIR")
assert jax.config.jax_compilation_cache_dir == users, "importing amt sets nothing"
jax.config.update("jax_compilation_cache_dir", None)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
hits = []
jax.monitoring.register_event_listener(
    lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None
)
use_compilation_cache()
value = jax.jit(lambda x: jnp.linalg.eigh(x @ x.T)[0])(jnp.arange(9.0).reshape(3, 3)).sum()
print(json.dumps([len(hits), float(value)]))
"""


def start(folder: Path, cache: Path | str) -> Script:
    """A process that compiles a program, with the cache that `$AMT_CACHE_DIR` says."""
    (folder / "program.py").write_text(PROGRAM)
    caches = {"AMT_CACHE_DIR": str(cache), "XDG_CACHE_HOME": str(folder / "home")}
    environment = os.environ | caches | {SECONDS.upper(): "0"}
    return Script(folder / "program.py", [], environment=environment)


def finish(process: Script) -> list:
    return json.loads(process.finish(100))


def test_the_next_process_reads_what_one_has_compiled_unless_the_cache_is_off(tmp_path):
    cache = tmp_path / "cache"
    off, cold = start(tmp_path, ""), start(tmp_path, cache)
    (none, expected), (hits, value) = finish(off), finish(cold)
    assert none == hits == 0
    assert not (tmp_path / "home").exists()
    programs = {path.name for path in cache.glob("jit_*-cache")}
    assert len(programs) > 1
    warm_hits, again = finish(start(tmp_path, cache))
    assert warm_hits == len(programs)
    assert {path.name for path in cache.glob("jit_*-cache")} == programs
    assert value == again == expected


@pytest.fixture
def nothing_set(monkeypatch, tmp_path):
    """JAX and the environment as they are where nobody has set a cache."""
    before = {name: getattr(jax.config, name) for name in (FOLDER, SECONDS)}
    for name in ("AMT_CACHE_DIR", SECONDS.upper()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update(FOLDER, None)
    jax.config.update(SECONDS, 1.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the folder is Linux's")
def test_it_is_in_the_users_cache_directory(nothing_set, tmp_path):
    assert use_compilation_cache() == tmp_path / "amt/jax"
    assert getattr(jax.config, FOLDER) == str(tmp_path / "amt/jax")
    assert getattr(jax.config, SECONDS) == MIN_COMPILE_SECONDS
    assert use_compilation_cache() == tmp_path / "amt/jax"


def test_it_is_where_the_environment_says(nothing_set, monkeypatch, tmp_path):
    monkeypatch.setenv("AMT_CACHE_DIR", str(tmp_path / "here"))
    monkeypatch.setenv(SECONDS.upper(), "1")
    assert use_compilation_cache() == tmp_path / "here"
    assert getattr(jax.config, FOLDER) == str(tmp_path / "here")
    assert getattr(jax.config, SECONDS) == 1.0


def test_an_empty_value_turns_it_off(nothing_set, monkeypatch):
    monkeypatch.setenv("AMT_CACHE_DIR", "")
    assert use_compilation_cache() is None
    assert getattr(jax.config, FOLDER) is None
    assert getattr(jax.config, SECONDS) == 1.0


@pytest.mark.parametrize("users", ["users", ""])
def test_what_the_user_has_set_in_jax_stays(nothing_set, monkeypatch, users):
    monkeypatch.setenv("AMT_CACHE_DIR", "other")
    jax.config.update(FOLDER, users)
    assert use_compilation_cache() == (Path(users) if users else None)
    assert getattr(jax.config, FOLDER) == users
    assert getattr(jax.config, SECONDS) == 1.0


@pytest.mark.parametrize("size", [1, 2])
def test_a_batch_of_one_is_its_entry_along_an_axis(size):
    seen = []

    def function(x, key):
        seen.append(type(x).__name__)
        return {"y": 2 * x.sum(), "z": jax.random.normal(key, (3,))}

    args = np.arange(2.0 * size).reshape(size, 2), jax.random.split(jax.random.key(0), size)
    found, expected = quick_vmap(function)(*args), jax.vmap(function)(*args)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert (seen[0] == seen[1]) == (size > 1)
