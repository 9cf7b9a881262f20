r"""The model of all learning curves: one Gaussian process with a product kernel.

\[ y[t, c, e] = m_t + f(t, c, e) + \varepsilon, \quad
   f \sim \mathrm{GP}\big(0, k_\text{task}(t, t')\, k_\text{config}(c, c')\,
   k_\text{fidelity}(e, e')\big), \quad \varepsilon \sim N(0, \sigma^2[t, e]) \]

With a nugget, every curve also has a part of its own, of the variance \(\nu_t\): the kernel is
\((k_\text{task} k_\text{config} + \delta_{tt'} \delta_{cc'} \nu_t)\, k_\text{fidelity}\).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpyro.distributions import constraints
from tinygp.kernels import Kernel

from amt.curves import LearningCurves
from amt.gp.grid import CurveGrid, require_complete
from amt.gp.noise import NoiseKind, SeparableNoise
from amt.gp.posterior import SourcePosterior
from amt.gp.solvers import iterative, observed_curves
from amt.gp.solvers.iterative import LatentSourcePosterior
from amt.gp.solvers.kronecker import profile_log_likelihood, whiten
from amt.gp.solvers.observed_curves import (
    IncompleteSourcePosterior,
    ObservedCells,
    ObservedCurvesPosterior,
)
from amt.kernels import TaskKernel, make_kernel
from amt.kernels.fidelity import AT2Fidelity, Fabolas, FreezeThaw
from amt.parameters import parameter
from amt.precision import require_dtype


def require_kronecker(model: "MultiTaskGP", grid: CurveGrid, what: str) -> None:
    """Refuse what is no Kronecker product, which `what` has no way of dealing with.

    Raises:
        ValueError: a score is missing (`require_complete`), or the model has a nugget.
    """
    require_complete(grid, what)
    if model.nugget is not None:
        raise ValueError(f"{what} knows no nugget: use mle or map")


_RANKS: dict[type[Kernel], int] = {AT2Fidelity: 8, FreezeThaw: 10, Fabolas: 2}


class MultiTaskGP(eqx.Module):
    """Product kernel, separable noise, and one mean for each task.

    The task means are no parameters: they are always at their maximum-likelihood value
    (generalized least squares) given the rest.

    Attributes:
        nugget: nu_t of the module docstring, or None: what one configuration does on one
            task and the kernels do not see, such as a run that fails, or the luck of its seed.
            With it the covariance is no Kronecker product. Inference is exact by
            `amt.gp.solvers.observed_curves` then, of complete grids too, and only of as many curves as
            that can take.

    Source: Cressie (1993), Statistics for Spatial Data, chapter 2, for the nugget.
    """

    task: TaskKernel
    config: Kernel
    fidelity: Kernel
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
        """
        dtype = require_dtype(dtype)
        keys = jax.random.split(key, 3)
        return cls(
            task=make_kernel("task", task, sources, keys[0], dtype),
            config=make_kernel("config", config, sources, keys[1], dtype),
            fidelity=make_kernel("fidelity", fidelity, sources, keys[2], dtype),
            noise=SeparableNoise.init(noise, sources.num_tasks, dtype),
            nugget=jnp.full((sources.num_tasks,), 1e-2, dtype) if nugget else None,
        )

    def _terms(self, grid: CurveGrid):
        """Gram matrices of the three axes, and the noise of tasks and epochs."""
        noise = self.noise.factors(grid.scores.shape[0], grid.epochs)
        config = self.config(grid.features, grid.features)
        return self.task.gram(), config, self.fidelity(grid.epochs, grid.epochs), noise

    def exact_rank(self, grid: CurveGrid) -> int | None:
        """How many dimensions a curve has in `amt.gp.solvers.observed_curves`, None if all are too many.

        Fidelity kernels that are analytic have eigenvalues that fall geometrically: on HyperRec,
        with 75 epochs, those behind the eighth (AT2) or tenth change a gradient by less than
        1e-6 of its norm. Behind the 24th of a Matern kernel there is 1e-3 of the noise.

        Raises:
            ValueError: they are too many, and there is a nugget.
        """
        cells = self._cells(grid)
        if cells is None:
            return None
        rank = min(_RANKS.get(type(self.fidelity), 24), len(grid.epochs))
        if cells.affordable(rank):
            return rank
        if self.nugget is not None:
            whole, part = cells.most(rank)
            raise ValueError(
                f"a nugget is for at most {part} incomplete and {whole} complete source curves "
                f"(there are {len(cells.part)} and {len(cells.whole)})"
            )
        return None

    def _cells(self, grid: CurveGrid) -> ObservedCells | None:
        """The curves of `amt.gp.solvers.observed_curves`; None where there is a faster way."""
        if not grid.complete or self.nugget is None:
            return grid.cells
        size = grid.scores[..., 0].size
        return ObservedCells(jnp.arange(size), jnp.full((1,), size))

    def _curve_terms(self, grid: CurveGrid):
        """Nugget and curves, as `amt.gp.solvers.observed_curves` has them."""
        none = jnp.zeros(len(grid.scores), grid.scores.dtype)
        return none if self.nugget is None else self.nugget, self._cells(grid)

    def log_likelihood(self, grid: CurveGrid) -> tuple[Float[Array, ""], Float[Array, "task"]]:
        """Log marginal likelihood of source curves, and the task means at its maximum.

        Of complete grids, see `amt.gp.solvers.kronecker` for the mathematics. Where scores are missing it
        is exact while the observed curves are few (`amt.gp.solvers.observed_curves`, which serves all grids
        where there is a nugget), and otherwise estimated (`amt.gp.solvers.iterative`).
        Differentiable once, in reverse mode.
        """
        task, config, fidelity, noise = self._terms(grid)
        terms = task, config, fidelity, grid.scores, *noise
        rank = self.exact_rank(grid)
        if rank is not None:
            return observed_curves.log_likelihood(*terms, *self._curve_terms(grid), rank)
        if not grid.complete:
            return iterative.log_likelihood(*terms, grid.solver)
        task_noise, epoch_noise = noise
        scores, task, fidelity, half_log_det = whiten(
            grid.scores, task, fidelity, task_noise, epoch_noise
        )
        log_likelihood, means = profile_log_likelihood(
            task, config, fidelity, scores, 1 / jnp.sqrt(epoch_noise)
        )
        return log_likelihood - half_log_det, means * jnp.sqrt(task_noise)

    def is_solved(self, grid: CurveGrid) -> Bool[Array, ""]:
        """Whether `log_likelihood` is as accurate as it is meant to be.

        False only where it is estimated and conjugate gradients stop at their most steps.
        """
        if grid.complete or self.exact_rank(grid) is not None:
            return jnp.asarray(True)
        task, config, fidelity, noise = self._terms(grid)
        return iterative.is_solved(task, config, fidelity, grid.scores, *noise, grid.solver)

    def source_posterior(
        self, grid: CurveGrid, *, rank: int | None = None
    ) -> SourcePosterior | IncompleteSourcePosterior:
        """What the sources say of any target; `rank` as in `amt.gp.posterior`."""
        _, config, fidelity, (task_noise, epoch_noise) = self._terms(grid)
        terms = self.task, config, fidelity, grid.scores
        exact = self.exact_rank(grid)
        if exact is not None:
            rank = exact if rank is None else min(rank, exact)
            curve_terms = self._curve_terms(grid)
            return ObservedCurvesPosterior.of(*terms, task_noise, epoch_noise, *curve_terms, rank)
        if not grid.complete:
            rank = grid.solver.rank if rank is None else rank
            return LatentSourcePosterior.of(*terms, task_noise, epoch_noise, rank, grid.solver)
        _, means = self.log_likelihood(grid)
        return SourcePosterior.of(*terms, means, task_noise, epoch_noise, rank)
