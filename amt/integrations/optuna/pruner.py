"""Stopping trials, and finding those that were stopped."""

from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from amt.integrations.optuna.sampler import AMTSampler


class AMTPruner(BasePruner):
    """Stops a trial when the sampler has a configuration whose next epoch is worth more.

    Args:
        sampler: that of the study, whose model and acquisition function decide.
    """

    def __init__(self, sampler: AMTSampler):
        self._sampler = sampler

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        return self._sampler.should_prune(study, trial)


def paused_trial(trial: Trial) -> FrozenTrial | None:
    """The pruned trial of the same parameters that went furthest, None if there is none.

    Its checkpoint is what an objective can go on from, with `AMTSampler(resume=True)`: call it when
    all parameters have been suggested, and report from the step after its `last_step`.
    """
    pruned = trial.study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    steps = [(t.last_step, t) for t in pruned if t.params == trial.params]
    reported = [(step, t) for step, t in steps if step is not None]
    return max(reported, key=lambda pair: pair[0], default=(None, None))[1]
