r"""Acquisition functions: which configuration to train for one more epoch.

Each takes the target's posterior marginals on the grid, the epochs still to be trained, and the
incumbent, and gives one value for each configuration, to be maximised; configurations without
a remaining epoch have -inf. All have the same signature, are pure, and pass through jit and vmap.
Those of the joint distribution of final scores take it as `final`, and random ones a `key`
(`amt.search.rule.acquisition_values` gives both), which only task regression has.

```python
acquisition = functools.partial(upper_confidence_bound, beta=0.25)
values = acquisition(posterior, remaining, incumbent)
```
"""

import inspect
from functools import partial
from typing import Any

from amt.search.acquisition.base import Acquisition, Values
from amt.search.acquisition.confidence_bound import upper_confidence_bound
from amt.search.acquisition.improvement import expected_improvement, log_expected_improvement
from amt.search.acquisition.knowledge_gradient import log_knowledge_gradient
from amt.search.acquisition.perfect_information import value_of_perfect_information
from amt.search.acquisition.remaining import log_remaining_improvement, remaining_improvement
from amt.search.acquisition.thompson import thompson_sampling
from amt.search.acquisition.top_two import top_two_thompson_sampling

__all__ = [
    "ACQUISITIONS",
    "GAINS",
    "LOGARITHMS",
    "OF_MIXTURES",
    "RULES",
    "WITHOUT_TASKS",
    "Acquisition",
    "Values",
    "expected_improvement",
    "function_of",
    "get_acquisition",
    "log_expected_improvement",
    "log_knowledge_gradient",
    "log_remaining_improvement",
    "needs",
    "options_of",
    "remaining_improvement",
    "thompson_sampling",
    "top_two_thompson_sampling",
    "upper_confidence_bound",
    "value_of_perfect_information",
]

OF_MIXTURES: tuple[Acquisition, ...] = (
    value_of_perfect_information,
    log_knowledge_gradient,
    thompson_sampling,
    top_two_thompson_sampling,
)
"""Functions that take the posterior of a mixture whole; others are averaged over its components."""

LOGARITHMS: tuple[Acquisition, ...] = (
    log_expected_improvement,
    log_remaining_improvement,
    value_of_perfect_information,
    log_knowledge_gradient,
)
"""Functions whose values are logarithms of a gain, which is what is averaged and costs divide."""

GAINS: tuple[Acquisition, ...] = (expected_improvement, remaining_improvement)
"""Functions whose values are a gain; those of others are scores."""

RULES = {"task_regression": "vpi", "multi_task": "ucb"}
"""The acquisition function of each model that is used by default."""

WITHOUT_TASKS = "thompson"
"""The acquisition function that is used by default where there is no past task."""

ACQUISITIONS: dict[str, Acquisition] = {
    "ucb": upper_confidence_bound,
    "ei": expected_improvement,
    "log_ei": log_expected_improvement,
    "ei_remaining": remaining_improvement,
    "log_ei_remaining": log_remaining_improvement,
    "vpi": value_of_perfect_information,
    "thompson": thompson_sampling,
    "top_two": top_two_thompson_sampling,
    "kg": log_knowledge_gradient,
}


def get_acquisition(acquisition: Acquisition | str) -> Acquisition:
    """The acquisition function of a name in `ACQUISITIONS`; a function stays as it is.

    Raises:
        KeyError: there is none of that name; the message lists those there are.
    """
    if not isinstance(acquisition, str):
        return acquisition
    if acquisition not in ACQUISITIONS:
        raise KeyError(
            f"no acquisition function {acquisition!r}; there are {', '.join(ACQUISITIONS)}"
        )
    return ACQUISITIONS[acquisition]


def function_of(acquisition: Acquisition) -> Any:
    """The function itself, of one under `functools.partial`."""
    while isinstance(acquisition, partial):
        acquisition = acquisition.func
    return acquisition


def needs(acquisition: Acquisition, what: str) -> bool:
    """Whether a function takes `final`, the joint distribution, or `key`."""
    return what in inspect.signature(acquisition).parameters


def options_of(function: Acquisition) -> list[str]:
    """The names of a function's keyword-only parameters with a default, which are its options."""
    parameters = inspect.signature(function).parameters.values()
    optional = [p for p in parameters if p.default is not inspect.Parameter.empty]
    return [p.name for p in optional if p.kind is inspect.Parameter.KEYWORD_ONLY]
