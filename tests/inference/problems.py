"""A hierarchical model and its grid, for the tests of its parts."""

import jax

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.inference.hierarchical import pooled
from tests.problems import small_curves


def started(**names):
    curves = small_curves()
    model = MultiTaskGP.init(curves, jax.random.key(0), **names)
    return pooled(model), CurveGrid.of(curves)
