"""Configurations that a search proposes beyond those it knows.

At trials 0, 1, 4, 9, 16, ... some are drawn at random, and then as many neighbours of those with
the best acquisition values, in ConfigSpace's one-exchange neighbourhood, which respects conditions
and forbidden clauses. There is no end of configurations that might be better; as many as the square
root of the trials are tried.

Source: Hutter, Hoos, Leyton-Brown (2011), section 4.3, for the local search; Wang, Audibert, Munos
(2008), Algorithms for Infinitely Many-Armed Bandits, for the rate.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ConfigSpace import ConfigurationSpace
from jaxtyping import Float

from amt.search.candidates import Candidates, configuration_in, draw, neighbours
from amt.space import Encoder

ASKS_A_DRAW = 16  # the random candidates are drawn anew after so many trials
CENTERS = 4  # how many of the best configurations have their neighbours considered
RANDOM, NEIGHBOURS = 0, 1  # streams of random numbers


class Proposals:
    """Candidates of a search space, which follow from a seed and the number of trials.

    Args:
        seed: whole numbers.
        samples: how many random ones, and how many neighbours.
    """

    def __init__(
        self, space: ConfigurationSpace, encode: Encoder, seed: Sequence[int], samples: int
    ):
        self._space, self._encode, self._seed, self._samples = space, encode, seed, samples
        self._random: tuple[int, Candidates] | None = None

    def none(self) -> Candidates:
        """No candidate."""
        return Candidates.of(self._space, [], self._encode)

    def at_random(self, trials: int) -> Candidates:
        """Random configurations, new ones after every `ASKS_A_DRAW` trials."""
        block = trials // ASKS_A_DRAW
        if self._random is None or self._random[0] != block:
            drawn = draw(self._space, self._samples + 1, self._seed_of(RANDOM, block))
            of_block = Candidates.of(self._space, drawn[: self._samples], self._encode)
            self._random = block, of_block
        return self._random[1]

    def neighbours(
        self,
        values: Float[np.ndarray, "row"],
        known: Sequence[Mapping[str, Any]],
        candidates: Candidates,
        *stream: int,
    ) -> Candidates:
        """Neighbours of the `CENTERS` best rows, `samples` in all at most.

        Args:
            values: acquisition values of the configurations known and, behind them, `candidates`.
            stream: the trial, and how often it has had neighbours before.
        """
        around, origins = [], []
        for place, row in enumerate(np.argsort(-values, kind="stable")[:CENTERS]):
            if row >= len(known):
                config = candidates.values[row - len(known)]
                center = candidates.configs[row - len(known)]
            else:
                config = known[row]
                center = configuration_in(self._space, config)
            if center is not None and values[row] > -np.inf:
                seed = self._seed_of(NEIGHBOURS, *stream, place)
                found = neighbours([center], [seed], -(-self._samples // CENTERS))
                around += found
                origins += [(center, config)] * len(found)
        end = self._samples
        return Candidates.of(self._space, around[:end], self._encode, origins[:end])

    def _seed_of(self, *stream: int) -> int:
        return int(np.random.default_rng([*self._seed, *stream]).integers(2**31))


def explores(trials: int) -> bool:
    """Whether a trial after so many may be of a configuration that is not known yet."""
    return math.isqrt(trials) ** 2 == trials
