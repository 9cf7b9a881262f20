"""A sampler and a pruner for Optuna, which learn from past studies.

```python
sources = sources_from_studies("sqlite:///past.db")
sampler = AMTSampler(sources, seed=0)
study = optuna.create_study(
    study_name="new", storage="sqlite:///new.db", direction="maximize",
    sampler=sampler, pruner=AMTPruner(sampler), load_if_exists=True,
)
study.optimize(objective, n_trials=100)
```

All state is in the trials of the study, so that any number of workers share it through its storage,
and one that is killed loses nothing that it has reported. The model follows from the sources and
the seed alone: workers on one machine fit it once (`amt.search.fit_cache`).

Each trial is one configuration, and each step that it reports one epoch. The sampler starts the
configuration of largest acquisition value among those not tried; after each report the pruner
stops the trial if that value is larger than the trial's own. The two are AT2's decision rule
(Xiao, Xing, Neiswanger 2021, algorithm 1), with one difference: Optuna does not go on with a trial
that was pruned. With `resume=True` its configuration stays a candidate for a new trial, which
can start from the checkpoint of the old one (`paused_trial`): then this is the rule as published.
"""

from amt.integrations.optuna.pruner import AMTPruner, paused_trial
from amt.integrations.optuna.sampler import AMTSampler
from amt.integrations.optuna.spaces import distributions_of_space, space_of_distributions
from amt.integrations.optuna.studies import sources_from_studies

__all__ = [
    "AMTPruner",
    "AMTSampler",
    "distributions_of_space",
    "paused_trial",
    "sources_from_studies",
    "space_of_distributions",
]
