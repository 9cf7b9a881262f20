r"""The model of all learning curves, and how it is solved.

\[ y[t, c, e] = m_t + f(t, c, e) + \varepsilon, \quad
   f \sim \mathrm{GP}\big(0, k_\text{task}(t, t')\, k_\text{config}(c, c')\,
   k_\text{fidelity}(e, e')\big), \quad \varepsilon \sim N(0, \sigma^2[t, e]) \]

With a nugget, every curve also has a part of its own, of the variance \(\nu_t\): the kernel is
\((k_\text{task} k_\text{config} + \delta_{tt'} \delta_{cc'} \nu_t)\, k_\text{fidelity}\).
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints
from tinygp.kernels import Kernel

from amt.curves import LearningCurves
from amt.gp.factors import Factors, Grams
from amt.gp.grid import CurveGrid, require_complete
from amt.gp.noise import NoiseKind, SeparableNoise
from amt.gp.posterior import AbstractSourcePosterior
from amt.gp.solvers.base import AbstractSolver, Solution
from amt.gp.solvers.iterative import Iterative
from amt.gp.solvers.kronecker import Kronecker
from amt.gp.solvers.observed_curves import ObservedCurves
from amt.gp.sources import Inputs, Sources
from amt.gp.spectral import numerical_rank
from amt.kernels import FidelityKernel, TaskKernel, make_kernel
from amt.parameters import parameter
from amt.precision import require_dtype


class MultiTaskGP(eqx.Module):
    """Product kernel, separable noise, and one mean for each task.

    The task means are no parameters: they are always at their maximum-likelihood value
    (generalized least squares) given the rest.

    Attributes:
        nugget: nu_t of the module docstring, or None: what one configuration does on one
            task and the kernels do not see, such as a run that fails, or the luck of its seed.
            With it the covariance is no Kronecker product. Inference is exact by
            `amt.gp.solvers.observed_curves` then, of complete grids too, and only of as many
            curves as that can take.

    Source: Cressie (1993), Statistics for Spatial Data, chapter 2, for the nugget.
    """

    task: TaskKernel
    config: Kernel
    fidelity: FidelityKernel
    noise: SeparableNoise
    nugget: Float[Array, "task"] | None = parameter(
        constraints.positive, prior=dist.Normal(-6.9, 3.0), default=None
    )

    @classmethod
    def init(
        cls,
        sources: LearningCurves,
        key: PRNGKeyArray,
        *,
        task: str = "at2",
        config: str = "deep_poly",
        fidelity: str = "at2",
        noise: NoiseKind = "homoscedastic",
        nugget: bool = False,
        dtype: DTypeLike = jnp.float64,
    ) -> "MultiTaskGP":
        """A starting point for learning from `sources`; kernels by their names in `KERNELS`.

        A nugget starts at a standard deviation of 0.1 for each task.

        Raises:
            ValueError: `nugget` is neither True nor False.
        """
        dtype = require_dtype(dtype)
        if not isinstance(nugget, bool):
            raise ValueError(f"nugget must be True or False, not {nugget!r}")
        keys = jax.random.split(key, 3)
        return cls(
            task=make_kernel("task", task, sources, keys[0], dtype),
            config=make_kernel("config", config, sources, keys[1], dtype),
            fidelity=make_kernel("fidelity", fidelity, sources, keys[2], dtype),
            noise=SeparableNoise.init(noise, sources.num_tasks, dtype),
            nugget=jnp.full((sources.num_tasks,), 1e-2, dtype) if nugget else None,
        )

    def factors(self, grid: CurveGrid) -> Factors:
        """The covariance of the scores of a grid, by its factors."""
        noise = self.noise.factors(len(grid.scores), grid.epochs)
        grams = Grams(
            task=self.task.gram(),
            config=self.config(grid.features, grid.features),
            fidelity=self.fidelity(grid.epochs, grid.epochs),
        )
        return Factors(grams, *noise, self.nugget)

    def require_product(self, grid: CurveGrid, what: str) -> None:
        """Raise an error unless the covariance is a Kronecker product and separable noise.

        Args:
            what: needs one.

        Raises:
            ValueError: a score is missing (`require_complete`), or there is a nugget.
        """
        require_complete(grid, what)
        if self.nugget is not None:
            raise ValueError(f"{what} knows no nugget: use mle or map")

    def sources(self, grid: CurveGrid) -> Sources:
        """The scores of a grid with their covariance under this model."""
        inputs = Inputs(self.config, self.fidelity, grid.features, grid.epochs)
        return Sources(self.task, self.factors(grid), grid.scores, inputs)

    def log_likelihood(self, grid: CurveGrid, solver: AbstractSolver | None = None) -> Solution:
        """Log marginal likelihood of source curves, and the task means at its maximum.

        Args:
            solver: how to compute it; by default as `select_solver` says.
        """
        solver = select_solver(self, grid).solver if solver is None else solver
        return solver.solve(self.factors(grid), grid.scores)

    def source_posterior(
        self, grid: CurveGrid, *, solver: AbstractSolver | None = None, rank: int | None = None
    ) -> AbstractSourcePosterior:
        """Condition on the source curves, for any target.

        Args:
            solver: how to compute it; by default as `select_solver` says.
            rank: eigenvalues of the fidelity's Gram matrix that are carried.
        """
        solver = select_solver(self, grid).solver if solver is None else solver
        return solver.posterior(self.sources(grid), rank)


class Selection(NamedTuple):
    """The solver that runs by default, and why."""

    solver: AbstractSolver
    reason: str


def select_solver(model: MultiTaskGP, grid: CurveGrid, *, largest: int = 4096) -> Selection:
    """Choose the solver of a model on given source curves.

    - A complete grid without a nugget is a Kronecker product: exact at any size (`Kronecker`).
    - Else it is exact while the curves are few (`ObservedCurves`): at most `largest` dimensions of
      curves with a gap, of which each has as many as the fidelity kernel has eigenvalues that
      count, and half as many complete curves.
    - Else it is estimated by conjugate gradients (`Iterative`), which know no nugget.

    ```python
    solver, reason = select_solver(model, grid)
    fit = jax.jit(fit_mle)(starts, grid, solver=solver)
    ```

    Args:
        largest: dimension of the largest matrix to factorise, which takes seconds.

    Raises:
        ValueError: there is a nugget, and too many curves; or scores are missing and not known,
            under `jax.jit`: select the solver before.
    """
    nugget = model.nugget is not None
    if grid.complete and not nugget:
        reason = "no score is missing and there is no nugget: the covariance is a Kronecker product"
        return Selection(Kronecker(), reason)
    rank = min(model.fidelity.numerical_rank, len(grid.epochs))
    if grid.complete:
        solver = ObservedCurves.of_complete(grid.scores[..., 0].size, rank)
    elif isinstance(grid.scores, Tracer):
        raise ValueError(
            "which scores are missing is not known under jax.jit: call select_solver(model, grid) "
            "before, and pass its solver"
        )
    else:
        solver = ObservedCurves.of(grid.scores, rank)
    whole, part = len(solver.whole), len(solver.part)
    most_whole, most_part = largest // 2, largest // rank
    counted = f"{part} incomplete and {whole} complete source curves"
    if whole <= most_whole and part <= most_part:
        return Selection(solver, f"exact: {counted} of rank {rank} are few enough to factorise")
    if nugget:
        raise ValueError(
            f"a nugget is for at most {most_part} incomplete and {most_whole} complete source "
            f"curves (there are {part} and {whole})"
        )
    return Selection(
        Iterative(),
        f"estimated by conjugate gradients: {counted} are more than the {most_part} and "
        f"{most_whole} that are factorised",
    )


def fidelity_rank(model: MultiTaskGP, grid: CurveGrid, *, multiple: int = 4) -> int:
    """Numerical rank of the fidelity kernel, rounded up so that few ranks need compiling.

    Models and grids that are stacked along leading axes share the largest of their ranks; models
    may have more such axes, as draws do.

    Args:
        multiple: what ranks are rounded up to a multiple of.
    """
    batch = model.noise.variance.ndim - 1, grid.epochs.ndim - 1
    gram = np.asarray(_fidelity_gram(model.fidelity, grid.epochs, batch))
    rank = numerical_rank(gram)
    return min(-(-rank // multiple) * multiple, gram.shape[-1])


@partial(jax.jit, static_argnums=2)
def _fidelity_gram(
    kernel: Kernel, epochs: Float[Array, "*batch epoch"], batch: tuple[int, int]
) -> Array:
    gram = lambda kernel, epochs: kernel(epochs, epochs)  # noqa: E731
    for axis in reversed(range(batch[0])):
        gram = jax.vmap(gram, in_axes=(0, 0 if axis < batch[1] else None))
    return gram(kernel, epochs)
