"""The task kernel of AT2 against the reference implementation, and its formula written out."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amt.databases.published import hyperrec, lcbench
from amt.kernels import AT2Task, task_distances
from tests.kernels.task.problems import (
    MISSING,
    ONE_TASK,
    SEEDS,
    SHAPE,
    assert_psd,
    evaluate,
    gram_of,
    joined_kernel,
    kernel_of,
    observations,
    random_scores,
)

GOLDEN = json.loads((Path(__file__).parents[2] / "data/at2_reference_kernels.json").read_text())
DATABASES = {"HyperRec": hyperrec, "LCBench": lcbench}
# The smallest and the largest eigenvalue of the published Gram matrices.
SPECTRA = {"HyperRec": (-0.017, 6.2), "LCBench": (-0.17, 5.7)}


def golden_pairs(golden, what):
    """Values of pairs of tasks as a matrix, in the order of `task_order`."""
    names = list(golden["task_order"])
    pairs = golden[what]
    return np.array([[pairs.get(f"{a}|{b}", pairs.get(f"{b}|{a}")) for b in names] for a in names])


def golden_tasks(golden):
    """Position in `task_order` of the task of each point."""
    order = list(golden["task_order"].values())
    column = golden["feature_names"].index("task")
    return np.array([order.index(int(point[column])) for point in golden["points"]])


def golden_kernel(golden, **fields):
    params = golden["params"]["task"]
    return AT2Task(
        scale=np.asarray(params["outputscale"]),
        lengthscale=np.asarray(params["lengthscale"]),
        U=np.asarray(params["U"]),
        **fields,
    )


def golden_overlap(golden):
    """The share r of the grid, from the reference's g = U / (1 + (U - 1) r)."""
    U = golden["params"]["task"]["U"]
    return np.asarray((U / golden_pairs(golden, "task_gammas") - 1) / (U - 1))


def full_golden(golden, folder, name, psd=None):
    """The kernel of the real source curves, joined by the target's observations."""
    curves = DATABASES[name](folder).repeat(golden["profile"])
    sources, target = curves.split(golden["source_tasks"], golden["target_task"])
    distance, overlap = task_distances(sources.scores)
    kernel = golden_kernel(golden, distance=distance, overlap=overlap, psd=psd)
    revealed = np.array(golden["revealed_target_observations"]).T
    config, epoch = (np.pad(index, (0, 6)) for index in revealed)
    score = target.scores[0, config, epoch]
    source = sources.scores[:, config, epoch].T
    seen = observations(score, source, np.arange(20) < 14, 1 / target.scores.size)
    return jax.device_get(joined_kernel(kernel, seen))


@pytest.mark.parametrize("name", GOLDEN)
def test_at2_equals_the_reference(name):
    golden = GOLDEN[name]
    distance = golden_pairs(golden, "task_distances")
    overlap = golden_overlap(golden)
    kernel = golden_kernel(golden, distance=distance, overlap=overlap, psd=None)
    tasks = golden_tasks(golden)
    np.testing.assert_allclose(evaluate(kernel, tasks), golden["K_task"], rtol=1e-10)


@pytest.mark.parametrize("name", GOLDEN)
def test_at2_from_the_learning_curves_equals_the_reference(name, at2_folder):
    golden = GOLDEN[name]
    joined = full_golden(golden, at2_folder, name)
    # The reference has scores in float32.
    np.testing.assert_allclose(
        joined.distance, golden_pairs(golden, "task_distances"), rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(joined.overlap, golden_overlap(golden), atol=1e-12)
    tasks = golden_tasks(golden)
    np.testing.assert_allclose(evaluate(joined, tasks), golden["K_task"], atol=1e-6)


def assert_two_digits(actual, expected):
    assert [float(f"{a:.2g}") for a in actual] == list(expected)


@pytest.mark.parametrize("name", GOLDEN)
def test_at2_is_indefinite_as_published_and_projected_by_default(name):
    golden = GOLDEN[name]
    fields = {
        "distance": golden_pairs(golden, "task_distances"),
        "overlap": golden_overlap(golden),
    }
    published = np.asarray(gram_of(golden_kernel(golden, **fields, psd=None)))
    values = np.linalg.eigvalsh(published)
    assert_two_digits(values[[0, -1]], SPECTRA[name])
    projected = np.asarray(gram_of(golden_kernel(golden, **fields)))
    assert_psd(projected)
    np.testing.assert_allclose(np.diagonal(projected), golden["params"]["task"]["outputscale"])
    # The diagonal is that of the published matrix, and nothing moves far.
    assert np.linalg.norm(projected - published) < 3 * abs(values[0])


@pytest.mark.parametrize("name", GOLDEN)
def test_projection_makes_the_joined_kernel_definite(name, at2_folder):
    golden = GOLDEN[name]
    published = gram_of(full_golden(golden, at2_folder, name))
    assert_two_digits(np.linalg.eigvalsh(published)[[0, -1]], SPECTRA[name])
    assert_psd(gram_of(full_golden(golden, at2_folder, name, psd="project")))


@given(shape=st.just(SHAPE), seed=SEEDS, missing=MISSING)
@example(shape=ONE_TASK, seed=0, missing=0.0)
@example(shape=ONE_TASK, seed=1, missing=0.4)
def test_at2_formula(shape, seed, missing):
    scores = random_scores(shape, seed, missing)
    kernel = jax.device_get(kernel_of("at2", scores, seed))
    expected = np.empty((len(scores), len(scores)))
    for t, a in enumerate(scores):
        for u, b in enumerate(scores):
            both = np.isfinite(a) & np.isfinite(b)
            d = np.var(a[both] - b[both]) if both.sum() > 1 else 0.5
            d = 0 if t == u else d
            g = kernel.U / (1 + (kernel.U - 1) * both.mean())
            expected[t, u] = kernel.scale * np.exp(-d / (kernel.lengthscale * g) ** 2)
    published = AT2Task(
        kernel.distance, kernel.overlap, kernel.scale, kernel.lengthscale, kernel.U, psd=None
    )
    tasks = np.arange(len(scores))
    np.testing.assert_allclose(evaluate(published, tasks), expected, rtol=1e-10)
    assert_psd(evaluate(kernel, tasks))
    if missing == 0:
        # The projection is as exact as its largest entries are.
        np.testing.assert_allclose(gram_of(kernel), expected, rtol=1e-8, atol=1e-14)


@given(shape=st.just(SHAPE), seed=SEEDS, missing=MISSING)
@example(shape=ONE_TASK, seed=0, missing=0.0)
@example(shape=ONE_TASK, seed=1, missing=0.4)
def test_at2_compares_a_target_as_it_compares_sources(shape, seed, missing):
    scores = random_scores((shape[0] + 1, *shape[1:]), seed, missing)
    *_, target = scores
    seen = observations(
        np.nan_to_num(target.ravel()),
        scores[:-1].reshape(shape[0], -1).T,
        np.isfinite(target.ravel()),
        1 / target.size,
    )
    joined = joined_kernel(kernel_of("at2", scores[:-1], seed), seen)
    distance, overlap = task_distances(scores)
    np.testing.assert_allclose(joined.distance, distance, atol=1e-12)
    np.testing.assert_allclose(joined.overlap, overlap, atol=1e-12)
