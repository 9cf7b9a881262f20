"""Draws of NUTS or variational inference from the posterior of the hierarchical model."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpyro.diagnostics import split_gelman_rubin

from amt.gp.grid import CurveGrid
from amt.gp.mixture import Mixture
from amt.gp.model import MultiTaskGP
from amt.gp.solvers.kronecker import Kronecker, KroneckerPosterior
from amt.inference.coordinates import Sites


class Statistics(NamedTuple):
    """Statistics of NUTS, draw by draw.

    Attributes:
        diverging: whether the trajectory diverged.
        num_steps: leapfrog steps, each of one gradient.
        accept_prob: mean acceptance probability along the trajectory.
        energy: the Hamiltonian.
        step_size: of the leapfrog steps, in the whitened space.
        warmup_steps: leapfrog steps of each iteration of the warm-up.
    """

    diverging: Bool[Array, "chain draw"]
    num_steps: Int[Array, "chain draw"]
    accept_prob: Float[Array, "chain draw"]
    energy: Float[Array, "chain draw"]
    step_size: Float[Array, "chain draw"]
    warmup_steps: Int[Array, "chain warmup"]


class Draws(NamedTuple):
    """Models and task means drawn from the posterior of the hierarchical model.

    Attributes:
        model: models stacked along a leading axis of all draws, one chain after the other.
        means: task means of each draw.
        sites: what was sampled, on its natural scale, by chain.
        statistics: of NUTS; None of variational inference.
        loss: minus the ELBO at each step of variational inference; None of NUTS.
    """

    model: MultiTaskGP
    means: Float[Array, "draw task"]
    sites: Sites
    statistics: Statistics | None = None
    loss: Float[Array, "step"] | None = None

    def thin(self, count: int) -> "Draws":
        """Keep models and means of `count` draws, evenly spaced, and the sites of all."""
        chosen = np.linspace(0, len(self.means) - 1, count).round().astype(int)
        model, means = jax.tree.map(lambda x: x[chosen], (self.model, self.means))
        return self._replace(model=model, means=means)

    def diagnostics(self) -> dict[str, float]:
        """Say how it went, in numbers; not for `jax.jit`.

        For NUTS the largest split R-hat (`r_hat`) of all that is sampled and the number of
        `divergences`, for variational inference the last tenth's mean `elbo`.

        Source: Gelman, Carlin, Stern, Dunson, Vehtari, Rubin (2013), section 11.4.
        """
        if self.loss is not None:
            return {"elbo": -float(self.loss[-len(self.loss) // 10 :].mean())}
        assert self.statistics is not None
        r_hat = [split_gelman_rubin(np.asarray(site)).max() for site in self.sites.values()]
        divergences = np.sum(self.statistics.diverging)
        return {"r_hat": float(max(r_hat)), "divergences": float(divergences)}

    def posterior(self, grid: CurveGrid, rank: int | None = None) -> Mixture:
        """Source posterior of every draw at its task means, each with the same weight.

        `thin` first, a dozen will do; `rank` as in `amt.gp.posterior`.
        """

        def of_draw(model: MultiTaskGP, means: Float[Array, "task"]) -> KroneckerPosterior:
            return Kronecker().posterior(model.sources(grid), rank, means)

        return Mixture.of_draws(jax.vmap(of_draw)(self.model, self.means))
