"""Tuners on the host that are written as a schedule: a generator of configurations to train.

```python
class InRandomOrder(Schedule):
    def schedule(self):
        for config in self.rng.permutation(self.num_configs):
            yield from self.train(config)

RECORD = Record(name="mine", label="mine", source="...", make=lambda: Host(InRandomOrder))
```

What is yielded is trained for its next epoch, and when the generator goes on, the score is there.
"""

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from amt.tuners.record import HostProblem


class Schedule:
    """A tuner (`amt.tuners.record.HostTuner`) that recommends the best observed.

    Once the schedule has ended, what is left is trained, the best observed first.

    Attributes:
        sources: learning curves of past tasks, in which configurations, features and epochs are.
        rng: for all that is random.
        curves: the target's scores observed so far, else NaN.
        remaining: epochs that can still be trained.
    """

    def __init__(self, seed: int, problem: HostProblem):
        self.sources = problem.sources
        self.rng = np.random.default_rng(seed)
        self.num_configs, self.num_epochs = shape = problem.sources.scores.shape[1:]
        self.curves: Float[np.ndarray, "config epoch"] = np.full(shape, np.nan)
        self.remaining: Bool[np.ndarray, "config epoch"] = np.ones(shape, bool)
        self._queries = self.schedule()
        self._latest = 0

    @abstractmethod
    def schedule(self) -> Iterator[int]:
        """The configurations to train for their next epoch; those without one are passed over."""

    def train(self, config: int, until: int | None = None) -> Iterator[int]:
        """Train a configuration until it has so many epochs, or to its end."""
        last = self.num_epochs if until is None else until
        while self.trained[config] < last and self.remaining[config].any():
            yield config

    def ask(self, remaining: Bool[np.ndarray, "config epoch"]) -> int:
        self.remaining = remaining
        for config in self._queries:
            if remaining[config].any():
                break
        else:
            config = np.argmax(np.where(remaining.any(1), np.nan_to_num(self.values), -np.inf))
        self._latest = int(config)
        return self._latest

    def tell(self, config: int, epoch: int, score: float) -> None:
        self.curves[config, epoch] = score

    def recommend(self) -> int:
        return int(np.argmax(self.values)) if self.trained.any() else self._latest

    @property
    def trained(self) -> Int[np.ndarray, "config"]:
        """Number of epochs of each configuration."""
        return np.isfinite(self.curves).sum(1)

    @property
    def values(self) -> Float[np.ndarray, "config"]:
        """Best score of each configuration so far; -inf without one."""
        return np.max(self.curves, axis=1, initial=-np.inf, where=np.isfinite(self.curves))

    @property
    def untried(self) -> Int[np.ndarray, "untried"]:
        """Configurations that can be trained, and have not been."""
        return np.flatnonzero((self.trained == 0) & self.remaining.any(1))

    def score_at(self, config: int, epochs: int) -> float:
        """The score after so many epochs; -inf for a curve that ended before."""
        score = self.curves[config, epochs - 1]
        return float(score) if np.isfinite(score) else -np.inf

    def nearest_untried(self, features: Float[np.ndarray, "feature"]) -> int:
        """The untried configuration whose features are nearest to some."""
        untried = self.untried
        distances = np.square(self.sources.features[untried] - features).sum(1)
        return int(untried[np.argmin(distances)])


def rungs(num_epochs: int, eta: int) -> list[int]:
    r"""Epochs after which curves are compared: \(E \eta^{-s}\) rounded, from the fewest to E."""
    steps = range(int(np.floor(np.log(num_epochs) / np.log(eta) + 1e-9)), -1, -1)
    return sorted({max(round(num_epochs / eta**step), 1) for step in steps})
