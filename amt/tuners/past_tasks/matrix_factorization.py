r"""Matrix factorization of the sources' final scores (OBOE).

The matrix of scores is approximated by \(W V\) of rank k = 5, from its singular value
decomposition. The k configurations whose columns of V are chosen by pivoted QR, the greedy
D-optimal design, are trained first; the target's row is then the least-squares w of its scores, of
as many rows of V as there are scores at most, and the configuration of the largest \(w V\) is
trained next. The configuration of the largest prediction is recommended, with what was observed in
place of predictions.

Source: Yang, Akimoto, Kim, Udell (2019), OBOE: Collaborative Filtering for AutoML Model Selection,
sections 3 and 4.
"""

import numpy as np
from jaxtyping import Float
from scipy.linalg import qr

from amt.tuners.final_score_gp import OnFinalScores, final_scores
from amt.tuners.record import Host, HostProblem, Record

RANK = 5


class MatrixFactorization(OnFinalScores):
    """The tuner.

    Attributes:
        design: configurations to train first.
    """

    def __init__(self, seed: int, problem: HostProblem):
        super().__init__(seed, problem)
        _, values, vectors = np.linalg.svd(final_scores(self.sources), full_matrices=False)
        rank = min(RANK, len(values))
        self._basis = values[:rank, None] * vectors[:rank]
        *_, order = qr(self._basis, mode="r", pivoting=True)
        self.design = order[:rank]

    def choose(self) -> Float[np.ndarray, "config"]:
        left = self.design[self.trained[self.design] == 0]
        values = self.predictions()
        values[left[:1]] = np.inf
        return values

    def predictions(self) -> Float[np.ndarray, "config"]:
        """Scores of all configurations, those of the trained ones as observed."""
        scored, observed = self.scored, self.values[self.scored]
        basis = self._basis[: len(scored)]
        predicted = np.linalg.lstsq(basis[:, scored].T, observed, rcond=1e-6)[0] @ basis
        predicted[scored] = observed
        return predicted

    def recommend(self) -> int:
        return int(np.argmax(self.predictions())) if self.scored.size else int(self.design[0])


RECORD = Record(
    name="matrix_factorization",
    label="matrix factorization",
    source="Yang et al. (2019), OBOE: Collaborative Filtering for AutoML Model Selection",
    make=lambda: Host(MatrixFactorization),
)
