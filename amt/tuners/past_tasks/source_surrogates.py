"""What tuners share that combine a surrogate of each source with one of the target."""

import numpy as np
from jaxtyping import Float

from amt.tuners.final_score_gp import OnFinalScores, final_scores
from amt.tuners.record import HostProblem


class SourceSurrogates(OnFinalScores):
    """A Gaussian process of each source's final scores, standardised.

    Attributes:
        means, deviations: of each source's surrogate.
    """

    def __init__(self, seed: int, problem: HostProblem):
        super().__init__(seed, problem)
        posteriors = self.gp.posteriors(np.arange(self.num_configs), final_scores(self.sources))
        self.means: Float[np.ndarray, "task config"] = np.stack([p.mean for p in posteriors])
        self.deviations = np.stack([posterior.deviation for posterior in posteriors])


def discordant(
    predicted: Float[np.ndarray, "*batch scored"], scores: Float[np.ndarray, "scored"]
) -> Float[np.ndarray, "*batch"]:
    """Share of the pairs of configurations that predictions rank otherwise than scores; 0 of none.

    A tie of one is not one of the other: it counts as otherwise.
    """
    first, second = np.triu_indices(len(scores), 1)
    if not len(first):
        return np.zeros(predicted.shape[:-1])
    wrong = (predicted[..., first] < predicted[..., second]) != (scores[first] < scores[second])
    return wrong.mean(-1)
