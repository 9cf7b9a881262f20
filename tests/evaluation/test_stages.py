import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.testing import assert_array_equal

from amt.evaluation.stages import Stage, stage_of


def test_a_stage_runs_on_every_cell_and_compiles_once_for_each_shape():
    traced = []

    def double(x, *, offset):
        traced.append(x.shape)
        return 2 * x + offset

    stage, mesh = Stage(double), Mesh(jax.devices()[:1], ("cell",))
    for size in (2, 3, 2, 3):
        run = stage(mesh, jnp.ones((4, size)), offset=1)
        assert_array_equal(run.output, np.full((4, size), 3.0))
        assert run.compiling >= 0 < run.running
        assert run.memory >= 2 * 4 * size * run.output.dtype.itemsize
    assert traced == [(2,), (3,)]
    assert stage(mesh, jnp.ones((4, 2)), offset=2)[0].tolist() == [[4, 4]] * 4
    assert len(traced) == 3
    assert stage.compilations == 3


def test_a_function_has_one_stage():
    assert stage_of(test_a_function_has_one_stage) is stage_of(test_a_function_has_one_stage)
