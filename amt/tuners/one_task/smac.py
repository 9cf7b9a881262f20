r"""SMAC: Bayesian optimisation with random forests, plain and under Hyperband.

SMAC's own facades, models, acquisition functions and intensifiers are used as they are, on the
configurations that there are: what it draws at random is one of these (`Candidates`), and it ranks
all of them where it would search for the best acquisition value. It minimises 1 minus the score,
which its models take the logarithm of; where scores are not within [0, 1], the largest of the
sources stands for 1.

`smac` trains each configuration to its end. `smac_multi_fidelity` is asked for a configuration and
its number of epochs, from 1 to all; training goes on from the epochs that it has had.

Source: Lindauer et al. (2022), SMAC3: A Versatile Bayesian Optimization Package for Hyperparameter
Optimization.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
from ConfigSpace import Configuration, ConfigurationSpace

from amt.space import Config, make_configuration
from amt.tuners.record import Host, HostProblem, Record
from amt.tuners.schedule import Schedule


class Candidates(ConfigurationSpace):
    """A search space that only has some of the configurations of another.

    Attributes:
        candidates: these.
    """

    def __init__(self, space: ConfigurationSpace, configs: Sequence[Config]):
        super().__init__()
        self.add(space.values(), space.conditions, space.forbidden_clauses)
        self.candidates = [make_configuration(self, config) for config in configs]

    def sample_configuration(self, size: int | None = None) -> Any:
        """One of the candidates at random, or a list of so many."""
        drawn = self.random.randint(len(self.candidates), size=size or 1)
        configs = [self.candidates[index] for index in drawn]
        return configs[0] if size is None else configs


class Smac(Schedule):
    """A tuner of SMAC.

    Attributes:
        facade: SMAC itself, which is asked and told.
        numbers: of SMAC's configurations.
        ceiling: the score of cost 0.
    """

    def __init__(self, seed: int, problem: HostProblem, *, multi_fidelity: bool):
        super().__init__(seed, problem)
        from smac import HyperparameterOptimizationFacade, MultiFidelityFacade, Scenario  # pyright: ignore

        space = Candidates(self.sources.space, self.sources.configs)
        fidelities: dict[str, Any] = {}
        num_trials = -(-problem.budget // self.num_epochs)
        if multi_fidelity:
            fidelities = {"min_budget": 1, "max_budget": self.num_epochs}
            num_trials = problem.budget
        scenario = Scenario(
            space,
            deterministic=True,  # a configuration is trained once
            n_trials=max(num_trials, 4),  # a quarter of them at most is random
            seed=int(self.rng.integers(2**31)),
            output_directory=Path(gettempdir()),  # nothing is saved there
            **fidelities,
        )
        facade = MultiFidelityFacade if multi_fidelity else HyperparameterOptimizationFacade
        space.seed(scenario.seed)
        count = facade.get_initial_design(scenario)._n_configs
        start = list(dict.fromkeys(space.sample_configuration(count)))
        self.facade = facade(
            scenario,
            acquisition_maximizer=ranking(scenario),
            initial_design=facade.get_initial_design(
                scenario, n_configs=0, additional_configs=start
            ),
            config_selector=facade.get_config_selector(scenario, retries=self.num_configs + 1),
            logging_level=False,
        )
        self.numbers = {config: n for n, config in reversed([*enumerate(space.candidates)])}
        scores = self.sources.scores
        self.ceiling = 1.0 if self.sources.within_unit else float(np.nanmax(scores))
        self._worst = np.nanmin(scores)

    def schedule(self) -> Iterator[int]:
        from smac.main.exceptions import ConfigurationSpaceExhaustedException  # pyright: ignore
        from smac.runhistory import TrialValue  # pyright: ignore

        while True:
            try:
                trial = self.facade.ask()
            except (StopIteration, ConfigurationSpaceExhaustedException):
                return
            config = self.numbers[trial.config]
            epochs = self.num_epochs if trial.budget is None else max(round(trial.budget), 1)
            yield from self.train(config, epochs)
            known = self.curves[config, :epochs]
            known = known[np.isfinite(known)]
            if trial.budget is None:
                score = known.max(initial=self._worst)
            else:
                score = known[-1] if known.size else self._worst
            self.facade.tell(trial, TrialValue(cost=float(self.ceiling - score)), save=False)


def ranking(scenario: Any) -> Any:
    """SMAC's acquisition maximizer that ranks all candidates that it has not trained."""
    from smac.acquisition.maximizer import AbstractAcquisitionMaximizer  # pyright: ignore

    class Ranking(AbstractAcquisitionMaximizer):
        def _maximize(
            self, previous_configs: list[Configuration], n_points: int
        ) -> list[tuple[float, Configuration]]:
            previous = {*previous_configs}
            left = [c for c in scenario.configspace.candidates if c not in previous]
            return self._sort_by_acquisition_value(left) if left else []

    return Ranking(scenario.configspace, seed=scenario.seed)


def _record(name: str, label: str, multi_fidelity: bool) -> Record:
    return Record(
        name=name,
        label=label,
        source="Lindauer et al. (2022), SMAC3",
        make=lambda: Host(partial(Smac, multi_fidelity=multi_fidelity)),
        packages=("smac",),
        extra="zoo",
    )


RECORDS = (
    _record("smac", "SMAC", multi_fidelity=False),
    _record("smac_multi_fidelity", "SMAC, Hyperband", multi_fidelity=True),
)
