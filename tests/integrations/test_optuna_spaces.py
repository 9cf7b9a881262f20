"""Search spaces of Optuna and of ConfigSpace, each as the other."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from amt.integrations.optuna import (
    AMTSampler,
    distributions_of_space,
    sources_from_studies,
    space_of_distributions,
)
from tests.integrations.problems import (
    DEPTH,
    OPTIMIZER,
    RATE,
    SPACE,
    add,
    as_it_starts,
    new_study,
    sources,
    study_in,
)
from tests.problems import small_curves


def test_distributions_and_spaces_convert_both_ways():
    distributions = {
        "float": FloatDistribution(-1.0, 2.5),
        "log": FloatDistribution(1e-5, 0.1, log=True),
        "step": FloatDistribution(0.0, 0.9, step=0.3),
        "int": IntDistribution(1, 9, step=2),
        "int_log": IntDistribution(2, 512, log=True),
        "categorical": CategoricalDistribution(["adam", None, True, 2.5]),
    }
    space = space_of_distributions({**distributions, "one": IntDistribution(3, 3)})
    assert distributions_of_space(space) == distributions
    ordinal = distributions_of_space(small_curves().space)
    assert ordinal["optimizer"] == OPTIMIZER
    assert ordinal["rate"] == RATE


def test_random_candidates_are_in_the_distributions():
    sampler = AMTSampler(sources(), fit=as_it_starts(sources(), "task_regression"))
    for number in range(3):
        trial = optuna.trial.create_trial(state=TrialState.WAITING)
        trial.number = number
        fresh = sampler._fresh(sampler._known_to([]).space, trial, {}).configs
        assert len(fresh) > 200
        for name, distribution in SPACE.items():
            internal = [distribution.to_internal_repr(config[name]) for config in fresh]
            assert all(map(distribution._contains, internal))
            distinct = {"rate": len(fresh), "depth": 5, "optimizer": 2, "dropout": 3}[name]
            assert len(set(internal)) == distinct


MIXED = {
    "kernel": CategoricalDistribution([[3, 3], [5, 5]]),
    "factor": CategoricalDistribution([1, 2, 0.5]),
    "nesterov": CategoricalDistribution([True, False]),
    "depth": DEPTH,
    "rate": RATE,
}


def own_types(params):
    return {name: type(value) for name, value in params.items()}


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_suggested_values_are_python_s_own_and_lists_are_choices(storage):
    kernels = [[3, 3], [5, 5]]
    for name in ("a", "b"):
        study = study_in(storage, name)
        for i in range(4):
            params = {"kernel": kernels[i % 2], "factor": [1, 2, 0.5, 1][i], "nesterov": i > 1}
            params |= {"depth": 1 + 2 * i, "rate": 0.1**i}
            add(study, params, [0.1, 0.2 + 0.1 * i], MIXED)
    past = sources_from_studies(storage)
    assert len(past.configs) == 4
    assert own_types(past.configs[0]) | {"factor": None} == {
        **{"kernel": list, "factor": None, "nesterov": bool, "depth": int, "rate": float}
    }
    sampler = AMTSampler(past, fit=as_it_starts(past, task="icm"))
    study = new_study(sampler)
    study.enqueue_trial(past.configs[0])
    trial = study.ask(MIXED)
    trial.report(0.3, 0)
    trial = study.ask(MIXED)
    params = trial.params
    assert own_types(params) | {"factor": None} == own_types(past.configs[0]) | {"factor": None}
    assert type(params["factor"]) is (float if params["factor"] == 0.5 else int)
    frozen = study.trials[-1]
    fresh = sampler._fresh(sampler._known_to(study.trials).space, frozen, {}).configs
    assert {type(c["nesterov"]) for c in fresh} == {bool}
    assert {type(c["factor"]) for c in fresh if c["factor"] != 0.5} == {int}
    assert sampler._state(study, frozen).observed == [(0, 0, 0.3)]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([False, 0], "'x': False and 0 are equal"),
        ([1, 2, 1.0], "'x': 1 and 1.0 are equal"),
        ([float("nan"), 1], "'x': NaN is no choice"),
    ],
)
def test_choices_that_cannot_be_told_apart_are_named(choices, message):
    with pytest.raises(ValueError, match=message):
        space_of_distributions({"x": CategoricalDistribution(choices)})
