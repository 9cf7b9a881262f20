"""Configuration kernels against the reference implementation, and their formulas written out."""

import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ConfigSpace import (
    AndConjunction,
    Categorical,
    ConfigurationSpace,
    Constant,
    EqualsCondition,
    Float,
    GreaterThanCondition,
    InCondition,
    Integer,
)
from hypothesis import given
from hypothesis import strategies as st

from amt.databases.published import hyperrec, hyperrec_space, lcbench, lcbench_space
from amt.kernels import KERNELS, AdditiveTree, ConfigNet, DeepPolynomial
from amt.parameters import unconstrain
from amt.space import Encoder
from tests.problems import moved, small_configs, small_space

GOLDEN = json.loads((Path(__file__).parents[1] / "data/at2_reference_kernels.json").read_text())
NAMES = list(KERNELS["config"])
SEEDS = st.integers(0, 2**31 - 1)
ENCODERS = {"nested": Encoder(hyperrec_space()), "flat": Encoder(lcbench_space())}


def golden_kernel(golden):
    """The reference's parameters; torch's linear layers compute x W' + b, as equinox's do."""
    params = golden["params"]["config"]
    layers = []
    for weight, bias in (("W1", "b1"), ("W2", "b2")):
        weight, bias = np.asarray(params[weight]), np.asarray(params[bias])
        layer = eqx.filter_eval_shape(eqx.nn.Linear, *weight.shape[::-1], key=jax.random.key(0))
        layers.append(eqx.tree_at(lambda m: (m.weight, m.bias), layer, (weight, bias)))
    assert params["poly_power"] == 2
    embeddings = tuple(map(np.asarray, params["embeddings"]))
    return DeepPolynomial(ConfigNet(embeddings, *layers), np.asarray(params["offset"]))


def golden_features(golden, encoder):
    """The reference's features with our columns: categoricals one-hot instead of an index."""
    points, names = np.array(golden["points"]), golden["feature_names"]
    columns = []
    for name in encoder.columns:
        if name in names:
            columns.append(points[:, names.index(name)])
        elif "=" in name:
            parent, _ = name.split("=")
            choices = [c for c in encoder.columns if c.startswith(f"{parent}=")]
            columns.append(points[:, names.index(parent)] == choices.index(name))
        else:  # activity, which the reference does not have
            columns.append(np.zeros(len(points)))
    return np.stack(columns, 1).astype(float)


@pytest.mark.parametrize(("name", "space"), [("HyperRec", "nested"), ("LCBench", "flat")])
def test_deep_polynomial_equals_the_reference(name, space):
    golden = GOLDEN[name]
    features = golden_features(golden, ENCODERS[space])
    np.testing.assert_allclose(
        gram_of(golden_kernel(golden), features), golden["K_config"], rtol=1e-10
    )


@pytest.mark.parametrize(
    ("name", "space", "database"), [("HyperRec", "nested", hyperrec), ("LCBench", "flat", lcbench)]
)
def test_features_of_the_databases_are_the_references(name, space, database, at2_folder):
    golden = GOLDEN[name]
    features = golden_features(golden, ENCODERS[space])
    curves = database(at2_folder)
    used = slice(0, ENCODERS[space].num_features - len(ENCODERS[space].conditional))
    distance = np.abs(features[:, None, used] - curves.features[:, used]).max(-1)
    # Every point is one of the configurations, in float32.
    assert distance.min(1).max() < 1e-6
    nearest = curves.features[distance.argmin(1)]
    kernel = golden_kernel(golden)
    np.testing.assert_allclose(gram_of(kernel, nearest), golden["K_config"], rtol=1e-5)


def features_of(space, seed, count=5):
    """Features of random legal configurations, the first of them twice."""
    space = {"nested": hyperrec_space, "flat": lcbench_space}[space]()
    space.seed(seed)
    configs = [dict(c) for c in space.sample_configuration(count)]
    return Encoder(space)([configs[0], *configs])


def kernel_of(name, encoder, seed=0, dtype=jnp.float64):
    return KERNELS["config"][name].init(encoder, jax.random.key(seed), dtype)


gram_of = jax.jit(lambda kernel, x: kernel(x, x))


def matern(difference, lengthscale):
    r = np.sqrt(5) * np.abs(difference) / lengthscale
    return (1 + r + r**2 / 3) * np.exp(-r)


def embed(net, x):
    """ConfigNet, written out."""
    start = net.hidden.weight.shape[1] - sum(len(e) for e in net.embeddings)
    parts = list(x[:start])
    for embedding in net.embeddings:
        one_hot = x[start : start + len(embedding)]
        parts += list(embedding[int(one_hot.argmax())] if one_hot.any() else 0 * embedding[0])
        start += len(embedding)
    hidden = np.tanh(np.asarray(net.hidden.weight) @ np.array(parts) + net.hidden.bias)
    output = np.asarray(net.output.weight) @ hidden
    return output if net.output.bias is None else output + net.output.bias


def tree(kernel, encoder, x, y):
    """AdditiveTree, written out by the names of the columns."""
    column = {name: index for index, name in enumerate(encoder.columns)}
    numeric, categorical = iter(kernel.numeric), iter(kernel.categorical)
    total = 0.0
    for weight, group in zip([1.0, *kernel.weight], encoder.groups, strict=True):
        product = 1.0
        for index in group.numeric:
            product *= matern(x[index] - y[index], next(numeric))
        for columns in group.categorical:
            same = all(x[c] == y[c] for c in columns)
            lengthscale = next(categorical)
            product *= 1 if same else np.exp(-1 / lengthscale)
        on = [not group.active or any(z[c] == 1 for c in group.active) for z in (x, y)]
        total += weight * product * all(on)
    assert len(column) == len(x)
    return total


def formula(name, kernel, encoder, x, y):
    if name == "matern":
        return matern(np.sqrt((((x - y) / kernel.lengthscale) ** 2).sum()), 1.0)
    if name == "tree":
        return tree(kernel, encoder, x, y)
    hx, hy = embed(kernel.net, x), embed(kernel.net, y)
    if name == "deep_poly":
        return (hx @ hy + kernel.offset) ** 2
    return np.exp(-((hx - hy) ** 2).sum() / 2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("space", ENCODERS)
@given(seed=SEEDS)
def test_formula_and_definiteness(name, space, seed):
    x = features_of(space, seed)
    kernel = kernel_of(name, ENCODERS[space], seed)
    if name == "tree":
        kernel = moved(kernel, seed, 1.0)
    gram = gram_of(kernel, x)
    plain = jax.tree.map(np.asarray, kernel)
    expected = [[formula(name, plain, ENCODERS[space], a, b) for b in x] for a in x]
    np.testing.assert_allclose(gram, np.array(expected), rtol=1e-9)
    np.testing.assert_allclose(gram, np.transpose(gram), rtol=1e-12)
    assert np.linalg.eigvalsh(gram).min() > -1e-12 * np.trace(gram)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("space", ENCODERS)
def test_gradients_are_finite_at_the_edges(name, space):
    encoder = ENCODERS[space]
    x = features_of(space, 0)
    x = np.concatenate([x, np.zeros_like(x[:2]), np.ones_like(x[:1])])
    free, constrain = unconstrain(kernel_of(name, encoder))
    weight = np.random.default_rng(0).normal(size=(len(x), len(x)))

    @jax.jit
    @jax.grad
    def gradient(args):
        return jnp.sum(weight * constrain(args[0])(args[1], args[1]))

    starts = [free, tuple(map(np.zeros_like, free))]
    for log in (np.log(1e-6), np.log(1e6)):
        # All parameters; of a network, what comes last (the offset or the output's bias).
        last = np.full_like(free[-1], log)
        deep = name.startswith("deep")
        starts.append(
            (*free[:-1], last) if deep else tuple(np.full_like(leaf, log) for leaf in free)
        )
    for start in starts:
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient((start, x))))


@pytest.mark.parametrize("name", NAMES)
def test_float32(name):
    x = features_of("nested", 0)
    kernel = kernel_of(name, ENCODERS["nested"])
    single = jax.tree.map(lambda v: np.asarray(v, np.float32), kernel)
    start = kernel_of(name, ENCODERS["nested"], dtype=jnp.float32)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(start))
    gram = gram_of(single, x.astype(np.float32))
    assert gram.dtype == jnp.float32
    np.testing.assert_allclose(gram, gram_of(kernel, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_jit_and_vmap_over_stacked_kernels(name):
    x = features_of("nested", 0)
    kernels = [kernel_of(name, ENCODERS["nested"], seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *kernels)
    batched = np.asarray(jax.jit(jax.vmap(lambda k: k(x, x)))(stacked))
    for index, kernel in enumerate(kernels):
        np.testing.assert_allclose(batched[index], gram_of(kernel, x), rtol=1e-9)
    assert not np.allclose(batched[0], batched[1])


def names_of(encoder):
    """`Encoder.groups` in names: of the condition, the hyperparameters under it."""
    names = encoder.columns
    return {
        "+".join(names[c] for c in group.active): [names[c] for c in group.numeric]
        + [names[columns[0]].split("=")[0] for columns in group.categorical]
        for group in encoder.groups
    }


def test_groups_of_a_nested_space():
    assert names_of(ENCODERS["nested"]) == {
        "": ["batchsize", "lr", "weight_decay", "model", "optimizer", "scheduler"],
        "optimizer=Adam": ["betas0", "betas1"],
        "optimizer=SGD": ["momentum"],
        "scheduler=StepLR": ["step_size", "gamma"],
        "scheduler=ExponentialLR": ["gamma"],
        "scheduler=CyclicLR": ["gamma", "max_lr", "step_size_up"],
        "scheduler=CosineAnnealingWarmRestarts": ["T_0", "T_mult", "eta_min"],
    }
    assert names_of(ENCODERS["flat"]) == {"": list(ENCODERS["flat"].columns)}


def conditional_space():
    space = ConfigurationSpace()
    kind = Categorical("kind", ["a", "b", "c"])
    inner = Categorical("inner", ["p", "q"])
    depth = Integer("depth", (1, 5))
    children = [Float(name, (0, 1)) for name in ("in", "deep", "number", "both")]
    space.add(kind, inner, depth, Constant("constant", 1), *children)
    either, deep, number, both = children
    space.add(
        EqualsCondition(inner, kind, "a"),
        InCondition(either, kind, ["a", "b"]),
        EqualsCondition(deep, inner, "q"),
        GreaterThanCondition(number, depth, 2),
        AndConjunction(EqualsCondition(both, kind, "a"), GreaterThanCondition(both, depth, 2)),
    )
    return space


def test_groups_of_every_kind_of_condition():
    encoder = Encoder(conditional_space())
    assert names_of(encoder) == {
        "": ["depth", "kind"],
        "kind=a": ["inner"],
        "kind=a+kind=b": ["in"],
        "inner=q": ["deep"],
        "number is active": ["number"],
        "both is active": ["both"],
    }
    configs = [
        {"kind": "a", "inner": "q", "depth": 4, "in": 0.5, "deep": 0.5, "number": 0.5, "both": 0.1},
        {"kind": "b", "depth": 1, "in": 0.2},
        {"kind": "c", "depth": 3, "number": 0.3},
    ]
    rows = encoder(configs)
    for group in encoder.groups[1:]:
        # Active where it has values.
        values = rows[:, [*group.numeric, *(c for cs in group.categorical for c in cs)]]
        np.testing.assert_array_equal(rows[:, list(group.active)].sum(1), values.any(1))


def test_a_shared_column_needs_to_say_whose_it_is():
    space = ConfigurationSpace()
    depth = Integer("depth", (1, 5))
    low, high = (Float(name, (0, 1), meta={"column": "x"}) for name in ("low", "high"))
    space.add(depth, low, high)
    space.add(EqualsCondition(low, depth, 1), GreaterThanCondition(high, depth, 1))
    encoder = Encoder(space)
    with pytest.raises(ValueError, match="'high' shares column 'x'"):
        _ = encoder.groups


def test_tree_compares_values_only_within_their_node():
    encoder = ENCODERS["nested"]
    kernel = kernel_of("tree", encoder)
    assert isinstance(kernel, AdditiveTree)
    rows = features_of("nested", 0, count=40)
    scheduler = [c for c, name in enumerate(encoder.columns) if name.startswith("scheduler=")]
    gamma = encoder.columns.index("gamma")
    step, exponential = (rows[rows[:, column] == 1][0].copy() for column in scheduler[:2])
    value = np.asarray(gram_of(kernel, np.stack([step, exponential])))[0, 1]
    exponential[gamma] = 0.9 - exponential[gamma] / 2
    # gamma of StepLR and gamma of ExponentialLR share a column but are not compared.
    after = np.asarray(gram_of(kernel, np.stack([step, exponential])))
    np.testing.assert_allclose(after[0, 1], value, rtol=1e-12)
    other = exponential.copy()
    other[gamma] /= 2
    within = np.asarray(gram_of(kernel, np.stack([exponential, other])))
    assert within[0, 1] < within[0, 0] - 1e-3


def test_small_space_of_the_other_tests():
    encoder = Encoder(small_space())
    x = encoder(small_configs(4))
    for name in NAMES:
        assert gram_of(kernel_of(name, encoder), x).shape == (4, 4)
