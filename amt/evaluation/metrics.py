r"""Quality of a recommended configuration, by the target's own learning curves.

The value of a configuration is its largest score over all epochs, \(v_c = \max_e y[c, e]\), so
that a tuner is not punished for a curve that later falls (early stopping keeps the best epoch).
Missing scores are left out. For a recommended configuration c,

\[ \mathrm{rank} = \#\{c' : v_{c'} > v_c\}, \qquad \mathrm{regret} = \max_{c'} v_{c'} - v_c, \qquad
   \mathrm{normalized\ regret} = \frac{\mathrm{regret}}{\max_{c'} v_{c'} - \min_{c'} v_{c'}} . \]

All three are 0 for the best configuration. Rank and normalized regret can be averaged over tasks
whose scores have different ranges.

Source: Xiao, Xing, Neiswanger (2021), section 5, for the rank.
"""

import numpy as np
from jaxtyping import Float, Int


def configuration_values(curves: Float[np.ndarray, "config epoch"]) -> Float[np.ndarray, "config"]:
    """Largest score of each configuration over its epochs; NaN for one without any score.

    Raises:
        ValueError: there is no score at all.
    """
    present = ~np.isnan(curves)
    if not present.any():
        raise ValueError("no configuration has a score")
    values = np.max(curves, axis=1, initial=-np.inf, where=present)
    return np.where(present.any(1), values, np.nan)


def rank(
    curves: Float[np.ndarray, "config epoch"], recommended: Int[np.ndarray, "*batch"]
) -> Int[np.ndarray, "*batch"]:
    """Number of configurations that are strictly better; behind all others if it has no score."""
    values = configuration_values(curves)
    known = np.sort(values[~np.isnan(values)])
    worse_or_equal = np.searchsorted(known, values, side="right")
    better = len(known) - np.where(np.isnan(values), 0, worse_or_equal)
    return better[recommended]


def regret(
    curves: Float[np.ndarray, "config epoch"], recommended: Int[np.ndarray, "*batch"]
) -> Float[np.ndarray, "*batch"]:
    """Value of the best configuration minus that of the recommended one; NaN if unknown."""
    values = configuration_values(curves)
    return (np.nanmax(values) - values)[recommended]


def normalized_regret(
    curves: Float[np.ndarray, "config epoch"], recommended: Int[np.ndarray, "*batch"]
) -> Float[np.ndarray, "*batch"]:
    """`regret` as a share of that of the worst configuration; 0 where all are equally good."""
    values = configuration_values(curves)
    worst = np.nanmax(values) - np.nanmin(values)
    return regret(curves, recommended) / (worst if worst > 0 else 1.0)
