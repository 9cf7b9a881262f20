"""HEBO: a Gaussian process with warped inputs and outputs, and three acquisition functions at once.

The library suggests hyperparameters, in a search space without conditions
(`amt.tuners.unconditional`) and with logarithms and whole numbers as they are; the untried
configuration that is nearest in encoded form is trained to its end, and what has really been
trained is told. Its first suggestions, one more than there are hyperparameters, are quasi-random.

The package demands versions of others that are older than amt's; it works with new ones: `make zoo`
installs it without its demands.

Source: Cowen-Rivers et al. (2022), HEBO: Pushing The Limits of Sample-Efficient Hyper-parameter
Optimisation.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from ConfigSpace import (
    CategoricalHyperparameter,
    ConfigurationSpace,
    Constant,
    OrdinalHyperparameter,
)

from amt.space import Encoder, choices_of
from amt.tuners.record import Host, HostProblem, Record
from amt.tuners.schedule import Schedule
from amt.tuners.unconditional import active, completed


class Hebo(Schedule):
    """The tuner.

    Attributes:
        hebo: the library's optimizer.
    """

    def __init__(self, seed: int, problem: HostProblem):
        super().__init__(seed, problem)
        import torch  # pyright: ignore
        from hebo.design_space.design_space import DesignSpace  # pyright: ignore
        from hebo.optimizers.hebo import HEBO  # pyright: ignore

        # It draws from the generators of NumPy and PyTorch.
        seeds = [int(s) for s in self.rng.integers(2**31, size=3)]
        np.random.seed(seeds[0])  # noqa: NPY002
        torch.manual_seed(seeds[1])
        self.hebo = HEBO(
            DesignSpace().parse(design_space(self.sources.space)), scramble_seed=seeds[2]
        )

    def schedule(self) -> Iterator[int]:
        import pandas as pd

        space, configs = self.sources.space, self.sources.configs
        encoder = Encoder(space)
        while self.untried.size:
            suggested: Any = self.hebo.suggest(1).to_dict("records")[0]
            values = completed(space, suggested)  # constants are not suggested
            config = self.nearest_untried(encoder([active(space, values)])[0])
            yield from self.train(config)
            trained = {k: completed(space, configs[config])[k] for k in self.hebo.space.para_names}
            self.hebo.observe(pd.DataFrame([trained]), np.array([[-self.values[config]]]))


def design_space(space: ConfigurationSpace) -> list[dict[str, Any]]:
    """The search space as HEBO takes it; ordinal hyperparameters are categorical."""
    parameters = []
    h: Any
    for name, h in space.items():
        match h:
            case Constant():
                continue
            case CategoricalHyperparameter() | OrdinalHyperparameter():
                kind = {"type": "cat", "categories": list(choices_of(h))}
            case _:
                whole = isinstance(h.lower, int)
                types = ("pow_int", "int") if whole else ("pow", "num")
                kind = {"type": types[not h.log], "lb": h.lower, "ub": h.upper}
        parameters.append({"name": name, **kind})
    return parameters


RECORD = Record(
    name="hebo",
    label="HEBO",
    source="Cowen-Rivers et al. (2022), HEBO",
    make=lambda: Host(Hebo),
    packages=("hebo", "pymoo", "torch"),
    extra="zoo",
)
