"""Stopping trials, and finding those that were stopped."""

from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from amt.integrations.optuna.sampler import AMTSampler


class AMTPruner(BasePruner):
    """Stops a trial when the sampler has a configuration whose next epoch is worth more.

    A trial that is stopped is lost unless the objective can go on from a checkpoint (`paused_trial`
    and `AMTSampler(resume=True)`). So one that is predicted to become the best of all that were
    tried, with a probability of a tenth at least (`CHANCE`), is never stopped.

    Args:
        sampler: that of the study, whose model and acquisition function decide.
        keep_best: False to stop such a trial too; with `resume=True` that is AT2's algorithm.
        min_steps: no trial is stopped before so many steps.
    """

    def __init__(self, sampler: AMTSampler, *, keep_best: bool = True, min_steps: int = 1):
        self._sampler, self._keep_best, self._min_steps = sampler, keep_best, min_steps

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        options = {"keep_best": self._keep_best, "min_steps": self._min_steps}
        return self._sampler.should_prune(study, trial, **options)


def paused_trial(trial: Trial) -> FrozenTrial | None:
    """The pruned trial of the same parameters that went furthest, None if there is none.

    Its checkpoint is what an objective can go on from, with `AMTSampler(resume=True)`: call it when
    all parameters have been suggested, and report from the step after its `last_step`.
    """
    pruned = trial.study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    steps = [(t.last_step, t) for t in pruned if t.params == trial.params]
    reported = [(step, t) for step, t in steps if step is not None]
    return max(reported, key=lambda pair: pair[0], default=(None, None))[1]
