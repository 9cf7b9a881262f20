"""Factorisations that batch safely on a CPU, against JAX's own."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.linalg import cho_solve, solve_triangular
from numpy.testing import assert_allclose

from amt.linalg import cholesky, eigh, solve_cholesky, solve_lower
from tests.processes import Script

N, M = 5, 3


def definite(root):
    """A positive definite matrix made from any other, so that gradients are unambiguous."""
    return root @ root.T / N + jnp.eye(N, dtype=root.dtype)


def lower(root):
    return jnp.tril(root, -1) / 2 + jnp.eye(N, dtype=root.dtype) * (1 + jnp.diag(root) ** 2)


PAIRS = {
    "cholesky": (
        lambda a, b: cholesky(definite(a)) @ b,
        lambda a, b: jnp.linalg.cholesky(definite(a)) @ b,
    ),
    "solve_lower": (
        lambda a, b: solve_lower(lower(a), b),
        lambda a, b: solve_triangular(lower(a), b, lower=True),
    ),
    "solve_lower_transposed": (
        lambda a, b: solve_lower(lower(a), b, True),
        lambda a, b: solve_triangular(lower(a), b, lower=True, trans=1),
    ),
    "solve_cholesky": (
        lambda a, b: solve_cholesky(cholesky(definite(a)), b),
        lambda a, b: cho_solve((jnp.linalg.cholesky(definite(a)), True), b),
    ),
}
BATCHES = {"single": (), "of one": (1,), "nested": (2, 3)}
AXES = {"both": (0, 0), "factor": (0, None), "right": (None, 0)}


def problem(batch=(), batched="both", dtype=np.float64):
    rng = np.random.default_rng(0)
    a_batch, b_batch = (batch if axis == 0 else () for axis in AXES[batched])
    a, b = rng.normal(size=(*a_batch, N, N)), rng.normal(size=(*b_batch, N, M))
    return a.astype(dtype), b.astype(dtype)


def values_and_gradients(functions, args):
    """The value of each function and the pullback of a fixed cotangent."""

    def run(function, args):
        value, pullback = jax.vjp(function, *args)
        return value, pullback(
            jnp.cos(jnp.arange(value.size, dtype=value.dtype).reshape(value.shape))
        )

    return jax.jit(lambda args: [run(function, args) for function in functions])(args)


def assert_all_close(actual, expected, tolerance):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype
        assert_allclose(a, e, rtol=tolerance, atol=tolerance)


def vmapped(function, batch):
    for _ in batch:
        function = jax.vmap(function)
    return function


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("name", PAIRS)
def test_values_and_gradients_equal_jax_s_own(name, batch):
    functions = [vmapped(function, batch) for function in PAIRS[name]]
    assert_all_close(*values_and_gradients(functions, problem(batch)), 1e-11)


@pytest.mark.parametrize("batched", ["factor", "right"])
def test_one_argument_may_be_shared_by_the_batch(batched):
    functions = [jax.vmap(f, AXES[batched]) for f in PAIRS["solve_cholesky"]]
    assert_all_close(*values_and_gradients(functions, problem((4,), batched)), 1e-11)


def test_a_batch_of_gradients_equals_the_gradients_of_a_batch():
    function = lambda a, b: jnp.sum(jnp.sin(PAIRS["solve_cholesky"][0](a, b)))  # noqa: E731
    args = problem((4,))
    each = jax.jit(jax.vmap(jax.grad(function, (0, 1))))(*args)
    total = jax.jit(jax.grad(lambda a, b: jax.vmap(function)(a, b).sum(), (0, 1)))(*args)
    assert_all_close(each, total, 1e-12)


@pytest.mark.parametrize("name", ["cholesky", "solve_cholesky"])
def test_float32(name):
    args = problem(dtype=np.float32)
    assert_all_close(*values_and_gradients(PAIRS[name], args), 1e-4)


def test_cholesky_of_an_indefinite_matrix_is_nan():
    grams = np.stack([np.eye(N), np.diag([1.0, 1, 1, -1, 1])])
    good, bad = np.asarray(jax.jit(jax.vmap(cholesky))(grams))
    assert_allclose(good, np.eye(N))
    assert np.isnan(bad).any()


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_eigh_is_the_eigendecomposition(batch):
    roots, _ = problem(batch)
    grams = roots + np.swapaxes(roots, -1, -2)
    values, vectors = jax.device_get(jax.jit(vmapped(eigh, batch))(grams))
    assert_allclose(values, np.linalg.eigvalsh(grams), atol=1e-12)
    assert_allclose(
        (vectors * values[..., None, :]) @ np.swapaxes(vectors, -1, -2), grams, atol=1e-12
    )
    identity = np.broadcast_to(np.eye(N), grams.shape)
    assert_allclose(vectors @ np.swapaxes(vectors, -1, -2), identity, atol=1e-12)


@pytest.mark.parametrize(
    "differentiate",
    [
        lambda gram: jax.grad(lambda g: eigh(g)[0].sum())(gram),
        lambda gram: jax.jit(jax.grad(lambda g: eigh(g)[1].sum()))(gram),
        lambda gram: jax.jvp(eigh, (gram,), (gram,)),
        lambda gram: jax.vmap(jax.grad(lambda g: eigh(g)[0].sum()))(gram[None]),
        lambda gram: jax.grad(lambda g: jax.vmap(eigh)(g[None])[0].sum())(gram),
    ],
    ids=["grad", "jit", "jvp", "vmap of grad", "grad of vmap"],
)
def test_eigh_has_no_derivative(differentiate):
    with pytest.raises(TypeError, match="no derivative"):
        differentiate(np.eye(N))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other devices batch")
@pytest.mark.parametrize("batch", [(5,), (2, 3)], ids=["batch", "nested"])
@pytest.mark.parametrize(
    ("function", "call"),
    [(eigh, "lapack_dsyevd"), (cholesky, "lapack_dpotrf"), (solve_cholesky, "lapack_dtrsm")],
)
def test_no_batched_lapack_call_is_left_on_a_cpu(function, call, batch):
    """Such calls can wait for each other for ever."""
    args = problem(batch) if function is solve_cholesky else problem(batch)[:1]
    text = jax.jit(vmapped(function, batch)).lower(*args).compile().as_text()
    calls = [line for line in text.splitlines() if call in line]
    assert calls
    for line in calls:
        shapes = re.findall(r"f64\[([\d,]*)\]", line)
        assert shapes
        assert all(shape.count(",") < 2 for shape in shapes), line


# Without the wrapper this stands still in some runs on two busy cores, each run at another
# step. In a process of its own, so that it can be ended.
HANGS = """
import jax
import jax.numpy as jnp
from amt.linalg import eigh

jax.config.update("jax_enable_x64", True)
keys = jax.random.split(jax.random.key(0), 3)
roots = [jax.random.normal(k, (16, n, n)) / n**0.5 for k, n in zip(keys, (4, 100, 52))]
scores = jax.random.normal(keys[0], (4, 100, 52))

def run(*roots):
    def step(scale, _):
        values, vectors = zip(*[eigh(r @ r.T * jnp.exp(s)) for r, s in zip(roots, scale)])
        rotated = jnp.einsum("ijk,ia,jb,kc->abc", scores, *vectors)
        spectrum = 1 + values[0][:, None, None] * values[1][:, None] * values[2]
        value = jnp.sum(rotated**2 / spectrum + jnp.log(spectrum))
        return scale + 1e-7 * value * jnp.arange(3.0), value

    return jax.lax.scan(step, jnp.zeros(3), length=50)[1]

assert jnp.isfinite(jax.jit(jax.vmap(run))(*roots)).all()
print("finished")
"""


def test_several_batched_eigh_at_once_do_not_wait_for_ever(tmp_path):
    (tmp_path / "hangs.py").write_text(HANGS)
    assert Script(tmp_path / "hangs.py", []).finish(200) == "finished\n"
