r"""Successive halving, and Hyperband's brackets of it.

A bracket trains n random configurations until the first of its rungs, the best 1/eta of them until
the next, and so on, the last ones to their end. Successive halving repeats the bracket that starts
at the lowest rung; Hyperband goes through all, from s rungs above the first rung to none,

\[ n = \Big\lceil \frac{s_{\max} + 1}{s + 1}\, \eta^s \Big\rceil, \]

and begins again. Training goes on where it was, so that a promotion costs the epochs in between.

Sources: Jamieson, Talwalkar (2016), Non-stochastic Best Arm Identification and Hyperparameter
Optimization; Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar (2018), Hyperband, algorithm 1, eta 3.
"""

from collections.abc import Iterator, Sequence

from amt.tuners.record import Host, Record
from amt.tuners.schedule import Schedule, rungs

ETA = 3


class SuccessiveHalving(Schedule):
    """The bracket of the lowest rung, again and again."""

    def schedule(self) -> Iterator[int]:
        of_bracket = rungs(self.num_epochs, ETA)
        while self.untried.size:
            yield from self.bracket(ETA ** (len(of_bracket) - 1), of_bracket)

    def bracket(self, size: int, of_bracket: Sequence[int]) -> Iterator[int]:
        """Train random untried configurations, and keep the best 1/eta after each rung."""
        untried = self.rng.permutation(self.untried)
        configs = [int(config) for config in untried[:size]]
        for rung in of_bracket:
            for config in configs:
                yield from self.train(config, rung)
            configs.sort(key=lambda config, rung=rung: -self.score_at(config, rung))
            configs = configs[: max(len(configs) // ETA, 1)]


class Hyperband(SuccessiveHalving):
    """All brackets, the one of the lowest rung first."""

    def schedule(self) -> Iterator[int]:
        every = rungs(self.num_epochs, ETA)
        while self.untried.size:
            for first in range(len(every)):
                above = len(every) - 1 - first
                size = -(-len(every) * ETA**above // (above + 1))
                yield from self.bracket(size, every[first:])


RECORDS = (
    Record(
        name="successive_halving",
        label="successive halving",
        source="Jamieson, Talwalkar (2016), Non-stochastic Best Arm Identification",
        make=lambda: Host(SuccessiveHalving),
    ),
    Record(
        name="hyperband",
        label="Hyperband",
        source="Li et al. (2018), Hyperband",
        make=lambda: Host(Hyperband),
    ),
)
