"""AT2 as published, and its model with other kernels and inference, whatever the settings are.

`at2_exact` has the kernels of the paper (`amt.kernels.AT2`) and exact maximum likelihood;
`at2_svgp` the same kernels and a sparse variational Gaussian process, as the paper, with fewer
passes (its preset `light`); `icm_matern_freeze_thaw` is one of the 64 combinations of kernels.

Source: Xiao, Xing, Neiswanger (2021), Amortized Auto-Tuning.
"""

from collections.abc import Mapping
from typing import Any

from amt.tuners.amt import Settings, amt, uses
from amt.tuners.record import Record

SVGP: Mapping[str, Any] = {"name": "svgp", "preset": "light"}
ROBUST = {"task": "icm", "config": "matern", "fidelity": "freeze_thaw"}
_SOURCE = "Xiao, Xing, Neiswanger (2021), Amortized Auto-Tuning"

RECORDS = (
    Record(
        name="at2_exact",
        label="AT2, exact",
        source=_SOURCE,
        make=lambda: amt(Settings.of()),
        uses=lambda: uses(),
    ),
    Record(
        name="at2_svgp",
        label="AT2, SVGP",
        source=_SOURCE,
        make=lambda: amt(Settings.of(inference=SVGP)),
        uses=lambda: uses(inference=SVGP),
    ),
    Record(
        name="icm_matern_freeze_thaw",
        label="icm-matern-freeze_thaw",
        source=f"{_SOURCE}; another of the 64 combinations of kernels",
        make=lambda: amt(Settings.of(kernel=ROBUST)),
        uses=lambda: uses(kernel=ROBUST),
    ),
)
