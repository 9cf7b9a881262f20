"""Ways to compute the likelihood of source curves and their posterior."""

from amt.gp.solvers.base import AbstractSolver, Solution
from amt.gp.solvers.dense import Dense
from amt.gp.solvers.iterative import Iterative, Settings
from amt.gp.solvers.kronecker import Kronecker
from amt.gp.solvers.observed_curves import ObservedCurves
from amt.gp.solvers.tinygp_solver import KroneckerSolver

__all__ = [
    "AbstractSolver",
    "Dense",
    "Iterative",
    "Kronecker",
    "KroneckerSolver",
    "ObservedCurves",
    "Settings",
    "Solution",
]
