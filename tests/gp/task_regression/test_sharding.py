"""Tasks spread over devices have the likelihoods that they have on one."""

import os
import re

import jax
import numpy as np

from amt.gp.grid import CurveGrid
from amt.gp.task_regression.model import TaskRegression
from amt.parameters import unconstrain
from tests.problems import small_curves
from tests.processes import Script

TASKS, CONFIGS, EPOCHS = 5, 7, 3

SHARDED = """
import sys

import jax
import numpy as np

from amt.compilation import use_compilation_cache
from tests.gp.task_regression.test_sharding import value_and_grad

use_compilation_cache()
jax.config.update("jax_enable_x64", True)
program, free = value_and_grad(jax.make_mesh((4,), ("task",)))
print(program.as_text())
np.savez(sys.argv[1], *jax.tree.leaves(program(free)))
"""


def value_and_grad(mesh=None):
    """The compiled program of values and gradient, and its argument."""
    curves = small_curves(TASKS, CONFIGS, EPOCHS)
    grid = CurveGrid.of(curves)
    free, constrain = unconstrain(TaskRegression.init(curves, jax.random.key(0)))

    def function(free):
        values = constrain(free).log_likelihood(grid, mesh)
        return values @ np.arange(1.0, TASKS + 1), values  # tells the tasks apart in the gradient

    return jax.jit(jax.value_and_grad(function, has_aux=True)).lower(free).compile(), free


def test_tasks_spread_over_four_devices_are_those_of_one(tmp_path):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    (tmp_path / "sharded.py").write_text(SHARDED)
    script = Script(tmp_path / "sharded.py", [str(tmp_path / "four.npz")], environment=environment)
    program, free = value_and_grad()
    one = jax.tree.leaves(program(free))
    text = script.finish()
    with np.load(tmp_path / "four.npz") as four:
        for mine, name in zip(one, four.files, strict=True):
            size = np.abs(one[0])  # of what the gradient is of
            np.testing.assert_allclose(four[name], mine, rtol=1e-12, atol=1e-12 * size)

    every = 12  # level, course and tasks are 9 rows, and 3 on each device
    products = re.findall(r"= f64\[([\d,]+)\]\S* dot\(", text)
    assert f"3,{every}" in products  # rows of the Gram matrix
    assert not {f"{every},{EPOCHS}", f"{every * CONFIGS},{EPOCHS}"} & {*products}  # projections
    gathered = re.findall(r"= f64\[([\d,]+)\]\S* all-gather\(", text)
    assert f"{every},{CONFIGS},{EPOCHS}" in gathered
