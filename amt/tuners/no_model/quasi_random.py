"""Quasi-random search: the untried configuration nearest to each point of a Sobol sequence.

Points are of the scrambled sequence in the cube of encoded configurations (`amt.space.Encoder`),
and each configuration is trained to its end.

Source: Bousquet, Gelly, Kurach, Teytaud, Vincent (2017), Critical Hyper-Parameters: No Random, No
Cry; Owen (1998) for the scrambling.
"""

from collections.abc import Iterator

from scipy.stats import qmc

from amt.tuners.record import Host, Record
from amt.tuners.schedule import Schedule


class QuasiRandom(Schedule):
    def schedule(self) -> Iterator[int]:
        sobol = qmc.Sobol(self.sources.features.shape[1], rng=self.rng)
        while self.untried.size:
            yield from self.train(self.nearest_untried(sobol.random(1)[0]))


RECORD = Record(
    name="quasi_random",
    label="quasi-random search",
    source="Bousquet et al. (2017), Critical Hyper-Parameters: No Random, No Cry",
    make=lambda: Host(QuasiRandom),
)
