"""The sampler and pruner that learn from past studies."""

import dataclasses
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optuna
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

import amt
from amt.gp.grid import CurveGrid
from amt.gp.observations import Observations
from amt.integrations.optuna import (
    AMTPruner,
    AMTSampler,
    paused_trial,
    sources_from_studies,
    space_of_distributions,
)
from amt.space import Encoder
from tests.integrations.optuna_worker import (
    CANDIDATES,
    EPOCHS,
    accuracy,
    open_storage,
    run,
    suggest,
)
from tests.integrations.problems import (
    DEPTH,
    NEW,
    ONE,
    OTHER,
    RATE,
    SPACE,
    add,
    as_it_starts,
    curve,
    finish,
    new_sampler,
    new_study,
    past_configs,
    record_different_configs,
    sources,
    study_in,
)
from tests.problems import small_curves
from tests.processes import Script

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
