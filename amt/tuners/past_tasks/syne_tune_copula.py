"""Copula Thompson sampling of Syne Tune, on a gradient-boosted model of the sources.

Boosted trees predict the quantile of a score among those of its source, as a normal deviate, from
the hyperparameters; the deviation of their errors on a tenth that is kept out is the same
everywhere. The untried configuration of the largest draw is trained to its end. The library draws
its candidates from the search space; here they are the configurations that there are. It does not
learn from the target. `amt.tuners.past_tasks.quantile_copula` has a mean and a deviation of each
configuration instead, and a Gaussian process of the target.

Source: Salinas, Shen, Perrone (2020), A Quantile-based Approach for Hyperparameter Transfer
Learning, section 4.
"""

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np

from amt.tuners.final_score_gp import final_scores
from amt.tuners.one_task.syne_tune import syne_tune_space
from amt.tuners.record import Host, HostProblem, Record
from amt.tuners.schedule import Schedule
from amt.tuners.unconditional import completed


class SyneTuneCopula(Schedule):
    """The tuner.

    Attributes:
        mean: of each configuration's normal deviate, smaller being better.
        deviation: of all.
    """

    def __init__(self, seed: int, problem: HostProblem):
        super().__init__(seed, problem)
        searcher = copula_searcher(problem, int(self.rng.integers(2**31)))
        self.mean = searcher.mu_pred[: self.num_configs, 0]
        self.deviation = float(searcher.sigma_pred[0, 0])

    def schedule(self) -> Iterator[int]:
        while self.untried.size:
            draws = self.rng.normal(self.mean, self.deviation)[self.untried]
            yield from self.train(int(self.untried[np.argmin(draws)]))


def copula_searcher(problem: HostProblem, seed: int) -> Any:
    """The library's searcher, whose candidates are the problem's configurations, in their order."""
    import pandas as pd
    from syne_tune.optimizer.schedulers.transfer_learning import transfer_learning_task_evaluation  # pyright: ignore
    from syne_tune.optimizer.schedulers.transfer_learning.quantile_based import (  # pyright: ignore
        quantile_based_searcher,
    )

    sources = problem.sources
    rows = [completed(sources.space, config) for config in sources.configs]
    space, table = syne_tune_space(sources.space), pd.DataFrame(rows)
    evaluations = {
        task: transfer_learning_task_evaluation.TransferLearningTaskEvaluations(
            space, table, ["loss"], -scores[:, None, None, None]
        )
        for task, scores in zip(sources.tasks, final_scores(sources), strict=True)
    }
    candidates = cycle(rows)

    class OnCandidates(quantile_based_searcher.QuantileBasedSurrogateSearcher):
        def _sample_random_config(self) -> dict[str, Any]:
            return next(candidates)

    return OnCandidates(space, evaluations, random_seed=seed)


RECORD = Record(
    name="copula_syne_tune",
    label="quantile copula of Syne Tune",
    source="Salinas, Shen, Perrone (2020); Syne Tune's QuantileBasedSurrogateSearcher",
    make=lambda: Host(SyneTuneCopula),
    packages=("syne_tune", "xgboost", "huggingface_hub"),
    extra="zoo",
)
