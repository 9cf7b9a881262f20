"""Amortized multi-task multi-fidelity tuning.

One Gaussian process over all learning curves, with a product kernel over tasks, configurations
and epochs, learned exactly from past tasks; and the tuner that uses it on a new one.
"""

from amt.curves import LearningCurves
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP, Selection, select_solver
from amt.inference import Fit, fit_map, fit_mle
from amt.kernels import KERNELS, make_kernel
from amt.outcome import Outcome
from amt.parameters import parameter
from amt.precision import precision
from amt.search.acquisition import (
    ACQUISITIONS,
    expected_improvement,
    log_expected_improvement,
    upper_confidence_bound,
)
from amt.search.fitting import fit_sources
from amt.search.loop import Result, maximize, minimize
from amt.search.replay import Trajectory
from amt.search.simulate import simulate
from amt.search.stopping import Utility
from amt.search.tuner import Trial, Tuner
from amt.space import Encoder

__all__ = [
    "ACQUISITIONS",
    "KERNELS",
    "CurveGrid",
    "Encoder",
    "Fit",
    "LearningCurves",
    "MultiTaskGP",
    "Outcome",
    "Result",
    "Selection",
    "Trajectory",
    "Trial",
    "Tuner",
    "Utility",
    "expected_improvement",
    "fit_map",
    "fit_mle",
    "fit_sources",
    "log_expected_improvement",
    "make_kernel",
    "maximize",
    "minimize",
    "parameter",
    "precision",
    "select_solver",
    "simulate",
    "upper_confidence_bound",
]
