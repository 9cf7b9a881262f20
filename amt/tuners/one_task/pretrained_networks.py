"""Freeze-thaw tuners whose surrogate is a network trained on curves drawn from a prior.

They have no row with numbers: the networks' weights cannot be had from a package registry. The
package `ifbo` (0.4.1) downloads them when its model is made; CFBO has no package.

Source: Rakotoarison et al. (2024), In-Context Freeze-Thaw Bayesian Optimization for Hyperparameter
Optimization; Lee et al. (2025), Cost-Sensitive Freeze-thaw Bayesian Optimization for Efficient
Hyperparameter Tuning.
"""

from typing import NoReturn

from amt.tuners.record import Record


def no_weights() -> NoReturn:
    """Refuse to make a tuner whose weights are nowhere.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError("the weights of the tuner's network cannot be had")


RECORDS = (
    Record(
        name="ifbo",
        label="ifBO",
        source="Rakotoarison et al. (2024), In-Context Freeze-Thaw Bayesian Optimization",
        make=no_weights,
        extra="zoo",
        unavailable="its package downloads the weights of FT-PFN from a server",
    ),
    Record(
        name="cfbo",
        label="CFBO",
        source="Lee et al. (2025), Cost-Sensitive Freeze-thaw Bayesian Optimization",
        make=no_weights,
        extra="zoo",
        unavailable="no package has it or the weights of its network",
    ),
)
