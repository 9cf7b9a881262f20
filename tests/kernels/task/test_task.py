"""Task kernels against the reference implementation, and against their formulas written out."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amt.databases.published import hyperrec, lcbench
from amt.kernels import (
    ICM,
    KERNELS,
    AT2Task,
    LatentTask,
    RankAgreement,
    TargetObservations,
    make_kernel,
    rank_distances,
    task_distances,
)
from amt.kernels.task import GivenGram
from amt.parameters import unconstrain
from amt.search.fitting import stack

GOLDEN = json.loads((Path(__file__).parents[2] / "data/at2_reference_kernels.json").read_text())
DATABASES = {"HyperRec": hyperrec, "LCBench": lcbench}
KEY = jax.random.key(0)
NAMES = list(KERNELS["task"])
gram_of = jax.jit(lambda kernel: kernel.gram())
join = jax.jit(lambda kernel, seen: kernel.with_target(seen).gram())
joined_kernel = jax.jit(lambda kernel, seen: kernel.with_target(seen))
SEEDS = st.integers(0, 2**31 - 1)
# Few shapes, as each compiles anew.
SHAPES = st.sampled_from([(1, 4, 3), (5, 4, 3)])


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


def golden_gram(golden):
    """The reference's values for each pair of tasks, from a pair of points."""
    tasks = golden_tasks(golden)
    first = [int(np.argmax(tasks == task)) for task in range(5)]
    return np.array(golden["K_task"])[np.ix_(first, first)]


def golden_kernel(golden, **fields):
    params = golden["params"]["task"]
    return AT2Task(
        scale=jnp.asarray(params["outputscale"]),
        lengthscale=jnp.asarray(params["lengthscale"]),
        U=jnp.asarray(params["U"]),
        **fields,
    )


def golden_overlap(golden):
    """The share r of the grid, from the reference's g = U / (1 + (U - 1) r)."""
    U = golden["params"]["task"]["U"]
    return jnp.asarray((U / golden_pairs(golden, "task_gammas") - 1) / (U - 1))


def full_golden(golden, folder, name, psd=None):
    """The kernel of the real source curves, joined by the target's observations."""
    curves = DATABASES[name](folder).repeat(golden["profile"])
    sources, target = curves.split(golden["source_tasks"], golden["target_task"])
    distance, overlap = map(jnp.asarray, task_distances(sources.scores))
    kernel = golden_kernel(golden, distance=distance, overlap=overlap, psd=psd)
    revealed = np.array(golden["revealed_target_observations"]).T
    config, epoch = (jnp.asarray(np.pad(index, (0, 6))) for index in revealed)
    score = jnp.asarray(target.scores)[0, config, epoch]
    source = jnp.asarray(sources.scores)[:, config, epoch].T
    seen = observations(score, source, jnp.arange(20) < 14, 1 / target.scores.size)
    return kernel.with_target(seen)


def observations(score, source, mask=None, share=0.05, seed=0):
    """Observations of a target, as `amt.gp.posterior` makes them; what it computes at random."""
    rng = np.random.default_rng(seed)
    size, num_tasks = source.shape
    root = jnp.asarray(rng.normal(size=(size, size)) / size**0.5)
    return TargetObservations(
        score=score,
        mask=jnp.ones(size, bool) if mask is None else mask,
        source=source,
        residual=score - 0.5,
        response=jnp.asarray(rng.normal(size=(size, num_tasks))),
        prior=root @ root.T,
        noise=jnp.asarray(rng.uniform(0.01, 0.02, size)),
        mean_variance=jnp.asarray(0.1),
        share=share,
    )


def random_scores(shape, seed, missing=0.0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=shape) + 2 * rng.normal(size=shape[1:])
    # Rounded, so that there are ties.
    return np.where(rng.uniform(size=shape) < missing, np.nan, np.round(scores, 1))


def kernel_of(name, scores, seed=0, dtype=jnp.float64):
    return KERNELS["task"][name].init(scores, jax.random.key(seed), dtype)


def seen_of(scores, seed, count=6):
    """Observations of a target on a random part of the grid."""
    rng = np.random.default_rng(seed)
    cell = rng.choice(scores[0].size, count, replace=False)
    source = jnp.asarray(scores.reshape(len(scores), -1)[:, cell].T)
    target = jnp.asarray(np.round(2 * rng.normal(size=count), 1))
    return observations(target, source, share=1 / scores[0].size, seed=seed)


def assert_psd(gram):
    np.testing.assert_allclose(gram, gram.T, atol=1e-14 * np.trace(gram))
    assert np.linalg.eigvalsh(gram).min() > -1e-10 * np.trace(gram)


@pytest.mark.parametrize("name", GOLDEN)
def test_at2_equals_the_reference(name):
    golden = GOLDEN[name]
    distance = jnp.asarray(golden_pairs(golden, "task_distances"))
    overlap = golden_overlap(golden)
    kernel = golden_kernel(golden, distance=distance, overlap=overlap, psd=None)
    tasks = golden_tasks(golden)
    np.testing.assert_allclose(kernel(tasks, tasks), golden["K_task"], rtol=1e-10)


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
    np.testing.assert_allclose(joined(tasks, tasks), golden["K_task"], atol=1e-6)


SPECTRA = {"HyperRec": (-0.017, 6.2), "LCBench": (-0.17, 5.7)}


@pytest.mark.parametrize("name", GOLDEN)
def test_at2_is_indefinite_as_published_and_projected_by_default(name):
    golden = GOLDEN[name]
    fields = {
        "distance": jnp.asarray(golden_pairs(golden, "task_distances")),
        "overlap": golden_overlap(golden),
    }
    published = golden_kernel(golden, **fields, psd=None).gram()
    values = np.linalg.eigvalsh(published)
    assert_two_digits(values[[0, -1]], SPECTRA[name])
    projected = golden_kernel(golden, **fields).gram()
    assert_psd(projected)
    np.testing.assert_allclose(jnp.diagonal(projected), golden["params"]["task"]["outputscale"])
    # The diagonal is that of the published matrix, and nothing moves far.
    assert np.linalg.norm(projected - published) < 3 * abs(values[0])


def assert_two_digits(actual, expected):
    assert [float(f"{a:.2g}") for a in actual] == list(expected)


@pytest.mark.parametrize("name", GOLDEN)
def test_projection_makes_the_joined_kernel_definite(name, at2_folder):
    golden = GOLDEN[name]
    published = full_golden(golden, at2_folder, name).gram()
    assert_two_digits(np.linalg.eigvalsh(published)[[0, -1]], SPECTRA[name])
    assert_psd(full_golden(golden, at2_folder, name, psd="project").gram())


@given(SHAPES, SEEDS, st.sampled_from([0.0, 0.4]))
def test_at2_formula(shape, seed, missing):
    scores = random_scores(shape, seed, missing)
    kernel = kernel_of("at2", scores, seed)
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
    tasks = jnp.arange(len(scores))
    np.testing.assert_allclose(published(tasks, tasks), expected, rtol=1e-10)
    assert_psd(kernel(tasks, tasks))
    if missing == 0:
        np.testing.assert_allclose(kernel.gram(), expected, rtol=1e-8)


@given(SHAPES, SEEDS, st.sampled_from([0.0, 0.4]))
def test_at2_compares_a_target_as_it_compares_sources(shape, seed, missing):
    scores = random_scores((shape[0] + 1, *shape[1:]), seed, missing)
    *_, target = scores
    cells = jnp.arange(target.size)
    seen = observations(
        jnp.nan_to_num(target.ravel()),
        jnp.asarray(scores[:-1].reshape(shape[0], -1).T),
        jnp.isfinite(target.ravel())[cells],
        1 / target.size,
    )
    joined = joined_kernel(kernel_of("at2", scores[:-1], seed), seen)
    distance, overlap = task_distances(scores)
    np.testing.assert_allclose(joined.distance, distance, atol=1e-12)
    np.testing.assert_allclose(joined.overlap, overlap, atol=1e-12)


@given(SHAPES, SEEDS)
def test_icm_formula(shape, seed):
    scores = random_scores(shape, seed)
    kernel = kernel_of("icm", scores, seed)
    tasks = jnp.arange(len(scores))
    expected = [
        [
            sum(a * b for a, b in zip(kernel.loadings[t], kernel.loadings[u], strict=True))
            + (kernel.kappa[t] if t == u else 0)
            for u in tasks
        ]
        for t in tasks
    ]
    np.testing.assert_allclose(kernel(tasks, tasks), np.array(expected), rtol=1e-10)
    assert_psd(kernel.gram())


@given(SHAPES, SEEDS)
def test_icm_infers_loadings_by_linear_regression(shape, seed):
    scores = random_scores(shape, seed)
    kernel, seen = kernel_of("icm", scores, seed), seen_of(scores, seed)
    joined = joined_kernel(kernel, seen)
    # The textbook form of the posterior mean, with explicit inverses.
    mean = np.asarray(kernel.loadings.mean(0))
    prior = np.cov(kernel.loadings.T) if shape[0] > 1 else np.zeros((2, 2))
    design = np.asarray(seen.response @ kernel.loadings)
    error = kernel.kappa.mean() * seen.prior + seen.mean_variance + np.diag(seen.noise)
    gain = prior @ design.T @ np.linalg.inv(design @ prior @ design.T + error)
    expected = mean + gain @ (seen.residual - design @ mean)
    np.testing.assert_allclose(joined.loadings[-1], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(joined.gram()[:-1, :-1], kernel.gram(), rtol=1e-12)


def discordance(a, b):
    """Share of the pairs of cells that two tasks rank in opposite order, a tie of one a quarter."""
    cells = np.flatnonzero(np.isfinite(a) & np.isfinite(b))
    pairs = [(i, j) for i in cells for j in cells if i < j]
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in pairs]
    return np.mean([(s - t) ** 2 / 4 for s, t in signs]) if pairs else np.nan


@given(SHAPES, SEEDS, st.sampled_from([0.0, 0.4]))
def test_rank_formula(shape, seed, missing):
    scores = random_scores(shape, seed, missing)
    kernel = kernel_of("rank", scores, seed)
    flat = scores.reshape(shape[0], -1)
    distance = np.array([[discordance(a, b) for b in flat] for a in flat])
    np.fill_diagonal(distance, 0)
    pairs = distance[np.triu_indices(shape[0], 1)]
    pairs = pairs[np.isfinite(pairs)]
    mean = pairs.mean() if len(pairs) else 0.5
    distance = np.where(np.isnan(distance), mean, distance)
    np.testing.assert_allclose(kernel.distance, distance, atol=1e-12)
    np.testing.assert_allclose(kernel.prior_distance, mean, rtol=1e-12)
    tasks = jnp.arange(shape[0])
    gram = kernel(tasks, tasks)
    assert_psd(gram)
    if missing == 0:
        # Complete tasks: positive semi-definite without being projected.
        assert kernel.psd is None
        expected = kernel.scale * np.exp(-distance / kernel.bandwidth)
        np.testing.assert_allclose(gram, expected, rtol=1e-10)


def test_rank_distance_of_a_large_grid_is_close_to_that_of_all_cells():
    from scipy.stats import kendalltau

    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3, 60, 40)) + 2 * rng.normal(size=(60, 40))
    distance = rank_distances(scores)
    tau = kendalltau(scores[0].ravel(), scores[1].ravel()).statistic
    np.testing.assert_allclose(distance[0, 1], (1 - tau) / 2, atol=0.02)


@given(SHAPES, SEEDS, st.sampled_from([0.0, 0.4]))
def test_rank_mixes_what_the_target_shows_with_what_sources_are_like(shape, seed, missing):
    scores = random_scores(shape, seed, missing)
    kernel, seen = kernel_of("rank", scores, seed), seen_of(scores, seed)
    joined = joined_kernel(kernel, seen)
    for task in range(shape[0]):
        n = int(np.isfinite(seen.source[:, task]).sum())
        d = discordance(np.asarray(seen.score), np.asarray(seen.source[:, task]))
        own = n / 2 if n > 1 else 0
        weight, mean = float(kernel.prior_weight), float(kernel.prior_distance)
        expected = (own * np.nan_to_num(d) + weight * mean) / (own + weight)
        np.testing.assert_allclose(joined.distance[-1, task], expected, rtol=1e-10)
    assert_psd(gram_of(joined))


@pytest.mark.parametrize("monotone", [np.exp, np.cbrt, lambda y: 3 * y - 7])
def test_rank_sees_only_ranks(monotone):
    scores = random_scores((4, 4, 3), 0)
    other = scores.copy()
    other[1] = monotone(scores[1])
    np.testing.assert_allclose(rank_distances(other), rank_distances(scores), atol=1e-12)


def test_rank_takes_many_observations_at_their_word():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 20, 10))
    kernel = kernel_of("rank", scores)
    cell = rng.permutation(200)[:150]
    source = jnp.asarray(scores.reshape(5, -1)[:, cell].T)
    nearest = []
    for count in (0, 1, 2, 150):
        seen = observations(jnp.exp(source[:, 3]), source, jnp.arange(150) < count)
        distance = joined_kernel(kernel, seen).distance[-1, :-1]
        nearest.append(float(distance[3] - np.delete(distance, 3).min()))
    # Nothing is known without a pair; the source that ranks alike comes out as more is seen.
    assert nearest[:2] == [0, 0]
    assert nearest[2] <= 0
    assert nearest[3] < min(nearest[2], -0.01)


@given(SHAPES, SEEDS)
def test_latent_formula(shape, seed):
    kernel = kernel_of("latent", random_scores(shape, seed), seed)
    tasks = jnp.arange(shape[0])
    z = np.asarray(kernel.embedding)
    expected = [[kernel.scale * np.exp(-((a - b) ** 2).sum() / 2) for b in z] for a in z]
    np.testing.assert_allclose(kernel(tasks, tasks), np.array(expected), rtol=1e-10)
    assert_psd(kernel.gram())


def latent_target(kernel, count, seed=0, noise=0.01):
    """A kernel's target, its true embedding drawn near the sources, and observations of it."""
    rng = np.random.default_rng(seed)
    z = np.asarray(kernel.embedding)
    true = z.mean(0) + 0.3 * rng.normal(size=z.shape[1])
    k = kernel.scale * np.exp(-np.square(z - true).sum(1) / 2)
    response = rng.normal(size=(40, len(z)))
    score = jnp.asarray(response @ k + noise * rng.normal(size=40))
    seen = observations(score, jnp.zeros((40, len(z))), jnp.arange(40) < count, seed=seed)
    seen = seen._replace(
        response=jnp.asarray(response),
        residual=score,
        prior=0 * seen.prior,
        noise=jnp.full(40, noise**2),
        mean_variance=jnp.asarray(0.0),
    )
    return jnp.asarray(k), seen


@pytest.mark.parametrize("seed", range(3))
def test_latent_covariances_are_the_mean_over_the_posterior(seed):
    rng = np.random.default_rng(seed)
    kernel = LatentTask(jnp.asarray(rng.normal(size=(5, 1))), jnp.asarray(2.0))
    for count, tolerance in ((0, 1e-6), (3, 0.2), (40, 1e-3)):
        _, seen = latent_target(kernel, count, seed, noise=0.3)
        row = join(kernel, seen)[-1]
        # By quadrature, with the likelihood of the docstring.
        z = np.linspace(-12, 12, 4801)
        sources = np.asarray(kernel.embedding)[:, 0]
        k = 2 * np.exp(-np.square(z[:, None] - sources) / 2)
        mean = sources.mean()
        variance = (1 + np.square(sources - mean).sum()) / 5
        residual = (seen.residual - k @ seen.response.T)[:, :count]
        log_density = -np.square(z - mean) / variance / 2
        log_density -= np.square(residual).sum(1) / 0.3**2 / 2
        density = np.exp(log_density - log_density.max())
        expected = density @ k / density.sum()
        np.testing.assert_allclose(row[:-1], expected, atol=2 * tolerance)
        assert row[-1] == 2


@pytest.mark.parametrize("name", ["icm", "latent"])
def test_a_nugget_is_one_more_error_of_what_the_target_shows(name):
    """As is the target's own part, which is in proportion to the prior."""
    scores = random_scores((4, 4, 3), 2)
    kernel, seen = kernel_of(name, scores), seen_of(scores, 2)
    if name == "icm":
        own = kernel.kappa.mean()
    else:
        own = jnp.mean(1 / jnp.diagonal(jnp.linalg.inv(kernel.gram())))
    both = seen._replace(prior=3 * seen.prior)
    got = join(kernel, seen._replace(nugget=2 * own * seen.prior))
    np.testing.assert_allclose(got, join(kernel, both), rtol=1e-8)
    assert jnp.abs(got - join(kernel, seen)).max() > 1e-3


def test_latent_finds_the_target():
    kernel = kernel_of("latent", np.zeros((8, 2, 2)))
    errors = []
    for count in (0, 5, 40):
        k, seen = latent_target(kernel, count)
        errors.append(jnp.abs(join(kernel, seen)[-1, :-1] - k).max())
    assert errors[2] < 0.01
    assert errors[2] < errors[1] < errors[0]


def test_latent_without_observations_is_less_similar_than_sources_are():
    rng = np.random.default_rng(0)
    kernel = LatentTask(jnp.asarray(rng.normal(size=(50, 2))), jnp.asarray(1.0))
    _, seen = latent_target(kernel, 0)
    gram = join(kernel, seen)
    pairs = gram[:-1, :-1][np.triu_indices(50, 1)]
    np.testing.assert_allclose(gram[-1, :-1].mean(), pairs.mean(), rtol=0.1)


def test_a_kernel_of_given_values_cannot_be_joined():
    scores = random_scores((3, 4, 3), 0)
    joined = GivenGram(kernel_of("latent", scores).gram())
    with pytest.raises(TypeError, match="not known"):
        joined.with_target(seen_of(scores, 0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_a_joined_kernel_is_definite_and_has_the_targets_variance(name, missing):
    for seed in range(5):
        scores = random_scores((4, 4, 3), seed, missing)
        kernel, seen = kernel_of(name, scores, seed), seen_of(scores, seed)
        gram = join(kernel, seen)
        assert gram.shape == (5, 5)
        assert_psd(gram)
        if isinstance(kernel, ICM):
            assert gram[-1, -1] > 0
        else:
            np.testing.assert_allclose(jnp.diagonal(gram), kernel.scale, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_padding_and_order_of_observations_do_not_matter(name):
    scores = random_scores((4, 4, 3), 1)
    kernel, seen = kernel_of(name, scores), seen_of(scores, 1)
    expected = join(kernel, seen)
    rng = np.random.default_rng(0)

    def padded(values):
        if values.ndim == 0:
            return values
        widths = [(0, 3 if size == 6 else 0) for size in values.shape]
        return jnp.pad(values, widths, constant_values=False if values.dtype == bool else 77)

    more = jax.tree.map(lambda v: padded(jnp.asarray(v)), seen)
    np.testing.assert_allclose(join(kernel, more), expected, rtol=1e-9)

    order = rng.permutation(6)
    shuffled = seen._replace(
        score=seen.score[order],
        source=seen.source[order],
        residual=seen.residual[order],
        response=seen.response[order],
        prior=seen.prior[order][:, order],
        noise=seen.noise[order],
    )
    np.testing.assert_allclose(join(kernel, shuffled), expected, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_tasks", [1, 3])
def test_gradients_are_finite_at_the_edges(name, num_tasks):
    scores = random_scores((num_tasks, 4, 3), 0)
    scores[-1] = scores[0]
    kernel = kernel_of(name, scores)
    free, constrain = unconstrain(kernel)
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(num_tasks, num_tasks)))
    gradient = jax.jit(jax.grad(lambda free: jnp.sum(weight * constrain(free).gram())))
    for log in (np.log(1e-6), 0.0, np.log(1e6)):
        start = tuple(jnp.full_like(leaf, log) for leaf in free)
        assert all(jnp.isfinite(leaf).all() for leaf in gradient(start))


@pytest.mark.parametrize("name", NAMES)
def test_one_source_and_extreme_parameters_leave_a_joined_kernel_finite(name):
    for num_tasks in (1, 3):
        scores = random_scores((num_tasks, 4, 3), 0)
        free, constrain = unconstrain(kernel_of(name, scores))
        seen = seen_of(scores, 0)
        for log in (np.log(1e-6), 0.0, np.log(1e6)):
            kernel = constrain(tuple(jnp.full_like(leaf, log) for leaf in free))
            gram = join(kernel, seen)
            assert jnp.isfinite(gram).all()
            bound = jnp.sqrt(gram[-1, -1] * jnp.diagonal(gram)[:-1])
            assert (jnp.abs(gram[-1, :-1]) <= bound * (1 + 1e-6)).all()


@pytest.mark.parametrize("name", NAMES)
def test_float32(name):
    scores = random_scores((4, 4, 3), 0)
    seen = seen_of(scores, 0)
    kernel = kernel_of(name, scores)
    expected = kernel.gram(), join(kernel, seen)
    kernel, seen = jax.tree.map(
        lambda v: jnp.asarray(v, jnp.float32) if jnp.asarray(v).dtype == jnp.float64 else v,
        (kernel, seen._replace(share=None)),
    )
    seen = seen._replace(share=1 / 12)
    start = kernel_of(name, scores, dtype=jnp.float32)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(start))
    for actual, exact in zip((kernel.gram(), join(kernel, seen)), expected, strict=True):
        assert actual.dtype == jnp.float32
        np.testing.assert_allclose(actual, exact, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_jit_and_vmap_over_stacked_kernels(name):
    scores = random_scores((4, 4, 3), 0)
    kernels = [kernel_of(name, scores, seed) for seed in range(3)]
    seen = seen_of(scores, 0)
    batched = jax.jit(jax.vmap(lambda k: (k.gram(), k.with_target(seen).gram())))(stack(kernels))
    for index, kernel in enumerate(kernels):
        np.testing.assert_allclose(batched[0][index], kernel.gram(), rtol=1e-10)
        np.testing.assert_allclose(batched[1][index], join(kernel, seen), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_keys_vary_the_start(name):
    scores = random_scores((4, 4, 3), 0)
    first, second = kernel_of(name, scores, 0).gram(), kernel_of(name, scores, 1).gram()
    assert not np.allclose(first, second)


def test_options_reach_the_kernel():
    from problems import small_curves

    curves = small_curves()
    assert make_kernel("task", "icm", curves, KEY, rank=3).loadings.shape == (4, 3)
    assert make_kernel("task", "latent", curves, KEY, dimension=5).embedding.shape == (4, 5)


def test_tasks_that_are_all_alike():
    scores = np.tile(random_scores((1, 4, 3), 0), (4, 1, 1))
    for name in NAMES:
        kernel = kernel_of(name, scores)
        assert jnp.isfinite(join(kernel, seen_of(scores, 0))).all()
    assert isinstance(kernel_of("rank", scores), RankAgreement)
