"""The tuner, one query at a time, and the same loop as one compiled scan."""

import dataclasses
from functools import cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import amt
from amt.acquisition import log_expected_improvement, upper_confidence_bound
from amt.gp.conditional import Observations, TargetPosterior
from amt.inference import Fit
from amt.kernels.task import AT2Task
from amt.model import CurveGrid, MultiTaskGP
from amt.simulate import simulate
from amt.tuner import Tuner, fidelity_rank, fit_sources, incumbent, recommend, stack, suggest
from tests.problems import small_curves

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
    fit, grid = fit_sources(sources, jax.random.key(0), kernels=KERNELS[name], **FIT)
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
    return Tuner(curves()[0], jax.random.key(0), fit=fitted(name)[0], **options)


def assert_trajectories_equal(actual, expected):
    for name, a, e in zip(actual._fields, actual, expected, strict=True):
        assert_array_equal(a, e, err_msg=name)


# The loop inside out


@pytest.mark.parametrize("acquisition", [upper_confidence_bound, log_expected_improvement])
@pytest.mark.parametrize("name", KERNELS)
def test_tuner_and_simulation_do_the_same(name, acquisition):
    source, target = source_and_target(name)
    tuner = new_tuner(name, acquisition=acquisition)
    queries = []
    for _ in range(BUDGET):
        config, epoch = tuner.ask()
        position = EPOCH.index(epoch)
        score = float(target[config, position])
        tuner.tell(config, epoch, score)
        queries.append((config, position, score, tuner.recommend()))
    trajectory = compiled(source, target, acquisition)
    assert_trajectories_equal(trajectory, amt.Trajectory(*zip(*queries, strict=True)))
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
    tuner = Tuner(sources, jax.random.key(0), kernels=KERNELS["others"], **FIT)
    values = tuner.fit.log_likelihood
    assert_array_equal(values, fitted("others")[0].log_likelihood)
    assert values.shape == (2, 60)
    assert values[0, 0] != values[1, 0]  # the key varies the starts
    assert (values[:, -1] > values[:, 0]).all()
    assert tuner.configs == sources.configs
    assert isinstance(tuner.fit.model.task, amt.KERNELS["task"]["icm"])


def test_asking_changes_nothing():
    tuner, other = new_tuner(), new_tuner()
    for config, epoch in ((3, 2), (3, 4), (0, 2)):
        first = tuner.ask(), tuner.recommend(), tuner.posterior()
        again = tuner.ask(), tuner.recommend(), tuner.posterior()
        assert first[:2] == again[:2]
        assert_array_equal(first[2].mean, again[2].mean)
        tuner.tell(config, epoch, 0.5)
        other.tell(config, epoch, 0.5)
    assert tuner.ask() == other.ask()
    assert_array_equal(tuner.posterior().mean, other.posterior().mean)


def test_the_order_of_telling_does_not_matter():
    _, target = source_and_target("at2")
    cells = [CELLS[i] for i in np.random.default_rng(0).permutation(len(CELLS))[:30]]
    one, other = new_tuner(), new_tuner()
    for config, epoch in cells:
        one.tell(config, EPOCH[epoch], float(target[config, epoch]))
    for config, epoch in sorted(cells):
        other.tell(config, EPOCH[epoch], float(target[config, epoch]))
    for a, b in zip(one.posterior(), other.posterior(), strict=True):
        assert_allclose(a, b, atol=1e-9)
    assert one.recommend() == other.recommend()
    config, epoch = one.ask()
    assert (config, epoch) == other.ask()
    position = EPOCH.index(epoch)
    assert (config, position) not in cells
    assert all((config, e) in cells for e in range(position))  # its first one not told


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
        if (config, epoch) not in ((5, 1), (5, 3)):
            tuner.tell(config, EPOCH[epoch], float(target[config, epoch]))
    for epoch in (4, 8):
        assert tuner.ask() == (5, epoch)
        tuner.tell(5, epoch, 0.5)
    with pytest.raises(StopIteration, match="every configuration has been trained"):
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
    before = tuner.ask(), tuner.posterior()
    with pytest.raises(ValueError, match=message):
        tuner.tell(config, epoch, score)
    assert tuner.ask() == before[0]
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
    fit = Fit(model, nothing, nothing, jnp.ones(1, bool), jnp.zeros((), int))
    tuner = Tuner(sources, jax.random.key(0), fit=fit)
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
    assert tuner.ask()[0] in range(CONFIGS)


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
