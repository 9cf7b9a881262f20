"""Asynchronous successive halving (ASHA), with one worker.

A configuration that is among the best 1/eta of its rung is promoted to the next, from the highest
rung at which there is one; where there is none, a random one starts. Rungs are 1, eta, eta^2 ...
epochs, and the last epoch.

Source: Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar (2020), A System for
Massively Parallel Hyperparameter Tuning, algorithm 2, eta 3.
"""

from collections.abc import Iterator

from amt.tuners.record import Host, Record
from amt.tuners.schedule import Schedule

ETA = 3


class Asha(Schedule):
    """The tuner; what starts, and what may be promoted, can be another's in a subclass.

    Attributes:
        rungs: epochs of each rung.
        results: score of each configuration at each rung, in the order in which they came.
    """

    def schedule(self) -> Iterator[int]:
        powers = [ETA**k for k in range(self.num_epochs) if ETA**k < self.num_epochs]
        self.rungs = [*powers, self.num_epochs]
        self.results: list[dict[int, float]] = [{} for _ in self.rungs]
        while (job := self.job()) is not None:
            config, rung = job
            yield from self.train(config, self.rungs[rung])
            self.results[rung][config] = self.score_at(config, self.rungs[rung])

    def job(self) -> tuple[int, int] | None:
        """A configuration and the rung to train it to; None where nothing is left."""
        for rung in reversed(range(self.height - 1)):
            results = self.results[rung]
            best = sorted(results, key=lambda config, of=results: -of[config])
            for config in best[: len(best) // ETA]:
                if config not in self.results[rung + 1] and self.may_rise(config, rung):
                    return config, rung + 1
        return (self.start(), 0) if self.untried.size else None

    @property
    def height(self) -> int:
        """Number of rungs in use."""
        return len(self.rungs)

    def start(self) -> int:
        """An untried configuration."""
        return int(self.rng.choice(self.untried))

    def may_rise(self, config: int, rung: int) -> bool:
        """Whether a configuration among the best of its rung is promoted."""
        return True


RECORD = Record(
    name="asha",
    label="ASHA",
    source="Li et al. (2020), A System for Massively Parallel Hyperparameter Tuning",
    make=lambda: Host(Asha),
)
