"""float64 by default, float32 by request, and JAX's global setting left alone."""

import jax
import jax.numpy as jnp
import pytest

import amt
from amt.precision import check_dtype, require_dtype
from tests.problems import small_curves
from tests.processes import Script

FRESH = """
import jax
import amt
from tests.problems import small_curves
assert jax.config.jax_enable_x64 is False
curves = small_curves()
for make in (
    lambda: amt.CurveGrid.of(curves),
    lambda: amt.MultiTaskGP.init(curves, jax.random.key(0)),
    lambda: amt.make_kernel("config", "matern", curves, jax.random.key(0)),
    lambda: amt.Tuner(curves, jax.random.key(0)),
):
    try:
        make()
    except RuntimeError as error:
        assert "x64 mode is off" in str(error)
    else:
        raise AssertionError("no error")
with amt.precision("float64"):
    grid = amt.CurveGrid.of(curves)
    assert grid.scores.dtype == "float64"
assert amt.CurveGrid.of(curves, "float32").scores.dtype == "float32"
assert jax.config.jax_enable_x64 is False
print("passed")
"""


def test_import_leaves_jax_alone_and_float64_is_never_silently_float32(tmp_path):
    (tmp_path / "fresh.py").write_text(FRESH)
    assert Script(tmp_path / "fresh.py", []).finish() == "passed\n"


def test_precision_holds_inside_of_the_block_only():
    with amt.precision("float32"):
        assert jnp.ones(1).dtype == jnp.float32
        with amt.precision():
            assert jnp.ones(1).dtype == jnp.float64
        assert jnp.ones(1).dtype == jnp.float32
    assert jnp.ones(1).dtype == jnp.float64  # as tests/conftest.py has it


def test_precision_is_restored_after_an_error():
    with pytest.raises(KeyError), amt.precision("float32"):
        raise KeyError
    assert jax.config.jax_enable_x64


def test_float64_with_x64_off_is_an_error_that_says_what_to_do():
    with amt.precision("float32"):
        with pytest.raises(RuntimeError, match=r"amt\.precision\('float64'\)"):
            require_dtype("float64")
        with pytest.raises(RuntimeError, match="x64 mode is off"):
            amt.CurveGrid.of(small_curves())
        assert require_dtype("float32") == jnp.float32
    assert require_dtype(jnp.float64) == jnp.float64


@pytest.mark.parametrize("dtype", ["float16", "int32", jnp.bfloat16, bool])
def test_other_dtypes_are_refused(dtype):
    message = f"float32 or float64, not {jnp.dtype(dtype)}"
    with pytest.raises(ValueError, match=message):
        check_dtype(dtype)
    with pytest.raises(ValueError, match=message):
        require_dtype(dtype)
    with pytest.raises(ValueError, match=message), amt.precision(dtype):
        pass
    with pytest.raises(ValueError, match=message):
        amt.CurveGrid.of(small_curves(), dtype)
