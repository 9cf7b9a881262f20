"""Regularized evolution: children of the best of a sample of the youngest configurations.

The first 10 configurations are random. Then the best of 3 drawn from the 10 youngest has a child:
one of its hyperparameters, drawn at random, takes the value of another configuration, and the
untried configuration that is nearest to that is trained to its end.

Source: Real, Aggarwal, Huang, Le (2019), Regularized Evolution for Image Classifier Architecture
Search, algorithm 1.
"""

from collections.abc import Iterator

from amt.space import Encoder
from amt.tuners.record import Host, Record
from amt.tuners.schedule import Schedule

POPULATION, SAMPLE = 10, 3


class RegularizedEvolution(Schedule):
    def schedule(self) -> Iterator[int]:
        features, population = self.sources.features, []
        hyperparameters = columns_of(Encoder(self.sources.space))
        while self.untried.size:
            if len(population) < POPULATION:
                config = int(self.rng.choice(self.untried))
            else:
                youngest = population[-POPULATION:]
                sample = self.rng.choice(youngest, SAMPLE, replace=False)
                parent = max(sample, key=lambda config: self.values[config])
                child = features[parent].copy()
                columns = hyperparameters[self.rng.integers(len(hyperparameters))]
                child[columns] = features[self.rng.integers(self.num_configs), columns]
                config = self.nearest_untried(child)
            yield from self.train(config)
            population.append(config)


def columns_of(encoder: Encoder) -> list[list[int]]:
    """The columns of each hyperparameter, those of activity left out."""
    columns, end = [[column] for column in range(encoder.numeric)], encoder.numeric
    for size in encoder.categories:
        columns.append(list(range(end, end + size)))
        end += size
    return columns


RECORD = Record(
    name="regularized_evolution",
    label="regularized evolution",
    source="Real et al. (2019), Regularized Evolution for Image Classifier Architecture Search",
    make=lambda: Host(RegularizedEvolution),
)
