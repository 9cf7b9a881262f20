"""The record of a tuner: who it is, what it needs, and how it is run.

A tuner is *pure*, two functions that `amt.search.replay.replay` scans over,

```python
class State(NamedTuple): ...

def init(key: PRNGKeyArray, problem: Problem) -> State: ...
def step(state: State, feedback: Feedback) -> tuple[State, Decision]: ...

register(Record(name="mine", label="mine", source="...", make=lambda: Pure(init, step)))
```

or runs on the *host*, an object that is asked, told, and asked for its recommendation
(`HostTuner`), in a process of its own:

```python
register(Record(name="theirs", label="theirs", source="...", make=lambda: Host(Theirs)))
```

Both are given the sources and never see more of the target than the score of what they asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpy import ndarray

from amt.curves import LearningCurves
from amt.search.replay import Decision, Feedback


class HostProblem(NamedTuple):
    """A tuning problem as a tuner on the host is given it.

    Attributes:
        name: to tell problems apart in messages.
        sources: learning curves of past tasks, with configurations, search space, features,
            epochs, and costs where they are known.
        budget: epochs that may be spent on the target.
    """

    name: str
    sources: LearningCurves
    budget: int


class Problem(eqx.Module):
    """A tuning problem as a pure tuner is given it: arrays alone.

    Attributes:
        scores: of the sources; NaN where missing.
        features: encoded configurations (`amt.space.Encoder`).
        epochs: the epochs recorded.
        cost: of each source's configuration up to each epoch, where it is known.
        budget: epochs that may be spent on the target.
    """

    scores: Float[Array, "task config epoch"]
    features: Float[Array, "config feature"]
    epochs: Float[Array, "epoch"]
    cost: Float[Array, "task config epoch"] | None
    budget: int = eqx.field(static=True)

    @classmethod
    def of(cls, problem: HostProblem, dtype: DTypeLike = jnp.float64) -> "Problem":
        """The arrays of a problem."""
        curves = problem.sources
        return cls(
            scores=jnp.asarray(curves.scores, dtype),
            features=jnp.asarray(curves.features, dtype),
            epochs=jnp.asarray(curves.epochs, dtype),
            cost=None if curves.cost is None else jnp.asarray(curves.cost, dtype),
            budget=problem.budget,
        )


class RunStage(Protocol):
    """Runs a function of one problem on a stack of them, compiled once for each shape.

    It is called with a name to report and to count seconds under, the function, its arguments,
    stacked along a leading axis, and keyword arguments that are hashable and the same for all.
    """

    def __call__(
        self, name: str, function: Callable[..., Any], *args: Any, **static: Any
    ) -> Any: ...


class Prepared(NamedTuple):
    """The outcome of what a pure tuner learns from the sources before its first query.

    Attributes:
        problems: takes the place of `Problem` in `init`, stacked along a leading axis.
        diagnostics: numbers that say how it went, for each problem.
    """

    problems: Any
    diagnostics: Sequence[Mapping[str, float]]


class Prepare(Protocol):
    """Learns from the sources of many problems of one shape, one key for each."""

    def __call__(
        self,
        problems: Sequence[HostProblem],
        keys: Sequence[PRNGKeyArray],
        dtype: Any,
        stage: RunStage,
    ) -> Prepared: ...


class Pure(NamedTuple):
    """A tuner of pure functions, for `jax.lax.scan` and `jax.vmap`.

    It is hashable, and equal settings should make equal functions (module level ones, or a cached
    factory's), so that they share a compilation.

    Attributes:
        init: the state before the first query, from a key and a `Problem`, or else what `prepare`
            made of it.
        step: one query (`amt.search.replay.replay`).
        prepare: runs before the loop, on the host, with stages that are compiled.
    """

    init: Callable[[PRNGKeyArray, Any], Any]
    step: Callable[[Any, Feedback], tuple[Any, Decision]]
    prepare: Prepare | None = None


class HostTuner(Protocol):
    """A tuner of any library, on one problem."""

    def ask(self, remaining: Bool[ndarray, "config epoch"]) -> int:
        """The number of the configuration to train for its next epoch.

        Args:
            remaining: epochs that can still be trained; of the configuration there must be one.
        """
        ...

    def tell(self, config: int, epoch: int, score: float) -> None:
        """Take note of the score of a configuration after an epoch, by its position from 0."""
        ...

    def recommend(self) -> int:
        """The number of the configuration that is best as far as is known."""
        ...


class Host(NamedTuple):
    """A tuner that runs on the host, each problem in one of several processes.

    Attributes:
        start: from a seed and a problem; a class or function of a module, or a
            `functools.partial` of one, which other processes can import.
    """

    start: Callable[[int, HostProblem], HostTuner]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One tuner of those that are compared.

    Attributes:
        name: in results and on the command line.
        label: in tables and figures.
        source: where it is from, as a citation.
        make: the tuner, from the settings that are named in `settings`, as keyword arguments.
        settings: names of the settings of an experiment that the tuner depends on, beside those
            that all depend on (the splits, `precision`, `budget`); left out where not given.
        uses: objects that these settings name, such as the classes of kernels; the modules that
            define them count as the tuner's own.
        orders: random orders that results are averaged over.
        packages: modules that must be importable, which `make` imports, not its module.
        extra: of amt, that installs them.
        unavailable: the reason why the tuner runs nowhere, if it does not: its row in tables.
    """

    name: str
    label: str
    source: str
    make: Callable[..., Pure | Host]
    settings: tuple[str, ...] = ()
    uses: Callable[..., Sequence[Any]] = lambda **_: ()
    orders: int = 1
    packages: tuple[str, ...] = ()
    extra: str | None = None
    unavailable: str | None = None

    def chosen(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Select the settings of an experiment that the tuner depends on."""
        return {name: values[name] for name in self.settings if name in values}

    def missing(self) -> str | None:
        """The reason why the tuner cannot run here, if there is one."""
        if self.unavailable:
            return self.unavailable
        absent = [name for name in self.packages if find_spec(name) is None]
        if not absent:
            return None
        hint = f": pip install 'amt[{self.extra}]'" if self.extra else ""
        return f"needs {', '.join(absent)}{hint}"
