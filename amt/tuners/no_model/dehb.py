"""DEHB: Hyperband whose configurations evolve by differential evolution.

The first bracket is one of successive halving on random configurations; each of its rungs leaves a
population. In the brackets after it, the next member of a rung's population is the target of
rand/1/bin: a mutant of three parents (F = 0.5), crossed with the target (rate 0.5), which takes its
place if it is at least as good after as many epochs. Parents are the best of the rung below, for
the first rung of a bracket the rung's own population. Vectors are encoded configurations
(`amt.space.Encoder`); the nearest configuration that has fewer epochs than the rung is trained.

Source: Awad, Mallik, Hutter (2021), DEHB: Evolutionary Hyperband for Scalable, Robust and Efficient
Hyperparameter Optimization, section 3.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from amt.tuners.record import Host, Record
from amt.tuners.schedule import Schedule, rungs

ETA, FACTOR, RATE = 3, 0.5, 0.5


class Dehb(Schedule):
    def schedule(self) -> Iterator[int]:
        every = rungs(self.num_epochs, ETA)
        self.populations: list[list[int]] = [[] for _ in every]
        at: list[int] = [0] * len(every)
        brackets = 0
        while self.remaining.any():
            first = brackets % len(every)
            above = len(every) - 1 - first
            size = -(-len(every) * ETA**above // (above + 1))
            brackets += 1
            for rung in range(first, len(every)):
                population = self.populations[rung]
                for place in range(max(size // ETA ** (rung - first), 1)):
                    if brackets == 1:
                        config = self.new(place, rung)
                    else:
                        target = population[at[rung] % len(population)]
                        config = self.nearest(self.evolve(target, rung, rung == first), every[rung])
                    if config is None:
                        break
                    yield from self.train(config, every[rung])
                    if brackets == 1:
                        population.append(config)
                        continue
                    member = at[rung] % len(population)
                    at[rung] += 1
                    scores = [self.score_at(c, every[rung]) for c in (config, population[member])]
                    if scores[0] >= scores[1]:
                        population[member] = config

    def new(self, place: int, rung: int) -> int | None:
        """In the first bracket: a random configuration, or the next best of the rung below."""
        if rung == 0:
            return int(self.rng.choice(self.untried)) if self.untried.size else None
        best = self.best_of(rung - 1)
        return best[place] if place < len(best) else None

    def best_of(self, rung: int) -> list[int]:
        """The population of a rung, the best first."""
        epochs = rungs(self.num_epochs, ETA)[rung]
        return sorted(self.populations[rung], key=lambda c: -self.score_at(c, epochs))

    def evolve(self, target: int, rung: int, is_first: bool) -> Float[np.ndarray, "feature"]:
        """The child of a target."""
        own = self.populations[rung]
        pool = own if is_first else self.best_of(rung - 1)[: max(len(own), 3)]
        if len(pool) < 3:
            pool = [*pool, *self.rng.permutation(self.num_configs)[:3]]
        features = self.sources.features
        base, plus, minus = features[self.rng.choice(pool, 3, replace=False)]
        mutant = base + FACTOR * (plus - minus)
        outside = (mutant < 0) | (mutant > 1)
        mutant[outside] = self.rng.uniform(size=outside.sum())
        crossed = self.rng.uniform(size=len(mutant)) < RATE
        crossed[self.rng.integers(len(mutant))] = True
        return np.where(crossed, mutant, features[target])

    def nearest(self, features: Float[np.ndarray, "feature"], epochs: int) -> int | None:
        """The nearest configuration that can be trained, and has fewer epochs."""
        free = np.flatnonzero((self.trained < epochs) & self.remaining.any(1))
        if not free.size:
            return None
        distances = np.square(self.sources.features[free] - features).sum(1)
        return int(free[np.argmin(distances)])


RECORD = Record(
    name="dehb",
    label="DEHB",
    source="Awad, Mallik, Hutter (2021), DEHB; own short version",
    make=lambda: Host(Dehb),
)
