"""A user's addition in a file of its own runs beside the rest, and no other file is touched."""

import sys

import pandas as pd
import pytest

import amt.tuners
from amt.evaluation.figures import recommendation_figure
from amt.evaluation.plugins import load_plugins
from amt.evaluation.provenance import code_fingerprint
from amt.evaluation.runs import run
from amt.evaluation.tables import console_tables, markdown_table
from tests.problems import SMALL_RUN, small_curves
from tests.processes import ROOT, Script

PURE = '''
"""Always the configuration whose features have the largest sum."""
import jax.numpy as jnp
from amt.tuners import Decision, Pure, Record, register


def init(key, problem):
    return jnp.argsort(-problem.features.sum(1))


def step(order, feedback):
    left = feedback.remaining.any(1)[order]
    return order, Decision(order[jnp.argmax(left)], order[0])


register(
    Record(name="largest", label="largest first", source="none", make=lambda: Pure(init, step))
)
'''

HOST = '''
"""A tuner that knows the search space, as those of other libraries do."""
import random
from functools import partial
from amt.tuners import Host, Record, register


class Theirs:
    def __init__(self, seed, problem, *, repeats):
        self.random = random.Random(seed)
        self.number = {str(c): i for i, c in enumerate(problem.sources.configs)}
        assert set(problem.sources.space) >= set(problem.sources.configs[0])
        self.told, self.repeats = {}, repeats

    def ask(self, remaining):
        left = [number for number in self.number.values() if remaining[number].any()]
        return self.random.choice(left * self.repeats)

    def tell(self, config, epoch, score):
        self.told[config] = max(score, self.told.get(config, score))

    def recommend(self):
        return max(self.told, key=self.told.get)


def make(theirs=None):
    return Host(partial(Theirs, **(theirs or {"repeats": 1})))


register(
    Record(
        name="theirs",
        label="of another library",
        source="none",
        make=make,
        settings=("theirs",),
        orders=2,
    )
)
register(
    Record(name="absent", label="not at hand", source="none", make=make, packages=("not_there",))
)
'''

KERNEL = '''
"""A kernel of epochs."""
import jax.numpy as jnp
import numpyro.distributions as dist
import amt
from amt.kernels import FidelityKernel
from jaxtyping import Array, Float
from numpyro.distributions import constraints


class PowerLaw(FidelityKernel):
    numerical_rank = 12
    exponent: Float[Array, ""] = amt.parameter(constraints.positive, prior=dist.Normal(0.0, 1.0))

    @classmethod
    def init(cls, key, dtype):
        return cls(exponent=jnp.ones((), dtype))

    def evaluate(self, X1, X2):
        return 1 + (X1 * X2) ** self.exponent


amt.KERNELS["fidelity"]["power_law"] = PowerLaw
'''

RULE = '''
"""A rule that trains what has the best mean."""
import jax.numpy as jnp
import amt


def greedy(posterior, remaining, incumbent):
    return jnp.max(jnp.where(remaining, posterior.mean, -jnp.inf), axis=1)


amt.ACQUISITIONS["greedy"] = greedy
'''

DATABASE = '''
"""A database whose metric is an error in percent, and its transform."""
import numpy as np
from amt.curves import LearningCurves
from amt.databases import Database, register
from amt.outcome import Outcome
from ConfigSpace import ConfigurationSpace, Float


class Percent(Outcome):
    sign: float = -1.0

    def forward(self, metric):
        return 1 - metric / 100

    def inverse(self, score):
        return 100 * (1 - score)

    def __str__(self):
        return "score = 1 - y / 100"


def percents():
    rng, outcome = np.random.default_rng(0), Percent()
    x = rng.uniform(size=6)
    best = rng.uniform(size=(4, 1, 1))
    error = 100 * (0.2 + (x[:, None] - best) ** 2 + np.exp(-np.arange(1.0, 6.0)) / 2)
    return LearningCurves(
        configs=[{"x": float(value)} for value in x],
        space=ConfigurationSpace({"x": Float("x", (0, 1))}),
        tasks=list("abcd"),
        scores=outcome.forward(error),
        outcome=outcome,
    )


register(Database("percents", percents, title="Errors in percent"))
'''


@pytest.fixture
def files(tmp_path):
    texts = {"pure": PURE, "host": HOST, "kernel": KERNEL, "rule": RULE, "database": DATABASE}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def forget():
    """Forget the plugins, as a new process would."""
    for name in [name for name in sys.modules if name.startswith("amt_plugin_")]:
        del sys.modules[name]
    for name in [n for n, r in amt.tuners.TUNERS.items() if r.make.__module__[:4] == "amt_"]:
        del amt.tuners._registered[name]
    code_fingerprint.cache_clear()


@pytest.fixture
def forgotten():
    yield
    forget()


def test_tuners_kernel_database_outcome_and_rule_of_a_user(files, forgotten):
    names = ["pure", "host", "kernel", "rule", "database"]
    overrides = [
        f"plugins=[{','.join(f'{name}.py' for name in names)}]",
        "tuners=[amt,largest,best_list,theirs,absent]",
        "database=percents",
        "split=leave_one_out",
        "kernel.fidelity=power_law",
        "kernel.config=matern",
        "acquisition=ei",
        "acquisition.name=greedy",
        "inference.steps=3",
        "budget=7",
        "workers=1",
        "+theirs.repeats=3",
        "output=out",
    ]
    output = Script(ROOT / "experiments/at2.py", overrides, files).finish()
    rows = ["amt", "best list of sources", "largest first", "of another library"]
    printed = [line.strip() for line in output.splitlines()]
    for label in rows:
        assert sum(line.startswith(f"{label}  ") for line in printed) == 2
    assert sum(line.startswith("not at hand (not run: needs not_there)") for line in printed) == 2

    results = pd.read_parquet(files / "out" / "results.parquet")
    sizes = results.groupby("method").size().to_dict()
    assert sizes == {"amt": 28, "best_list": 28, "largest": 28, "theirs": 56}
    assert set(results["database"]) == {"percents"}
    load_plugins([str(files / "pure.py"), str(files / "host.py")])
    figure = recommendation_figure(results)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == rows
    assert [len(axis.lines) for axis in figure.axes] == [4, 4]
    for table in console_tables(results):
        assert list(table.columns[0].cells) == rows
    assert [line.split(" | ")[0] for line in markdown_table(results).splitlines()[2:]] == [
        f"| {label}" for label in rows
    ]


def test_a_change_in_one_file_computes_that_tuner_anew(files, forgotten, monkeypatch, tmp_path):
    monkeypatch.setattr("amt.databases.load", lambda name: small_curves())
    plugin, out = files / "pure.py", tmp_path / "out"
    values = SMALL_RUN | {"tuners": ["best_list", "largest"], "plugins": [str(plugin)]}
    first = run(values, out)
    assert (first.computed, first.reused) == (4, 0)
    forget()
    again = run(values, out)
    assert (again.computed, again.reused, again.anew) == (0, 4, [])
    forget()
    plugin.write_text(PURE.replace("-problem", "problem"))
    changed = run(values, out)
    assert (changed.computed, changed.reused, changed.anew) == (2, 2, ["largest"])
    methods = [frame.frame.groupby("method")["config"].apply(list) for frame in (first, changed)]
    assert methods[0]["best_list"] == methods[1]["best_list"]
    assert methods[0]["largest"] != methods[1]["largest"]


def test_a_plugin_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no plugin .*nothing\.py"):
        load_plugins([str(tmp_path / "nothing.py")])
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        load_plugins(["not_there"])
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            load_plugins([str(broken)])
