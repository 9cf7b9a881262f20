r"""Zero-shot portfolio: configurations that together are best on the sources, one after another.

The next of the list is the configuration that most lowers the mean over the sources of the regret
of the best in the list,

\[ \sum_t \min_{c \in \mathrm{list}} \frac{\max_{c'} v_{tc'} - v_{tc}}
   {\max_{c'} v_{tc'} - \min_{c'} v_{tc'}}, \]

\(v_{tc}\) being the best score of a curve. Each is trained to its end. Where none lowers it, the
list goes on with those of the smallest mean regret.

Source: Wistuba, Schilling, Schmidt-Thieme (2015), Learning Hyperparameter Optimization
Initializations; Feurer, Eggensperger, Falkner, Lindauer, Hutter (2022), Auto-Sklearn 2.0, section
4.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from amt.tuners.final_score_gp import final_scores
from amt.tuners.record import Host, Record
from amt.tuners.schedule import Schedule


class Portfolio(Schedule):
    def schedule(self) -> Iterator[int]:
        for config in portfolio(final_scores(self.sources)):
            yield from self.train(int(config))


def portfolio(scores: Float[np.ndarray, "task config"]) -> Int[np.ndarray, "config"]:
    """All configurations in the order of the list."""
    spread = np.ptp(scores, axis=1, keepdims=True)
    regrets = (scores.max(1, keepdims=True) - scores) / np.where(spread > 0, spread, 1)
    listed, alone = [], regrets.mean(0)
    best = np.full((len(scores), 1), np.inf)
    for _ in range(scores.shape[1]):
        together = np.minimum(best, regrets).mean(0)
        together[listed], left = np.inf, alone.copy()
        left[listed] = np.inf
        ties = np.where(together <= together.min() + 1e-12, left, np.inf)
        listed.append(int(np.argmin(ties)))
        best = np.minimum(best, regrets[:, [listed[-1]]])
    return np.array(listed)


RECORD = Record(
    name="portfolio",
    label="zero-shot portfolio",
    source="Wistuba et al. (2015), Learning Hyperparameter Optimization Initializations",
    make=lambda: Host(Portfolio),
)
