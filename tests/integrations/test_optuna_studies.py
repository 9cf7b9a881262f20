"""Past Optuna studies as learning curves of source tasks."""

import jax.numpy as jnp
import numpy as np
import optuna
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from amt.integrations.optuna import (
    AMTSampler,
    distributions_of_space,
    sources_from_studies,
)
from tests.integrations.optuna_worker import CANDIDATES, EPOCHS, FIT, suggest
from tests.integrations.problems import (
    DROPOUT,
    ONE,
    OTHER,
    SPACE,
    TASKS,
    add,
    curve,
    finish,
    new_study,
    past_configs,
    record_different_configs,
    sources,
    study_in,
)


def test_studies_become_learning_curves():
    curves = sources()
    assert curves.tasks == tuple(TASKS)
    assert list(curves.configs) == past_configs()
    assert distributions_of_space(curves.space) == SPACE
    assert_array_equal(curves.epochs, np.arange(1, EPOCHS + 1))
    expected = [[curve(config, best) for config in past_configs()] for best in TASKS.values()]
    assert_array_equal(curves.scores, expected)
    assert_array_equal(curves.outcome.forward([0.2, 0.7]), [0.2, 0.7])


def test_losses_become_scores_by_the_outcome_transform():
    curves = sources(loss=True)
    losses = [[curve(config, b, loss=True) for config in past_configs()] for b in TASKS.values()]
    assert_allclose(curves.outcome.inverse(curves.scores), losses, rtol=1e-10)
    assert curves.outcome.sign == -1
    best = np.argmax(curves.scores[0, :, -1])
    assert best == np.argmin(np.array(losses)[0, :, -1])


def test_trials_of_equal_parameters_are_averaged_and_curves_joined(storage):
    study = study_in(storage, "past")
    add(study, ONE, [0.1, 0.2], state=TrialState.PRUNED)
    add(study, ONE, {1: 0.4, 2: 0.5})
    add(study, OTHER, [0.3, float("nan"), float("inf")], state=TrialState.FAIL)
    add(study, OTHER, {1: 0.6, 2: 0.7})
    study.ask(SPACE).report(0.9, 0)  # running: not past
    add(study, OTHER, [])  # no curve
    curves = sources_from_studies(storage)
    assert_allclose(curves.scores, [[[0.1, 0.3, 0.5], [0.3, 0.6, 0.7]]])


def test_ranges_choices_scales_and_kinds_are_united(storage):
    other = {
        "dropout": DROPOUT,
        "rate": FloatDistribution(1e-6, 0.1),  # linear
        "depth": FloatDistribution(2, 12),  # real
        "optimizer": CategoricalDistribution(["sgd", "lion"]),
    }
    add(study_in(storage, "x"), ONE, [0.1])
    params = {**ONE, "rate": 1e-6, "depth": 11.5, "optimizer": "lion"}
    add(study_in(storage, "y"), params, [0.1], other)
    as_choices = {**SPACE, "depth": CategoricalDistribution([16, 2])}
    add(study_in(storage, "z"), {**ONE, "depth": 16}, [0.1], as_choices)
    curves = sources_from_studies(storage)
    assert distributions_of_space(curves.space) == {
        "rate": FloatDistribution(1e-6, 1.0, log=True),
        "depth": FloatDistribution(1, 16),
        "optimizer": CategoricalDistribution(["adam", "sgd", "lion"]),
        "dropout": DROPOUT,
    }
    assert list(curves.configs) == [ONE, params, {**ONE, "depth": 16.0}]
    # Each study ran one of the three.
    assert_array_equal(np.isnan(curves.scores[..., 0]), ~np.eye(3, dtype=bool))


def test_parameters_that_some_trials_lack_are_conditional_or_have_a_usual_value(storage):
    momentum = {"momentum": FloatDistribution(0, 1)}
    study = study_in(storage, "x")
    for config in past_configs()[:4]:
        sgd = config["optimizer"] == "sgd"
        more = {"momentum": 0.25 * len(study.trials)} if sgd else {}
        add(study, config | more, [0.1], SPACE | (momentum if sgd else {}))
    curves = sources_from_studies(storage)
    assert [c.get("momentum") for c in curves.configs] == [None, 0.25, None, 0.75]
    assert curves.space.conditional_hyperparameters == ["momentum"]
    # Nothing tells which have a `clip`, which a later study has in addition.
    clip = SPACE | {"clip": FloatDistribution(0, 9)}
    later = study_in(storage, "later")
    for config, value in zip(past_configs()[:3], (1.0, 5.0, 2.0), strict=True):
        add(later, config | {"clip": value}, [0.1], clip)
    names = ["x", "later"]
    with pytest.warns(UserWarning, match="'clip' is not in 4 of 7 trials, .* count with 2.0") as w:
        curves = sources_from_studies(storage, names)
    assert len(w) == 2  # sgd had no momentum there
    assert {c["clip"] for c in curves.configs} == {1.0, 2.0, 5.0}
    curves = sources_from_studies(storage, names, absent={"clip": 0.0, "momentum": 1.5})
    assert {c["clip"] for c in curves.configs} == {0.0, 1.0, 2.0, 5.0}
    assert {c["momentum"] for c in curves.configs} == {0.25, 0.75, 1.5}
    assert not curves.space.conditional_hyperparameters


def test_the_same_step_is_one_configuration(storage):
    """0.1 + 0.2 and 0.3 are one value of a parameter with steps of 0.1."""
    space = {"x": FloatDistribution(0, 0.5, step=0.1)}
    study = study_in(storage, "past")
    for x in (0.1 + 0.2, 0.3, 0.1 * 3, 0.2):
        add(study, {"x": x}, [x], space)
    curves = sources_from_studies(storage)
    assert list(curves.configs) == [{"x": 0.3}, {"x": 0.2}]
    assert distributions_of_space(curves.space) == space


def test_the_first_step_may_be_any(storage):
    add(study_in(storage, "past"), ONE, {1: 0.1, 2: 0.2})
    assert_array_equal(sources_from_studies(storage).epochs, [2, 3])
    assert_array_equal(sources_from_studies(storage, first_step=1).epochs, [1, 2])
    with pytest.raises(
        ValueError, match="'past', trial 0 reported step 1, before the first step 2"
    ):
        sources_from_studies(storage, first_step=2)


def test_only_studies_with_curves_are_taken_unless_named(storage):
    add(study_in(storage, "good"), ONE, [0.1])
    add(study_in(storage, "none"), ONE, [])
    optuna.create_study(storage=storage, study_name="two", directions=[StudyDirection.MAXIMIZE] * 2)
    assert sources_from_studies(storage).tasks == ("good",)
    with pytest.raises(ValueError, match="'none' has no finished trial with intermediate values"):
        sources_from_studies(storage, ["good", "none"])
    with pytest.raises(ValueError, match="'two' has several objectives"):
        sources_from_studies(storage, ["two"])
    with pytest.raises(KeyError, match="no study 'nowhere'; there are good, none, two"):
        sources_from_studies(storage, ["nowhere"])
    optuna.delete_study(study_name="good", storage=storage)
    with pytest.raises(ValueError, match="no study has one objective and finished trials"):
        sources_from_studies(storage)


def test_studies_that_do_not_go_together_are_named(storage):
    add(study_in(storage, "x"), ONE, [0.1])
    add(study_in(storage, "loss", "minimize"), ONE, [0.1])
    with pytest.raises(ValueError, match="'loss' is to minimize, study 'x' to maximize"):
        sources_from_studies(storage)
    named = {**SPACE, "rate": CategoricalDistribution(["low", "high"])}
    add(study_in(storage, "named"), {**ONE, "rate": "low"}, [0.1], named)
    with pytest.raises(ValueError, match=r"'rate' is Categ.* in study 'named', trial 0, but Float"):
        sources_from_studies(storage, ["x", "named"])
    add(study_in(storage, "other"), {"width": 3}, [0.1], {"width": IntDistribution(1, 9)})
    with pytest.raises(ValueError, match="no parameter is in all trials"):
        sources_from_studies(storage, ["x", "other"])


def test_studies_of_different_configurations_beat_random_search(tmp_path):
    """Fitted and searched in float32."""
    address = f"sqlite:///{tmp_path}/past.db"
    record_different_configs(optuna.storages.RDBStorage(address))
    past = sources_from_studies(address)
    there = ~np.isnan(past.scores)
    assert there.any(2).sum(0).tolist() == [1] * 24  # each configuration in one of the two
    assert there.sum() == sum(
        len(t.intermediate_values)
        for name in ("a", "b")
        for t in optuna.load_study(study_name=name, storage=address).trials
    )
    options = {"dtype": "float32", "candidates": CANDIDATES}
    fit = AMTSampler(past, seed=0, **options, **FIT).fit
    again = AMTSampler(past, seed=0, cache=False, **options, **FIT).fit
    assert_array_equal(again.log_density, fit.log_density)
    budget = 24
    found, random = [], []
    for seed, best in enumerate((0.48, 0.55)):
        sampler = AMTSampler(past, fit=fit, seed=seed, **options)
        assert sampler._scorer.source.prior.mean.dtype == jnp.float32
        assert sampler._scorer.grid.scores.dtype == jnp.float32
        study = new_study(sampler)
        while sum(len(t.intermediate_values) for t in study.trials) < budget:
            finish(study, study.ask(), best)
            if len(study.trials) == 3:
                assert study.best_value > 0.8
        found.append(study.best_value)
        plain = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
        trials = [suggest(plain.ask()) for _ in range(budget // EPOCHS)]
        random.append(max(curve(config, best)[-1] for config in trials))
    assert np.mean(found) > np.mean(random) + 0.01
    assert min(found) > 0.9 * (1 - 0.5 * np.exp(-3)) - 0.02
