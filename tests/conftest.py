# ruff: noqa: E402
"""Shared by all tests: float64, how programs are compiled, and the real databases at hand.

Compiling is most of the time of the tests. Programs are compiled without most of XLA's
optimisations, without its fusion emitters, which take half of the time of what is left, and each in
one piece, not in 32 for as many cores, which saves another quarter. Once they are kept, tracing is:
where in the source an operation comes from is left out.
Programs are kept in `.pytest_cache/jax` for the next run, and for the experiments that tests start
as processes of their own. In memory they are forgotten when they fill the process's map
(`forget_programs`). Files of the tests are in memory where there is room: those of databases and
states are synchronised to the disk after every write.
"""

import atexit
import gc
import os
import shutil
import sys
from pathlib import Path

# Tracing makes many objects, and few cycles: the collector takes a tenth of the time by default.
gc.set_threshold(200_000, 20, 100)
# Containers often turn bytecode off. Every process, of which there are many, compiles modules then.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

MEMORY = Path("/dev/shm")  # of Linux; often as small as 64 MiB in containers
if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))

# JAX reads these when it is imported, below.
PROGRAMS = Path(__file__).parents[1] / ".pytest_cache" / "jax"
os.environ.setdefault("AMT_CACHE_DIR", str(PROGRAMS))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.01")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ.setdefault("XLA_FLAGS", FLAGS)
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# Small factorisations gain nothing from OpenBLAS's threads, which spin when cores are taken. It
# reads this when it is loaded, below.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import jax
import pytest

from amt.compilation import use_compilation_cache

jax.config.update("jax_enable_x64", True)
use_compilation_cache()
pytest_plugins = ["tests.inference.simulated"]
# A new shape compiles anew, which takes a second: few examples, and no deadline.
hypothesis.settings.register_profile("amt", max_examples=12, deadline=None, derandomize=True)
hypothesis.settings.load_profile("amt")


# These take longest, and start first, so that no worker is left with one of them at the end.
LONGEST = (
    "test_live",
    "integrations/test_optuna_sampler",
    "search/test_tuner",
    "evaluation/test_diagnostics",
    "inference/test_nuts",
    "inference/test_draws",
    "evaluation/test_experiment",
    "evaluation/test_runs",
    "test_readme",
    "gp/test_posterior",
    "gp/test_model",
    "gp/solvers/test_observed_curves",
    "evaluation/test_sweeps",
    "evaluation/test_plugins",
    "gp/solvers/test_iterative",
    "inference/test_task_regression",
    "search/test_tuner_regression",
    "tuners/test_deep",
    "inference/test_widening",
    "inference/test_svgp",
    "tuners/test_task_regression",
    "test_linalg",
    "evaluation/test_comparison",
    "gp/test_inducing",
    "kernels/test_registry",
    "report/test_report",
    "inference/test_mle",
    "test_paper",
    "integrations/test_optuna_studies",
    "gp/task_regression/test_likelihood",
    "search/test_acquisition",
    "inference/test_variational",
    "search/test_prediction",
    "search/test_final_scores",
    "gp/solvers/test_dense",
    "gp/solvers/test_kronecker",
    "gp/task_regression/test_sharding",
    "inference/test_hierarchical",
    "tuners/test_in_order",
)
RANK = {f"tests/{name}.py": rank for rank, name in enumerate(LONGEST)}
SIMULATED = {  # these look at the same draws, which take half a minute
    "tests/evaluation/test_diagnostics.py",
    "tests/inference/test_draws.py",
    "tests/inference/test_nuts.py",
}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: RANK.get(item.nodeid.partition("::")[0], len(RANK)))


def pytest_collection_finish():
    gc.freeze()  # modules stay, and need not be looked at by the collector


def pytest_unconfigure(config):
    """End at once: to free all programs and traces one by one takes ten seconds."""
    gc.freeze()
    if hasattr(config, "workerinput"):  # of `-n`, which has reported everything
        atexit.register(os._exit, 0)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config, log):
    """With `-n`, all tests of a file run in one process: they share what is compiled."""
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "simulated" if file in SIMULATED else file

    config.option.loadscopereorder = False
    return ByFile(config, log)


MAPS = Path("/proc/self/maps")  # of Linux, which allows a process 65,530 by default
MANY = 45_000


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Forget compiled programs after a module, when the process maps many pieces of memory.

    A program takes some 30 mappings, and XLA crashes (SIGSEGV) where the kernel allows no more.
    To forget them takes seconds.
    """
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MANY:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def at2_folder() -> Path:
    """The files of HyperRec and LCBench."""
    folder = os.environ.get("AMT_DATA_DIR")
    if not folder:
        pytest.skip(
            "needs the real databases: set AMT_DATA_DIR (see scripts/download_databases.py)"
        )
    return Path(folder) / "at2"
