"""Past Optuna studies as sources, and the sampler and pruner that learn from them."""

import dataclasses
import warnings
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optuna
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

import amt
from amt.gp.grid import CurveGrid
from amt.gp.observations import Observations
from amt.integrations.optuna import (
    AMTPruner,
    AMTSampler,
    distributions_of_space,
    paused_trial,
    sources_from_studies,
    space_of_distributions,
)
from amt.search.fitting import unfitted
from amt.space import Encoder
from tests.integrations.optuna_worker import (
    CANDIDATES,
    EPOCHS,
    FIT,
    accuracy,
    open_storage,
    run,
    suggest,
)
from tests.problems import small_curves
from tests.processes import Script

optuna.logging.set_verbosity(optuna.logging.ERROR)

RATE = FloatDistribution(1e-4, 1.0, log=True)
DEPTH = IntDistribution(1, 9, step=2)
OPTIMIZER = CategoricalDistribution(["adam", "sgd"])
DROPOUT = FloatDistribution(0.1, 0.7, step=0.3)
SPACE = {"rate": RATE, "depth": DEPTH, "optimizer": OPTIMIZER, "dropout": DROPOUT}
TASKS = {"a": 0.4, "b": 0.5, "c": 0.6, "d": 0.65}
NEW = 0.55


@cache
def past_configs():
    rng = np.random.default_rng(0)
    return [
        {
            "rate": float(10 ** rng.uniform(-4, 0)),
            "depth": int(rng.choice([1, 3, 5, 7, 9])),
            "optimizer": ("adam", "sgd")[i % 2],
            "dropout": (0.1, 0.4, 0.7)[i % 3],
        }
        for i in range(20)
    ]


def add(study, params, values, distributions=SPACE, state=TrialState.COMPLETE):
    """A finished trial that reported `values`, a dict or a list from step 0."""
    values = values if isinstance(values, dict) else dict(enumerate(values))
    final = values.get(max(values, default=0), 0.0)
    study.add_trial(
        optuna.create_trial(
            params=params,
            distributions=distributions,
            intermediate_values=values,
            value=final if state == TrialState.COMPLETE else None,
            state=state,
        )
    )


def curve(config, best, loss=False):
    values = [accuracy(config, epoch, best) for epoch in range(1, EPOCHS + 1)]
    return [10 * (1 - v) for v in values] if loss else values


def record_past(storage, loss=False):
    direction = "minimize" if loss else "maximize"
    for name, best in TASKS.items():
        study = optuna.create_study(storage=storage, study_name=name, direction=direction)
        for config in past_configs():
            add(study, config, curve(config, best, loss))


@cache
def sources(loss=False):
    storage = optuna.storages.InMemoryStorage()
    record_past(storage, loss)
    return sources_from_studies(storage)


def as_it_starts(curves, model="multi_task", **kernels):
    """A model whose parameters are not learned, but where it starts."""
    kernels = {"config": "matern"} | kernels
    return unfitted(curves, jax.random.key(0), model=model, kernels=kernels)


def new_sampler(loss=False, candidates=CANDIDATES, **options):
    """One of a few candidates or of none, with the room, and so the programs, of the others.

    Only what is done with the model is looked at, so that it is not fitted.
    """
    fit = as_it_starts(sources(loss), "task_regression")
    sampler = AMTSampler(sources(loss), fit=fit, candidates=CANDIDATES, **options)
    sampler._candidates = candidates
    return sampler


def new_study(sampler, direction="maximize", pruner=None, **options):
    return optuna.create_study(
        direction=direction, sampler=sampler, pruner=pruner or AMTPruner(sampler), **options
    )


def finish(study, trial, best=NEW):
    """Train a trial that was asked for, as `run` does; whether it was pruned."""
    config = suggest(trial)
    for step, score in enumerate(curve(config, best)):
        trial.report(score, step)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return True
    study.tell(trial, score)
    return False


# Search spaces


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


@pytest.fixture
def storage():
    return optuna.storages.InMemoryStorage()


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


# Past studies


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


def study_in(storage, name, direction="maximize"):
    return optuna.create_study(storage=storage, study_name=name, direction=direction)


ONE, OTHER = past_configs()[:2]


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


def record_different_configs(storage, trials=12):
    """Two studies of random configurations of their own, half of their trials pruned."""
    for seed, (name, best) in enumerate({"a": 0.45, "b": 0.6}.items()):
        study = study_in(storage, name)
        rng = np.random.default_rng(seed)
        for number in range(trials):
            config = {
                "rate": float(10 ** rng.uniform(-4, 0)),
                "depth": int(rng.choice([1, 3, 5, 7, 9])),
                "optimizer": ("adam", "sgd")[rng.integers(2)],
                "dropout": (0.1, 0.4, 0.7)[rng.integers(3)],
            }
            pruned = number % 2
            values = curve(config, best)[: rng.integers(1, EPOCHS) if pruned else EPOCHS]
            add(study, config, values, state=TrialState.PRUNED if pruned else TrialState.COMPLETE)


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


# The decision rule


def test_with_resumed_trials_it_is_the_algorithm_of_at2():
    """The epochs trained, in order, are those of `amt.search.simulate`."""
    options: dict = {"acquisition": partial(amt.upper_confidence_bound, beta=3.0)}  # pauses often
    sampler = AMTSampler(sources(), fit=as_it_starts(sources()), resume=True, **options)
    sampler._candidates = 0
    target = jnp.array([curve(config, NEW) for config in past_configs()])
    budget = 60
    expected = amt.simulate(sampler._scorer.source, target, budget=budget, **options)
    study = new_study(sampler, pruner=AMTPruner(sampler, keep_best=False))
    trained = []
    while len(trained) < budget:
        trial = study.ask()
        config = suggest(trial)
        before = paused_trial(trial)
        score = None
        for step in range(0 if before is None else before.last_step + 1, EPOCHS):
            score = accuracy(config, step + 1, NEW)
            trained.append((past_configs().index(config), step))
            trial.report(score, step)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, score)
    assert trained[:budget] == list(
        zip(expected.config.tolist(), expected.epoch.tolist(), strict=True)
    )
    assert any(paused_trial(_again(study, t)) for t in study.trials)  # some were paused


def _again(study, frozen):
    study.enqueue_trial(frozen.params)
    trial = study.ask()
    suggest(trial)
    return trial


def test_values_are_those_of_the_posterior_with_trials_off_the_grid_and_pending():
    sampler = AMTSampler(sources(), fit=as_it_starts(sources()))
    study = new_study(sampler)
    off = [{**ONE, "rate": rate} for rate in (2e-2, 5e-3)]
    add(study, off[0], curve(off[0], NEW)[:2], state=TrialState.PRUNED)
    add(study, past_configs()[3], curve(past_configs()[3], NEW)[:1], state=TrialState.PRUNED)
    study.enqueue_trial(off[1])
    running = study.ask(SPACE)
    running.report(0.5, 0)
    trial = study.ask()
    frozen = study.trials[-1]
    configs, values = sampler._values(sampler._state(study, frozen), frozen, {})

    grid = CurveGrid.of(sources())
    named = [c for c in configs if c is not None]
    features = jnp.asarray(Encoder(sources().space)(named[20:]))
    model = sampler.fit.model
    scores = curve(off[0], NEW)[:2], curve(past_configs()[3], NEW)[:1], [0.5]
    entries = [
        (config, epoch, score)
        for config, told in zip((20, 3, 21), scores, strict=True)
        for epoch, score in enumerate(told)
    ]
    observations = Observations.of(entries, 8, jnp.dtype("float64"))
    pending = Observations.of([(21, 1, 0.0)], 1, jnp.dtype("float64"))
    posterior = jax.jit(
        lambda: model.source_posterior(grid).condition(observations, features, pending)
    )()
    remaining = np.ones(posterior.mean.shape, bool)
    remaining[[3, 20, 21]] = False
    expected = amt.upper_confidence_bound(posterior, remaining, jnp.zeros(()))
    there = [i for i, c in enumerate(configs) if c is not None]
    assert len(there) > 200
    assert_allclose(values[there], expected, atol=1e-7)
    assert np.isneginf(np.delete(values, there)).all()
    # The suggestion is the largest.
    assert suggest(trial) == named[int(np.argmax(expected))]


def test_trials_started_together_take_different_configurations():
    def told():
        study = new_study(new_sampler(candidates=0))
        for config in past_configs()[:3]:
            add(study, config, curve(config, NEW)[:2], state=TrialState.PRUNED)
        return study

    alone = suggest(told().ask())
    study = told()
    trials = [study.ask() for _ in range(4)]
    chosen = [suggest(trial) for trial in reversed(trials)]
    assert len({tuple(c.items()) for c in chosen}) == 4
    assert chosen[-1] == alone  # the first of them takes the best


def sampler_with_random_ones_ahead():
    """The first random candidate of a trial of odd number is the best; no other is considered."""
    sampler = new_sampler()
    of_model = sampler._values

    def ahead(state, trial, *options):
        configs, values = of_model(state, trial, *options)
        own = len(state.configs)
        best = 1e9 if trial.number % 2 else -np.inf
        return configs, np.r_[values[:own], best, np.full(len(values) - own - 1, -np.inf)]

    sampler._values = ahead
    return sampler


def test_trials_that_choose_before_any_has_its_parameters_differ():
    """As workers do at the same time."""
    sampler = sampler_with_random_ones_ahead()
    study = new_study(sampler)
    for config in past_configs()[:3]:
        add(study, config, curve(config, NEW)[:2], state=TrialState.PRUNED)
    numbers = [study.ask().number for _ in range(8)]
    chosen = [sampler._choose(study, study.trials[number]) for number in numbers]
    assert len({tuple(sorted(config.items())) for config in chosen}) == 8


def test_it_is_deterministic_by_seed():
    def params(seed):
        study = new_study(new_sampler(seed=seed))
        run(study, NEW, 3)
        return [t.params for t in study.trials]

    assert params(0) == params(0)
    assert params(0) != params(1)


@pytest.mark.parametrize("loss", [False, True])
def test_it_beats_random_search_with_the_same_epochs(loss):
    budget = 24
    direction = "minimize" if loss else "maximize"
    found, random = [], []
    for seed, best in enumerate((0.45, 0.55)):
        sampler = new_sampler(loss, seed=seed)
        study = new_study(sampler, direction)
        spent, scores = 0, []
        while spent < budget:
            trial = study.ask()
            config = suggest(trial)
            values = curve(config, best, loss)
            for step, value in enumerate(values):
                trial.report(value, step)
                spent += 1
                if trial.should_prune():
                    study.tell(trial, state=TrialState.PRUNED)
                    break
            else:
                study.tell(trial, value)
                scores.append(curve(config, best)[-1])
        found.append(max(scores))  # of trials that were trained to the end
        plain = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
        trials = [suggest(plain.ask()) for _ in range(budget // EPOCHS)]
        random.append(max(curve(config, best)[-1] for config in trials))
    assert np.mean(found) > np.mean(random)
    assert min(found) > 0.9 * (1 - 0.5 * np.exp(-3)) - 0.02


def test_the_first_trial_is_the_best_of_the_past_trained_to_the_end():
    sampler = sampler_with_random_ones_ahead()
    study = new_study(sampler)
    study.add_trial(optuna.create_trial(state=TrialState.FAIL))  # so that the next one is odd
    assert not finish(study, study.ask())
    final = sources().scores[:, :, -1]
    z = (final - final.mean(1, keepdims=True)) / final.std(1, keepdims=True)
    assert study.trials[1].params == past_configs()[int(z.mean(0).argmax())]


def test_the_best_trial_is_never_pruned_nor_one_before_its_first_steps():
    sampler = new_sampler(candidates=0)
    study = new_study(sampler, pruner=AMTPruner(sampler, min_steps=3))
    steps = []
    for _ in range(6):
        trial = study.ask()
        values = curve(suggest(trial), NEW)
        for step, value in enumerate(values):
            trial.report(value, step)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, values[-1])
        steps.append(step + 1)
    assert steps[0] == EPOCHS  # the only one so far
    assert min(steps) >= 3
    best = max(curve(config, NEW)[-1] for config in past_configs())
    assert study.best_value > best - 0.03


# Single trials


def test_a_study_stops_when_more_trials_are_not_worth_their_cost():
    sampler = new_sampler(acquisition="thompson", candidates=8)
    study = new_study(sampler)
    assert not sampler.should_stop(study, amt.Utility(100.0), budget=100)
    add(study, past_configs()[0], curve(past_configs()[0], NEW))
    stops = [sampler.should_stop(study, amt.Utility(a), budget=100) for a in (0.0, 1e-6, 100.0)]
    assert stops == [False, False, True]
    trials = [study.ask(SPACE) for _ in range(2)]
    assert trials[0].params != trials[1].params


def test_enqueued_parameters_are_respected_and_not_suggested_to_others():
    sampler = new_sampler(candidates=0)
    best = suggest(new_study(sampler).ask())
    study = new_study(sampler)
    study.enqueue_trial(best)
    study.enqueue_trial({"rate": 0.0123, "depth": 5})
    enqueued = study.get_trials(states=(TrialState.WAITING,))
    assert len(enqueued) == 2
    # One that is not taken from the queue, while the queue holds the best.
    elsewhere = study._storage.create_new_trial(study._study_id)
    assert suggest(optuna.Trial(study, elsewhere)) != best
    assert suggest(study.ask()) == best


def test_the_rest_of_a_partly_enqueued_trial_is_suggested_for_it():
    study = new_study(new_sampler())
    study.enqueue_trial({"optimizer": "sgd", "depth": 9})
    trial = study.ask()
    config = suggest(trial)
    assert (config["optimizer"], config["depth"]) == ("sgd", 9)
    assert abs(np.log10(config["rate"]) / 4 + 1 - 0.54) < 0.17


def test_a_diverged_trial_is_pruned_and_not_tried_again():
    study = new_study(new_sampler(candidates=0, resume=True))
    trial = study.ask()
    config = suggest(trial)
    assert not trial.should_prune()  # nothing reported
    trial.report(float("nan"), 0)
    assert trial.should_prune()
    study.tell(trial, state=TrialState.PRUNED)
    assert suggest(study.ask()) != config


def test_values_that_a_retried_trial_inherits_count_once():
    sampler = new_sampler(candidates=0)
    study = new_study(sampler)
    add(study, ONE, [0.1, 0.2], state=TrialState.FAIL)
    retry = optuna.storages.RetryFailedTrialCallback(inherit_intermediate_values=True)
    retry(study, study.trials[0])
    trial = study.ask()
    assert suggest(trial) == ONE
    assert trial._get_latest_trial().intermediate_values == {0: 0.1, 1: 0.2}
    observed = sampler._state(study, study.trials[1]).observed
    scores = np.arcsin(np.sqrt([0.1, 0.2])).tolist()
    assert observed == [(0, 0, scores[0]), (0, 1, scores[1])]


def test_a_failed_trial_is_not_tried_again():
    study = new_study(new_sampler(candidates=0))
    trial = study.ask()
    config = suggest(trial)
    study.tell(trial, state=TrialState.FAIL)
    assert suggest(study.ask()) != config


def test_steps_that_the_sources_do_not_have_change_nothing():
    worst = past_configs()[int(np.argmin(sources().scores[:, :, -1].sum(0)))]
    sampler = new_sampler(first_step=1)
    study = new_study(sampler, pruner=AMTPruner(sampler, keep_best=False))
    study.enqueue_trial(worst)
    trial = study.ask()
    suggest(trial)
    trial.report(0.01, 0)  # before the first
    with pytest.warns(UserWarning, match=r"reports steps \(0 \.\.\.\) of which"):
        assert not trial.should_prune()
    trial.report(0.01, 1)
    assert trial.should_prune()
    for step in (EPOCHS, EPOCHS + 1):  # the last, and after it
        trial.report(0.01, step)
        assert not trial.should_prune()


def test_values_in_another_unit_are_warned_of_once():
    sampler = new_sampler()
    study = new_study(sampler)
    add(study, ONE, [85.0, 90.0], state=TrialState.PRUNED)
    with pytest.warns(UserWarning, match="a value of study .* is 85, where those of"):
        sampler._state(study, study.trials[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        sampler._state(study, study.trials[0])


def test_past_studies_that_share_no_step_are_named(storage):
    for name, steps in {"x": (0, 1), "y": (1, 2), "far": (1000, 2000)}.items():
        add(study_in(storage, name), ONE, dict.fromkeys(steps, 0.5))
    with pytest.warns(UserWarning, match="study 'far' shares no step .* reports 1000, 2000") as w:
        assert sources_from_studies(storage).num_epochs == 5
    assert len(w) == 1


def test_every_configuration_tried_leaves_random_ones_with_a_warning():
    study = new_study(new_sampler(candidates=0))
    for config in past_configs():
        add(study, config, curve(config, NEW)[:2], state=TrialState.PRUNED)
    with pytest.warns(UserWarning, match="no configuration is left for trial 20"):
        suggest(study.ask())


def test_steps_of_their_own_are_put_together_as_fidelities(storage):
    """Each trial reports at other steps of 0 to 8000; the last value up to a fidelity counts."""
    rng, trials = np.random.default_rng(0), {}
    for name in ("x", "y"):
        study = study_in(storage, name)
        for number, params in enumerate((ONE, OTHER)):
            steps = np.sort(rng.choice(8000, 60, replace=False)).tolist()
            trials[name, number] = steps
            add(study, params, {step: step / 8000 for step in steps})
    with pytest.warns(UserWarning, match="trials report 2.. different steps, .* together as"):
        sources = sources_from_studies(storage)
    epochs = sources.epochs
    assert len(epochs) <= 100
    assert epochs[-1] == 1 + max(map(max, trials.values()))
    steps = np.array(trials["y", 1])
    previous = 0
    for epoch, score in zip(epochs, sources.scores[1, 1], strict=True):
        within = steps[(steps + 1 <= epoch) & (steps + 1 > previous)]
        expected = within.max() / 8000 if len(within) else np.nan
        assert_allclose(sources.outcome.inverse(score), expected)
        previous = epoch


def test_conditional_spaces_and_parameters_that_the_sources_do_not_have():
    curves = small_curves()
    sampler = AMTSampler(curves, fit=as_it_starts(curves))
    study = new_study(sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for i in range(6):
            if i == 0:
                study.enqueue_trial({"optimizer": "sgd"})
            trial = study.ask()
            optimizer = trial.suggest_categorical("optimizer", ["adam", "sgd"])
            trial.suggest_float("rate", 1e-4, 1.0, log=True)
            trial.suggest_int("depth", 1, 9)
            trial.suggest_float("extra", 0, 1)
            if optimizer == "sgd":
                trial.suggest_float("momentum", 0.0, 0.99)
            trial.report(0.5, 0)
            trial.should_prune()
            study.tell(trial, 0.5)
    state = sampler._state(study, study.trials[-1])
    assert len(state.observed) == 6  # all are placed


def test_the_distributions_of_the_objective_are_those_of_the_study():
    """Choices in another order and a new one, another range, whole numbers for real ones ..."""
    theirs = {
        "rate": FloatDistribution(0.3, 1.0),
        "depth": FloatDistribution(1.5, 20.0),
        "optimizer": CategoricalDistribution(["lion", "sgd", None, "adam"]),
        "dropout": CategoricalDistribution([0.5, 0.1]),
        "extra": IntDistribution(0, 3),
    }
    sampler = new_sampler()
    study = new_study(sampler)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for score in (0.2, 0.5, 0.1, 0.4):
            trial = study.ask(theirs)
            trial.report(score, 0)
            trial.should_prune()
            study.tell(trial, state=TrialState.PRUNED)
    state = sampler._state(study, study.trials[-1])
    assert len(state.observed) == 4
    fresh = sampler._fresh(state.known.space, study.trials[-1], {}).configs
    assert {config["optimizer"] for config in fresh} == {"lion", "sgd", "adam", None}
    assert {config["dropout"] for config in fresh} == {0.5, 0.1}
    assert all(0.3 <= config["rate"] <= 1 and config["depth"] >= 1.5 for config in fresh)
    lion, adam = ({**ONE, "optimizer": name} for name in ("lion", "adam"))
    features = sampler._features([lion, adam, {"depth": 9, "optimizer": "adam"}])
    columns = sampler._encode.columns
    other = [columns.index(f"optimizer={name}") for name in ("adam", "sgd")]
    assert_array_equal(features[:, other], [[0, 0], [1, 0], [1, 0]])
    assert_allclose(features[2, columns.index("rate")], 0.5)  # never suggested: the default


def test_the_space_of_a_study_is_known_before_its_first_trial():
    narrow = {**SPACE, "rate": FloatDistribution(0.3, 1.0, log=True)}
    new_study(new_sampler()).ask(narrow)  # without: the nearest value
    space = space_of_distributions(narrow)
    assert new_study(new_sampler(space=space)).ask(narrow).params["rate"] > 0.3
    # One that never suggests the others.
    sampler = new_sampler(space=space_of_distributions({"rate": RATE}))
    study = new_study(sampler)
    for _ in range(3):
        trial = study.ask({"rate": RATE})
        trial.report(0.3, 0)
        trial.should_prune()
        study.tell(trial, state=TrialState.PRUNED)
    assert len({t.params["rate"] for t in study.trials}) == 3
    assert len(sampler._state(study, study.trials[-1]).observed) == 3
    with pytest.raises(ValueError, match=r"space has width, the sources depth, .* none in common"):
        new_sampler(space=space_of_distributions({"width": DEPTH}))


def test_infeasible_trials_are_failures_to_the_model():
    sampler = new_sampler(constraints_func=lambda trial: (trial.params["depth"] - 6,))
    study = new_study(sampler)
    deep = [{**config, "depth": 9} for config in past_configs()[:6]]
    for config in deep:
        study.enqueue_trial(config)
    for _ in range(6):
        trial = study.ask(SPACE)
        for step in range(EPOCHS):
            trial.report(0.95, step)
        study.tell(trial, 0.95)
    state = sampler._state(study, study.trials[0])
    assert len(state.failed) == 6
    assert max(score for *_, score in state.observed) < np.arcsin(np.sqrt(0.3))
    trial = study.ask(SPACE)
    assert trial.params["depth"] <= 5
    trial.report(0.3, 0)
    assert not trial.should_prune()  # the best of what is feasible
    study.tell(trial, state=TrialState.PRUNED)
    trial = study.ask(SPACE)
    trial.set_constraint("memory", 1.0)
    trial.report(0.9, 0)
    study.tell(trial, 0.9)
    state = sampler._state(study, study.trials[0])
    assert len(state.failed) == 7


def test_a_study_that_reports_at_steps_of_its_own_is_binned():
    few = dataclasses.replace(sources(), epochs=np.array([1, 2, 4, 6, 8, 10]))
    sampler = AMTSampler(few, fit=as_it_starts(few, "task_regression"), candidates=CANDIDATES)
    study = new_study(sampler)

    def reached(steps, state=TrialState.RUNNING):
        values = dict.fromkeys(steps, 0.5)
        return sampler._reached(
            optuna.trial.FrozenTrial(
                **{"number": 0, "state": state, "value": None, "intermediate_values": values},
                **{"datetime_start": None, "datetime_complete": None, "params": {}},
                **{"distributions": {}, "user_attrs": {}, "system_attrs": {}, "trial_id": 0},
            )
        )

    assert reached([0, 1, 2]) == {0: 0, 1: 1}  # epoch 4 is still to come
    assert reached([0, 1, 2, 3]) == {0: 0, 1: 1, 2: 3}
    assert reached([0, 2]) == {0: 0, 2: 2}  # the next is beyond it
    assert reached([2]) == {2: 2}
    assert reached([0, 1, 2], TrialState.PRUNED) == {0: 0, 1: 1, 2: 2}
    assert reached([10, 11]) == {}
    trial = study.ask(SPACE)
    for step, decides in enumerate([True, True, False, True, *[False, True] * 2, *[False] * 2]):
        trial.report(0.01 if step else 0.02, step)
        assert trial.should_prune() <= decides
    study.tell(trial, state=TrialState.PRUNED)
    observed = sampler._state(study, study.trials[0]).observed
    assert [epoch for _, epoch, _ in observed] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "minimize"}, "is to minimize, but the metric of the sources is maximised"),
        ({"study_name": "a"}, "study 'a' is one of its own sources"),
        ({"direction": None, "directions": ["maximize"] * 2}, "multi-objective"),
    ],
)
def test_a_study_that_cannot_be_tuned_is_refused(options, message):
    study = new_study(new_sampler(), **options)
    with pytest.raises(ValueError, match=message):
        suggest(study.ask())


# Workers


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_two_workers_share_a_study_and_a_killed_one_loses_nothing(kind, tmp_path):
    def address(name):
        return f"sqlite:///{tmp_path}/{name}.db" if kind == "sqlite" else f"{tmp_path}/{name}.log"

    past, new = address("past"), address("new")
    record_different_configs(open_storage(past))
    optuna.create_study(study_name="new", storage=open_storage(new), direction="maximize")
    workers = [
        Script("tests.integrations.optuna_worker", [past, new, "new", *last])
        for last in (["6"], ["6", "3"])  # the second kills itself in its third trial
    ]
    statuses = [worker.wait() for worker in workers]
    assert statuses == [0, -9], [worker.errors for worker in workers]

    sampler = new_sampler()
    study = optuna.load_study(
        study_name="new", storage=open_storage(new), sampler=sampler, pruner=AMTPruner(sampler)
    )
    trials = study.trials
    assert [t.number for t in trials] == list(range(9))
    assert len({tuple(t.params.items()) for t in trials}) == 9, [t.params for t in trials]
    (lost,) = [t for t in trials if t.state == TrialState.RUNNING]
    assert lost.intermediate_values == {0: accuracy(lost.params, 1, NEW)}
    for t in trials:
        values = [accuracy(t.params, step + 1, NEW) for step in range(len(t.intermediate_values))]
        assert list(t.intermediate_values.values()) == values
        assert t.state != TrialState.COMPLETE or len(values) == EPOCHS
    # What the lost trial reported counts, and its configuration is not suggested again. Told to
    # have failed (Optuna's heartbeat does so), it is no longer pending.
    count = sum(len(t.intermediate_values) for t in trials)
    state = sampler._state(study, trials[0])
    assert len(state.observed) == count
    assert len(state.pending) == 1
    study.tell(lost.number, state=TrialState.FAIL)
    run(study, NEW, 6)
    assert not sampler._state(study, study.trials[0]).pending
    assert all(t.params != lost.params for t in study.trials[9:])
    assert all(t.state.is_finished() for t in study.trials)
    assert study.best_value > 0.9 * (1 - 0.5 * np.exp(-3)) - 0.03
