"""The tuner, one query at a time, and the same loop as one compiled scan."""

import dataclasses
import json
from functools import cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ConfigSpace import ConfigurationSpace, Constant, EqualsCondition, Float, Integer
from numpy.testing import assert_allclose, assert_array_equal

import amt
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP, fidelity_rank
from amt.gp.observations import Observations, TargetPosterior
from amt.gp.solvers import Kronecker, ObservedCurves
from amt.inference import Draws, Fit
from amt.kernels.task import AT2Task
from amt.parameters import stack
from amt.search.acquisition import log_expected_improvement, upper_confidence_bound
from amt.search.fitting import fit_sources, unfitted
from amt.search.rule import incumbent, recommend, suggest
from amt.search.simulate import simulate
from amt.search.tuner import ExhaustedError, Tuner
from tests.problems import RISE, peaked, small_configs, small_curves, small_space

CONFIGS, EPOCHS = 12, 6
EPOCH = [2, 4, 6, 8, 10, 12]
CELLS = [(c, e) for c in range(CONFIGS) for e in range(EPOCHS)]
BUDGET = 70  # above the 64 observations that a Tuner starts with room for
KERNELS = {
    "at2": {},
    "others": {"task": "icm", "config": "matern", "fidelity": "freeze_thaw"},
}


@cache
def curves():
    """Source tasks and a target, recorded after every other epoch."""
    every = small_curves(num_tasks=5, num_configs=CONFIGS, num_epochs=EPOCHS)
    every = amt.LearningCurves(
        configs=every.configs,
        space=every.space,
        tasks=every.tasks,
        scores=every.scores,
        epochs=EPOCH,
    )
    return every.split(every.tasks[:4], every.tasks[4])


FIT = {"steps": 60, "restarts": 2}


@cache
def fitted(name):
    """A fit to the sources, their grid, and the target's curves."""
    sources, target = curves()
    fit, grid = fit_sources(
        sources, jax.random.key(0), model="multi_task", kernels=KERNELS[name], **FIT
    )
    return fit, grid, jnp.asarray(target.scores[0])


@cache
def source_and_target(name, dtype="float64"):
    fit, grid, target = fitted(name)
    rank = fidelity_rank(fit.model, grid)
    model, grid, target = jax.tree.map(lambda a: a.astype(dtype), (fit.model, grid, target))
    return eqx.filter_jit(MultiTaskGP.source_posterior)(model, grid, rank=rank), target


@partial(jax.jit, static_argnames=("acquisition", "budget"))
def compiled(source, target, acquisition=upper_confidence_bound, budget=BUDGET):
    return simulate(source, target, acquisition=acquisition, budget=budget)


def new_tuner(name="at2", **options):
    """By default one that keeps to the grid."""
    options = {"continuous": False, "fit": fitted(name)[0]} | options
    return Tuner(curves()[0], jax.random.key(0), **options)


def assert_trajectories_equal(actual, expected):
    for name, a, e in zip(actual._fields[:4], actual, expected, strict=False):
        assert_array_equal(a, e, err_msg=name)
    jax.tree.map(partial(assert_allclose, rtol=1e-6), actual.forecast, expected.forecast)


@pytest.mark.parametrize("continuous", [False, True])
def test_draws_that_are_all_one_model_are_asked_as_the_model(continuous):
    fit, grid, target = fitted("at2")
    means = jax.jit(lambda: fit.model.log_likelihood(grid).means)()
    draws = Draws(stack([fit.model] * 2), stack([means] * 2), {})
    single, several = (new_tuner(fit=f, continuous=continuous) for f in (fit, draws))
    for query in range(4):
        trial = single.ask()
        assert several.ask() == trial
        score = float(target[query, 0])
        for tuner in (single, several):
            tuner.tell(trial.number, trial.epoch, score)
    one, two = single.posterior(), several.posterior()
    assert two.mean.shape == (2, *one.mean.shape)
    assert_allclose(two.mean[1], one.mean, rtol=1e-8)
    assert_allclose(two.variance[0], one.variance, rtol=1e-5)
    assert several.recommend() == single.recommend()


def test_inference_is_chosen_by_name():
    key = jax.random.key(0)
    options = {"model": "multi_task", "inference": "map", "steps": 4}
    by_map = Tuner(curves()[0], key, continuous=False, **options).fit
    direct, _ = fit_sources(curves()[0], key, **options)
    jax.tree.map(assert_array_equal, by_map, direct)
    with pytest.raises(ValueError, match="svi: give what fit_sources made of it as `fit`"):
        Tuner(curves()[0], key, model="multi_task", inference="svi")
    with pytest.raises(ValueError, match="a solver of your own: give what fit_sources made"):
        Tuner(curves()[0], key, solver=Kronecker())
    for make in (fit_sources, Tuner):
        with pytest.raises(KeyError, match="no inference 'x'; there are mle, map"):
            make(curves()[0], key, model="multi_task", inference="x")
        with pytest.raises(KeyError, match="no model 'x'; there are task_regression, multi_task"):
            make(curves()[0], key, model="x")
        with pytest.raises(ValueError, match="has model='multi_task' alone"):
            make(curves()[0], key, inference="map")
    with pytest.raises(ValueError, match="svgp has no choice of a solver"):
        fit_sources(curves()[0], key, model="multi_task", inference="svgp", solver=Kronecker())


@pytest.mark.parametrize(
    ("inference", "options"),
    [("svgp", {"num_inducing": 5, "passes": 1}), ("dense", {"steps": 2})],
)
def test_a_tuner_takes_the_fit_of_any_inference(inference, options, tmp_path):
    """Its posterior is that of the fit, with trials under way and off the grid; and it resumes."""
    sources, _ = curves()
    kernels = KERNELS["others"]
    fit, grid = fit_sources(
        sources,
        jax.random.key(0),
        model="multi_task",
        inference=inference,
        kernels=kernels,
        **options,
    )
    path = tmp_path / "state.npz"
    tuner = new_tuner(fit=fit, continuous=True, state=path)
    added = tuner.add({"rate": 0.01, "depth": 5, "optimizer": "adam"})
    entries = [(3, 0, 0.5), (added, 1, 0.7), (3, 2, 0.65)]
    for config, epoch, score in entries:
        tuner.tell(config, EPOCH[epoch], score)
    observations = Observations.of(entries, 3, jnp.dtype(jnp.float64))
    features = jnp.asarray(amt.Encoder(sources.space)(tuner.configs[CONFIGS:]))
    conditioned = eqx.filter_jit(lambda: fit.posterior(grid).condition(observations, features))()
    assert_allclose(tuner.posterior().mean, conditioned.mean, rtol=1e-7)
    assert_allclose(tuner.posterior().variance, conditioned.variance, rtol=1e-5, atol=1e-9)
    first, second = tuner.ask(), tuner.ask()
    assert first.config != second.config
    again = Tuner.resume(path, sources, fit=fit)
    assert again.pending == (first, second)
    assert again.ask() == tuner.ask()
    assert again.recommend() == tuner.recommend()


def test_an_acquisition_function_by_name_is_that_function():
    tuner, named = (new_tuner(acquisition=a) for a in (log_expected_improvement, "log_ei"))
    assert tuner.ask() == named.ask() != new_tuner(acquisition=mean_only).ask()
    with pytest.raises(KeyError, match="no acquisition function 'x'; there are ucb"):
        new_tuner(acquisition="x")


# The loop inside out


@pytest.mark.parametrize("acquisition", [upper_confidence_bound, log_expected_improvement])
@pytest.mark.parametrize("name", KERNELS)
def test_tuner_and_simulation_do_the_same(name, acquisition):
    source, target = source_and_target(name)
    tuner = new_tuner(name, acquisition=acquisition)
    queries = []
    for _ in range(BUDGET):
        config, chosen, epoch, reached = tuner.ask()
        assert chosen == tuner.configs[config]
        position = EPOCH.index(epoch)
        assert reached == ([0, *EPOCH])[position]
        score = float(target[config, position])
        tuner.tell(config, epoch, score)
        queries.append((config, position, score, tuner.recommend()))
    trajectory = compiled(source, target, acquisition)
    expected = amt.Trajectory(*zip(*queries, strict=True))
    assert_trajectories_equal(trajectory._replace(forecast=None), expected)
    # One epoch after another of each configuration, none twice.
    cells = list(zip(*trajectory[:2], strict=True))
    assert len(set(map(tuple, np.array(cells).tolist()))) == BUDGET
    for config in range(CONFIGS):
        epochs = trajectory.epoch[trajectory.config == config]
        assert_array_equal(epochs, np.arange(len(epochs)))
    assert len(set(trajectory.config[:20].tolist())) > 1
    # Nearly everything is known at the end: the recommendation is about the best.
    best = target.max(1)
    assert best[trajectory.recommended[-1]] > best.max() - 0.05


def test_a_tuner_fits_the_sources_itself():
    sources, _ = curves()
    options = {"model": "multi_task", "kernels": KERNELS["others"], **FIT}
    tuner = Tuner(sources, jax.random.key(0), **options)
    values = tuner.fit.log_likelihood
    assert_array_equal(values, fitted("others")[0].log_likelihood)
    assert values.shape == (2, 60)
    assert values[0, 0] != values[1, 0]  # the key varies the starts
    assert (values[:, -1] > values[:, 0]).all()
    assert tuner.configs == sources.configs
    assert isinstance(tuner.fit.model.task, amt.KERNELS["task"]["icm"])


def test_the_order_of_telling_does_not_matter():
    _, target = source_and_target("at2")
    cells = [CELLS[i] for i in np.random.default_rng(0).permutation(len(CELLS))[:30]]
    one, other = new_tuner(), new_tuner()
    for config, epoch in cells:
        one.tell(config, EPOCH[epoch], float(target[config, epoch]))
    for config, epoch in sorted(cells):
        other.tell(config, EPOCH[epoch], float(target[config, epoch]))
    for a, b in zip(one.posterior()[:2], other.posterior()[:2], strict=True):
        assert_allclose(a, b, atol=1e-9)
    assert one.recommend() == other.recommend()
    trial = one.ask()
    assert trial == other.ask()
    position = EPOCH.index(trial.epoch)
    told = [e for config, e in cells if config == trial.number]
    assert position == max(told, default=-1) + 1  # training goes on behind the last one told
    assert trial.reached == ([0, *EPOCH])[position]


def test_what_is_told_shows_in_the_posterior():
    tuner = new_tuner()
    before = tuner.posterior()
    for epoch in EPOCH:
        tuner.tell(4, epoch, 2.0)  # far better than any source
    after = tuner.posterior()
    assert after.mean[4, -1] > before.mean[4, -1] + 0.3
    assert after.variance[4, -1] < before.variance[4, -1]
    assert tuner.recommend() == 4


def test_the_only_epochs_left_are_asked_for_and_then_it_stops():
    _, target = source_and_target("at2")
    tuner = new_tuner()
    for config, epoch in CELLS:
        if (config, epoch) not in ((5, 4), (5, 5), (7, 2)):
            tuner.tell(config, EPOCH[epoch], float(target[config, epoch]))
    for epoch in (10, 12):
        assert tuner.ask() == (5, tuner.configs[5], epoch, epoch - 2)
        with pytest.raises(RuntimeError, match="is under way"):
            tuner.ask()
        tuner.tell(5, epoch, 0.5)
    with pytest.raises(ExhaustedError, match="every configuration has been trained"):
        tuner.ask()
    assert 0 <= tuner.recommend() < CONFIGS


@pytest.mark.parametrize(
    ("config", "epoch", "score", "message"),
    [
        (-1, 2, 0.5, "configuration -1, epoch 2 is not on the grid of configurations 0 to 11"),
        (CONFIGS, 2, 0.5, "configuration 12, epoch 2 is not on the grid"),
        (0, 0, 0.5, "epoch 0 is not on the grid .* epochs 2 to 12"),
        (0, 3, 0.5, "configuration 0, epoch 3 is not on the grid"),
        (0, 14, 0.5, "configuration 0, epoch 14 is not on the grid"),
        (0, 2, np.nan, "score of configuration 0, epoch 2 is nan"),
        (0, 2, np.inf, "score of configuration 0, epoch 2 is inf"),
        (2, 6, 0.5, "score of configuration 2, epoch 6 was told before"),
    ],
)
def test_telling_nonsense_is_refused_and_changes_nothing(config, epoch, score, message):
    tuner = new_tuner()
    tuner.tell(2, 6, 0.6)
    before = tuner.pending, tuner.posterior()
    with pytest.raises(ValueError, match=message):
        tuner.tell(config, epoch, score)
    assert tuner.pending == before[0]
    assert_array_equal(tuner.posterior().mean, before[1].mean)


def indefinite_tuner(psd):
    """Told scores on which two sources agree that are far apart elsewhere."""
    sources, _ = curves()
    scores = np.array(sources.scores)
    scores[1] = scores[0]
    scores[1, 4:] += np.linspace(-2, 2, 8)[:, None]
    sources = amt.LearningCurves(
        configs=sources.configs,
        space=sources.space,
        tasks=sources.tasks,
        scores=scores,
        epochs=EPOCH,
    )
    task = AT2Task.init(scores, jax.random.key(0), jnp.float64)
    task = dataclasses.replace(task, lengthscale=jnp.full((), 0.1), psd=psd)
    model = eqx.tree_at(
        lambda m: m.task, fitted("at2")[0].model, task, is_leaf=lambda n: isinstance(n, AT2Task)
    )
    nothing = jnp.zeros((1, 1))
    fit = Fit(model, nothing, nothing, jnp.ones(1, bool), jnp.zeros((), int), Kronecker())
    tuner = Tuner(sources, jax.random.key(0), fit=fit, continuous=False)
    for config in range(4):
        tuner.tell(config, 2, float(scores[0, config, 0]))
    return tuner


def test_an_indefinite_kernel_is_an_error_however_often_one_asks():
    tuner = indefinite_tuner(None)
    for use in (tuner.ask, tuner.ask, tuner.recommend, tuner.posterior):
        with pytest.raises(FloatingPointError, match="psd='project'"):
            use()


def test_the_projected_kernel_is_fine_there():
    tuner = indefinite_tuner("project")
    assert np.isfinite(tuner.posterior().mean).all()
    assert tuner.ask().number in range(CONFIGS)


# Several at once


def test_trials_under_way_are_not_asked_for_again_and_lower_the_variance():
    tuner = new_tuner()
    tuner.tell(3, 2, 0.5)
    trials = [tuner.ask() for _ in range(CONFIGS)]
    assert sorted(t.number for t in trials) == list(range(CONFIGS))
    assert tuner.pending == tuple(trials)
    with pytest.raises(RuntimeError, match="under way"):
        tuner.ask()
    # Asked in turn, each is the best given that those before it are as expected.
    reference = new_tuner()
    reference.tell(3, 2, 0.5)
    source, _ = source_and_target("at2")
    mean = reference.posterior().mean
    told = Observations.empty(64, jnp.dtype(jnp.float64)).append(3, 0, 0.5)
    remaining = np.ones((CONFIGS, EPOCHS), bool)
    remaining[3, 0] = False
    for trial in trials[:4]:
        before = pending(trials[: trials.index(trial)])
        posterior = eqx.filter_jit(source.condition)(told, pending=before)
        assert_allclose(posterior.mean, mean, atol=1e-9)
        query = suggest(posterior, told, jnp.asarray(remaining), upper_confidence_bound)
        assert (trial.number, EPOCH.index(trial.epoch)) == (query.config, query.epoch)
        remaining[trial.number] = False


def pending(trials):
    observations = Observations.empty(16, jnp.dtype(jnp.float64))
    for trial in trials:
        observations = observations.append(trial.number, EPOCH.index(trial.epoch), 0.0)
    return observations


def test_scores_of_a_trial_under_way_end_it_once_they_reach_the_epoch_asked_for():
    tuner = new_tuner()
    tuner.tell(0, 2, 0.5)
    trial = next(t for t in iter(tuner.ask, None) if t.number == 0)
    assert trial == (0, tuner.configs[0], 4, 2)
    others = [t for t in tuner.pending if t.number]
    tuner.tell(0, 6, 0.6)  # further than asked for
    assert list(tuner.pending) == others
    tuner.tell(0, 4, 0.55)  # and what came before, late
    asked = next(t for t in iter(tuner.ask, None) if t.number == 0)
    assert asked[2:] == (8, 6)


def test_what_failed_is_neither_asked_for_nor_recommended_and_what_is_stopped_only_not_asked_for():
    tuner = new_tuner("others")
    for number in range(CONFIGS):
        for epoch in EPOCH[:3]:
            tuner.tell(number, epoch, {4: 0.9, 6: 1.0}.get(number, 0.3))
    best = tuner.ask().number
    assert tuner.recommend() == best
    tuner.fail(best)
    assert not tuner.pending
    second = tuner.ask().number
    assert {best, second} == {4, 6}
    assert tuner.recommend() == second
    tuner.stop(second)
    assert not tuner.pending
    assert tuner.recommend() == second
    asked = [tuner.ask().number for _ in range(CONFIGS - 2)]
    assert sorted([*asked, 4, 6]) == list(range(CONFIGS))
    for give_up in (tuner.fail, tuner.stop):
        with pytest.raises(ValueError, match="configurations 0 to 11, not 12"):
            give_up(CONFIGS)


# Off the grid


def test_incomplete_sources_and_a_search_off_their_grid(tmp_path):
    """Each task has its own half of the configurations, and half of its curves are stopped."""
    every = amt.LearningCurves(
        configs=small_configs(24),
        space=small_space(),
        tasks="ab",
        scores=np.array([[peaked(c) * RISE for c in small_configs(24)]] * 2),
        epochs=EPOCH,
    )
    scores = every.scores.copy()
    scores[0, ::2] = scores[1, 1::2] = scores[:, :8, 3:] = np.nan
    sources = dataclasses.replace(every, scores=scores)
    state = tmp_path / "state.npz"
    kernels = {"config": "matern", "task": "icm", "noise": "task", "nugget": True}
    options = {"model": "multi_task", "kernels": kernels, "state": state, **FIT}
    tuner = Tuner(sources, jax.random.key(0), **options)
    for _ in range(16):
        tuner.ask()
        trial = tuner.ask()
        assert trial.config not in [other.config for other in tuner.pending[:-1]]
        for trial in tuner.pending:
            tuner.tell(trial.number, trial.epoch, peaked(trial.config) * RISE[trial.epoch // 2 - 1])
    # The solver is none of the file's arrays: it is selected anew.
    assert isinstance(tuner.fit.solver, ObservedCurves)
    with np.load(state) as file:
        count = sum(name.startswith("fit") for name in file.files)
    assert count == len(jax.tree.leaves(tuner.fit.model)) + 4
    again = Tuner.resume(state, sources)
    jax.tree.map(assert_array_equal, again.fit.solver, tuner.fit.solver)
    best = tuner.recommend()
    assert again.recommend() == best >= 24
    assert_array_equal(again.posterior().mean, tuner.posterior().mean)
    assert peaked(tuner.configs[best]) > max(map(peaked, sources.configs))


def test_a_configuration_of_ones_own():
    tuner = new_tuner("others")
    before = tuner.posterior()
    assert tuner.add(tuner.configs[7]) == 7
    config = {"rate": 0.01, "depth": 5, "optimizer": "adam"}
    assert tuner.add(config) == CONFIGS == tuner.add(config)
    assert tuner.configs[CONFIGS] == config
    assert_allclose(tuner.posterior().mean[:-1], before.mean, atol=1e-10)
    for epoch in EPOCH[:3]:
        tuner.tell(CONFIGS, epoch, 1.0)
        for number in range(CONFIGS):
            tuner.tell(number, epoch, 0.3)
    assert tuner.ask() == (CONFIGS, config, 8, 6)
    assert tuner.recommend() == CONFIGS
    with pytest.raises(ValueError, match="is not legal"):
        tuner.add({**config, "depth": 10})


def narrow_space(rate=(1e-3, 0.1), depth=(2, 9)):
    space = ConfigurationSpace()
    optimizer = Constant("optimizer", "sgd")
    rate, momentum = Float("rate", rate, log=True), Float("momentum", (0.5, 0.9))
    space.add([optimizer, rate, Integer("depth", depth), momentum])
    return space


def test_a_narrower_space():
    tuner = new_tuner(space=narrow_space(), continuous=True)
    trials = [tuner.ask() for _ in range(8)]
    for trial in trials:
        assert trial.config["optimizer"] == "sgd"
        assert 1e-3 <= trial.config["rate"] <= 0.1
        assert 0.5 <= trial.config["momentum"] <= 0.9
    assert any(trial.number >= CONFIGS for trial in trials)
    for epoch in EPOCH:
        tuner.tell(0, epoch, 3.0)  # an adam
    assert tuner.configs[tuner.recommend()]["optimizer"] == "sgd"


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (narrow_space(rate=(1e-5, 0.1)), "'rate': 1e-05 is not in the sources' space"),
        (narrow_space(depth=(1, 12)), "'depth': 12 is not in"),
        (ConfigurationSpace({"rate": (1e-3, 0.1)}), "do not both have depth, momentum, optimizer"),
    ],
)
def test_a_wider_space_is_refused(space, message):
    with pytest.raises(ValueError, match=message):
        new_tuner(space=space)


# The state file


def run(tuner, trials, at_once=3):
    """Keep some trials under way, tell the oldest one first, and now and then something else."""
    for index in range(trials):
        while len(tuner.pending) < at_once:
            tuner.ask()
        trial = tuner.pending[0]
        if index % 7 == 5:
            tuner.fail(trial.number)
        else:
            tuner.tell(trial.number, trial.epoch, peaked(trial.config) + trial.epoch / 50)
        if index == 4:
            tuner.add({"rate": 0.02, "depth": 7, "optimizer": "adam"})
            tuner.stop(1)


@pytest.mark.parametrize("continuous", [False, True])
def test_a_tuner_made_anew_after_every_step_does_the_same(tmp_path, continuous):
    whole = new_tuner(continuous=continuous)
    run(whole, 14)
    path = tmp_path / "state.npz"
    new_tuner(continuous=continuous, state=path)
    for index in range(14):
        tuner = Tuner.resume(path, curves()[0], fit=fitted("at2")[0])
        while len(tuner.pending) < 3:
            tuner.ask()
            tuner = Tuner.resume(path, curves()[0], fit=fitted("at2")[0])
        trial = tuner.pending[0]
        if index % 7 == 5:
            tuner.fail(trial.number)
        else:
            tuner.tell(trial.number, trial.epoch, peaked(trial.config) + trial.epoch / 50)
        if index == 4:
            tuner.add({"rate": 0.02, "depth": 7, "optimizer": "adam"})
            tuner.stop(1)
    assert tuner.configs == whole.configs
    assert tuner.pending == whole.pending
    assert_array_equal(tuner.posterior().mean, whole.posterior().mean)
    assert tuner.recommend() == whole.recommend()
    assert [file.name for file in tmp_path.iterdir()] == ["state.npz"]


def test_a_fitted_model_is_read_from_the_file(tmp_path, monkeypatch):
    sources, _ = curves()
    path = tmp_path / "state.npz"
    acquisition = partial(upper_confidence_bound, beta=0.5)
    options = {
        "model": "multi_task",
        "kernels": KERNELS["others"],
        "acquisition": acquisition,
        "state": path,
        **FIT,
    }
    first = Tuner(sources, jax.random.key(3), **options)
    trial = first.ask()
    first.tell(trial.number, trial.epoch, 0.7)
    monkeypatch.setattr("amt.search.tuner.fit_sources", None)
    for again in (
        Tuner(sources, jax.random.key(3), **options),
        Tuner.resume(path, sources),
    ):
        for ours, theirs in zip(
            jax.tree.leaves(again.fit), jax.tree.leaves(first.fit), strict=True
        ):
            assert_array_equal(ours, theirs)
        assert_array_equal(again.posterior().mean, first.posterior().mean)
    assert again.ask() == first.ask()


def test_a_file_of_an_earlier_version_is_gone_on_from(tmp_path):
    """Acquisition functions were named by their module, `amt.acquisition` at first."""
    path, old = tmp_path / "state.npz", tmp_path / "old.npz"
    tuner = new_tuner(state=path, acquisition=partial(upper_confidence_bound, beta=0.5))
    tuner.tell(0, 2, 0.5)
    with np.load(path) as file:
        content = dict(file)
    settings = json.loads(str(content["settings"]))
    assert settings["acquisition"] == ["ucb", {"beta": 0.5}]
    settings["acquisition"][0] = "amt.acquisition.upper_confidence_bound"
    np.savez(old, **{**content, "settings": np.array(json.dumps(settings))})
    again = Tuner.resume(old, curves()[0], fit=fitted("at2")[0])
    assert again.ask() == tuner.ask()
    assert old.read_bytes() == path.read_bytes()


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "state.npz"
    tuner = new_tuner(state=path)
    tuner.tell(0, 2, 0.5)
    content = path.read_bytes()
    sources, _ = curves()
    fit = fitted("at2")[0]
    with pytest.raises(ValueError, match="other sources"):
        Tuner.resume(path, sources.select(tasks=sources.tasks[:3]), fit=fit)
    with pytest.raises(ValueError, match="other key, acquisition, continuous"):
        Tuner(
            sources,
            jax.random.key(1),
            fit=fit,
            state=path,
            acquisition=partial(upper_confidence_bound, beta=1),
        )
    with pytest.raises(ValueError, match="other fit"):
        Tuner.resume(path, sources)
    unknown = tmp_path / "unknown.npz"
    new_tuner(state=unknown, acquisition=mean_only).tell(0, 2, 0.5)
    with pytest.raises(ValueError, match=r"acquisition function .*mean_only: give it"):
        Tuner.resume(unknown, sources, fit=fit)
    assert Tuner.resume(unknown, sources, fit=fit, acquisition=mean_only).posterior()
    assert path.read_bytes() == content
    for broken in (b"", content[:-100], b"not a zip file"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="is not the state of a tuner"):
            Tuner.resume(path, sources)
    np.savez(path, other=np.zeros(2))
    with pytest.raises(ValueError, match="is not the state of a tuner"):
        new_tuner(state=path)
    with pytest.raises(FileNotFoundError):
        Tuner.resume(tmp_path / "nothing.npz", sources)


def mean_only(posterior, remaining, best):
    return jnp.where(remaining, posterior.mean, -jnp.inf).max(1)


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "state.npz"
    tuner = new_tuner(state=path)
    tuner.tell(0, 2, 0.5)
    content = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        tuner.tell(1, 2, 0.5)
    assert path.read_bytes() == content


# Simulations


def test_simulations_side_by_side_are_as_each_alone():
    source, target = source_and_target("at2")
    targets = jnp.stack([target, 1 - target, target[::-1]])
    together = jax.jit(jax.vmap(lambda t: simulate(source, t, budget=BUDGET)))(targets)
    for index in range(3):
        alone = compiled(source, targets[index])
        assert_trajectories_equal(jax.tree.map(lambda a, i=index: a[i], together), alone)
    assert (together.config[0] != together.config[1]).any()


@pytest.fixture
def incomplete():
    """A target with configuration 2 missing after epoch 3 (even if there is more), and 4 wholly."""
    source, target = source_and_target("at2")
    target = target.at[2, 3].set(jnp.nan).at[4].set(jnp.nan)
    reachable = len(CELLS) - (EPOCHS - 3) - EPOCHS
    return compiled(source, target), reachable


def test_a_missing_score_ends_the_curve(incomplete):
    trajectory, reachable = incomplete
    assert np.isfinite(trajectory.score[:reachable]).all()
    assert np.isnan(trajectory.score[reachable:]).all()
    trained = set(zip(*(a[:reachable].tolist() for a in trajectory[:2]), strict=True))
    expected = {(c, e) for c, e in CELLS if c != 4 and (c, e) not in ((2, 3), (2, 4), (2, 5))}
    assert trained == expected


def test_the_recommendation_stays_when_there_is_nothing_left_to_train(incomplete):
    trajectory, reachable = incomplete
    last = trajectory.recommended[reachable - 1]
    assert_array_equal(trajectory.recommended[reachable:], np.full(BUDGET - reachable, last))


@pytest.mark.parametrize("name", KERNELS)
def test_float32_simulation_is_finite(name):
    source, target = source_and_target(name, "float32")
    trajectory = compiled(source, target)
    assert trajectory.score.dtype == jnp.float32
    assert np.isfinite(trajectory.score).all()
    cells = set(zip(trajectory.config.tolist(), trajectory.epoch.tolist(), strict=True))
    assert len(cells) == BUDGET
    best = target.max(1)
    assert best[trajectory.recommended[-1]] > best.max() - 0.05


# Parts of the loop


def grid_posterior():
    mean = jnp.array([[0.1, 0.9, 0.2], [0.5, 0.6, 0.7], [0.0, 0.1, 0.3]])
    return TargetPosterior(mean, jnp.full((3, 3), 0.01))


def test_the_incumbent_is_the_best_score_or_else_the_largest_mean_at_the_end():
    observations = Observations.empty(4, jnp.float64)
    assert incumbent(observations, grid_posterior()) == 0.7
    observations = observations.append(0, 0, -5.0).append(1, 1, -3.0)
    assert incumbent(observations, grid_posterior()) == -3.0


def test_the_query_is_the_first_remaining_epoch_of_the_best_configuration():
    remaining = jnp.array([[False, False, True], [False, True, True], [True, True, True]])
    observations = Observations.empty(4, jnp.float64)
    args = observations, remaining, upper_confidence_bound
    assert suggest(grid_posterior(), *args) == (1, 1)
    finished = remaining.at[1].set(False)
    assert suggest(grid_posterior(), observations, finished, upper_confidence_bound) == (2, 0)


def test_the_recommendation_has_the_largest_mean_at_any_epoch():
    assert recommend(grid_posterior()) == 0


def test_the_rank_of_the_fidelity_kernel():
    sources, _ = curves()
    grid = CurveGrid.of(sources)
    model = MultiTaskGP.init(sources, jax.random.key(0))
    gram = np.asarray(model.fidelity(grid.epochs, grid.epochs))
    rank = np.linalg.matrix_rank(gram, tol=EPOCHS * 2e-16 * np.linalg.eigvalsh(gram)[-1])
    assert fidelity_rank(model, grid, multiple=1) == rank
    assert fidelity_rank(model, grid, multiple=5) == min(5 * -(-rank // 5), EPOCHS)
    flat = eqx.tree_at(lambda m: m.fidelity.a, model, jnp.asarray(1e-12))
    low = fidelity_rank(flat, grid, multiple=1)
    assert fidelity_rank(flat, grid, multiple=4) == 4 >= low
    both = fidelity_rank(stack([flat, model]), stack([grid, grid]), multiple=1)
    assert both == max(low, rank)


def test_an_inactive_conditional_constant_does_not_make_a_configuration_illegal():
    space = ConfigurationSpace({"kind": ["a", "b"], "x": (0.0, 1.0)})
    only_of_a = Constant("only_of_a", 3)
    space.add(only_of_a)
    space.add(EqualsCondition(only_of_a, space["kind"], "a"))
    rng = np.random.default_rng(0)
    configs = [{"kind": "ab"[i % 2], "x": float(x)} for i, x in enumerate(rng.uniform(size=6))]
    scores = rng.uniform(size=(2, 6, 3))
    sources = amt.LearningCurves(configs=configs, space=space, tasks=["s", "t"], scores=scores)
    fit = unfitted(sources, jax.random.key(0), kernels={"config": "matern"})
    tuner = Tuner(sources, jax.random.key(0), space=space, fit=fit)
    tuner.add({"kind": "b", "x": 0.5})
    assert tuner.configs[6] == {"kind": "b", "x": 0.5}
    tuner.ask()
