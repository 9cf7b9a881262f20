"""Fidelity kernels against the reference implementation, and their formulas written out."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinygp.kernels import Kernel

from amt.kernels import KERNELS, AT2Fidelity, Fabolas, FidelityKernel, make_kernel
from amt.parameters import unconstrain
from tests.problems import small_curves

GOLDEN = json.loads((Path(__file__).parents[1] / "data/at2_reference_kernels.json").read_text())
NAMES = list(KERNELS["fidelity"])
SEEDS = st.integers(0, 2**31 - 1)
gram_of = jax.jit(lambda kernel, e: kernel(e, e))


def kernel_of(name, seed=0, dtype=jnp.float64):
    return KERNELS["fidelity"][name].init(jax.random.key(seed), dtype)


def formula(name, kernel, e, f):
    decay = lambda z: (kernel.b / (z + kernel.b)) ** kernel.a  # noqa: E731
    if name == "at2":
        return kernel.scale * (1 + decay(e + f) - decay(e) - decay(f))
    if name == "freeze_thaw":
        return decay(e + f)
    if name == "fabolas":
        L = np.array([[1, 0], [kernel.a, kernel.b]])
        return np.array([1, (1 - e) ** 2]) @ L @ L.T @ np.array([1, (1 - f) ** 2])
    r = np.sqrt(5) * abs(np.log(max(e, 1e-6)) - np.log(max(f, 1e-6))) / kernel.lengthscale
    return (1 + r + r**2 / 3) * np.exp(-r)


@pytest.mark.parametrize("name", GOLDEN)
def test_at2_equals_the_reference(name):
    golden = GOLDEN[name]
    params = golden["params"]["fidelity"]
    kernel = AT2Fidelity(*(np.asarray(params[field]) for field in ("alpha", "beta", "outputscale")))
    epochs = np.asarray(golden["points"])[:, golden["feature_names"].index("epoch")]
    np.testing.assert_allclose(gram_of(kernel, epochs), golden["K_fidelity"], rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
@given(SEEDS)
def test_formula_and_definiteness(name, seed):
    rng = np.random.default_rng(seed)
    free, constrain = unconstrain(kernel_of(name, seed))
    kernel = constrain(tuple(f + rng.normal() for f in free))
    epochs = np.concatenate([[0, 1, 1], rng.uniform(size=6)])
    gram, kernel = jax.device_get((gram_of(kernel, epochs), kernel))
    expected = [[formula(name, kernel, e, f) for f in epochs] for e in epochs]
    np.testing.assert_allclose(gram, np.array(expected), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gram, gram.T, rtol=1e-12, atol=1e-15)
    assert np.linalg.eigvalsh(gram).min() > -1e-12 * np.trace(gram)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_at_the_edges(name):
    epochs = np.asarray([0.0, 0.0, 1e-8, 0.5, 1.0, 1.0])
    free, constrain = unconstrain(kernel_of(name))
    weight = np.random.default_rng(0).normal(size=(6, 6))
    gradient = jax.jit(jax.grad(lambda f, e: jnp.sum(weight * constrain(f)(e, e)), argnums=(0, 1)))
    for log in (np.log(1e-6), 0.0, np.log(1e6)):
        start = tuple(np.full_like(leaf, log) for leaf in free)
        for leaf in jax.tree.leaves(gradient(start, epochs)):
            assert np.isfinite(leaf).all()


@pytest.mark.parametrize("name", NAMES)
def test_float32(name):
    epochs = np.linspace(0, 1, 9)
    kernel = kernel_of(name)
    start = kernel_of(name, dtype=jnp.float32)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(start))
    single = jax.tree.map(lambda v: np.asarray(v, np.float32), kernel)
    gram = gram_of(single, epochs.astype(np.float32))
    assert gram.dtype == jnp.float32
    np.testing.assert_allclose(gram, gram_of(kernel, epochs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_jit_and_vmap_over_stacked_kernels(name):
    epochs = np.linspace(0, 1, 9)
    kernels = [kernel_of(name, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *kernels)
    batched = np.asarray(jax.jit(jax.vmap(lambda k: k(epochs, epochs)))(stacked))
    for index, kernel in enumerate(kernels):
        np.testing.assert_allclose(batched[index], gram_of(kernel, epochs), rtol=1e-10)
    assert not np.allclose(batched[0], batched[1])


@pytest.mark.parametrize("name", NAMES)
def test_scale(name):
    """The task kernel has the scale of a product: others vary by 1 somewhere, "at2" by its own."""
    kernel = kernel_of(name, 3)
    at = {"at2": 1e12, "freeze_thaw": 0.0, "fabolas": 1.0, "matern": 0.3}[name]
    expected = kernel.scale if isinstance(kernel, AT2Fidelity) else 1
    variance = jax.jit(lambda kernel, at: kernel.evaluate(at, at))(kernel, at)
    np.testing.assert_allclose(variance, expected, rtol=1e-4)


def test_fabolas_has_rank_two():
    kernel = kernel_of("fabolas")
    assert isinstance(kernel, Fabolas)
    values = np.linalg.eigvalsh(gram_of(kernel, np.linspace(0, 1, 9)))
    assert values[-2] > 1e-2
    assert np.abs(values[:-2]).max() < 1e-12


def test_every_kernel_states_its_rank():
    assert {name: kernel.numerical_rank for name, kernel in KERNELS["fidelity"].items()} == {
        "at2": 8,
        "freeze_thaw": 10,
        "fabolas": 2,
        "matern": 24,
    }


@pytest.mark.parametrize("rank", [None, 0, 2.5])
def test_a_kernel_without_a_rank_is_refused_where_it_is_defined(rank):
    body = {} if rank is None else {"numerical_rank": rank}
    with pytest.raises(TypeError, match=r"Forgetful states no numerical_rank.* = 24`"):
        type(FidelityKernel)("Forgetful", (FidelityKernel,), {"__module__": __name__, **body})


def test_a_kernel_derived_from_another_has_its_rank():
    class Slower(AT2Fidelity):
        pass

    class Rougher(AT2Fidelity):
        numerical_rank = 30

    assert (Slower.numerical_rank, Rougher.numerical_rank) == (8, 30)
    assert len(jax.tree.leaves(Rougher.init(jax.random.key(0), jnp.float64))) == 3


class Linear(Kernel):
    """A kernel of tinygp alone."""

    @classmethod
    def init(cls, *args):
        return cls()

    def evaluate(self, X1, X2):
        return X1 * X2


def test_a_kernel_that_is_not_of_its_axis_is_refused(monkeypatch):
    curves = small_curves()
    for axis, base in (("fidelity", "amt.kernels.fidelity.FidelityKernel"), ("task", "TaskKernel")):
        monkeypatch.setitem(KERNELS, axis, KERNELS[axis] | {"linear": Linear})
        message = f"the {axis} kernel 'linear' is Linear, which does not derive from .*{base}"
        with pytest.raises(TypeError, match=message):
            make_kernel(axis, "linear", curves, jax.random.key(0))
    monkeypatch.setitem(KERNELS, "config", KERNELS["config"] | {"linear": Linear})
    assert isinstance(make_kernel("config", "linear", curves, jax.random.key(0)), Linear)


def test_unknown_names_are_refused():
    curves = small_curves()
    with pytest.raises(KeyError, match="no kernel axis 'epoch'; there are task, config, fidelity"):
        make_kernel("epoch", "at2", curves, jax.random.key(0))
    with pytest.raises(KeyError, match="there are at2, freeze_thaw, fabolas, matern"):
        make_kernel("fidelity", "rbf", curves, jax.random.key(0))
