"""Maximum a posteriori: the marginal likelihood and the weak priors of `amt.inference.priors`."""

from jaxtyping import PRNGKeyArray

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.inference.mle import Fit, Optimizer, maximize
from amt.inference.priors import log_prior


def fit_map(
    starts: MultiTaskGP,
    grid: CurveGrid,
    key: PRNGKeyArray | None = None,
    *,
    optimizer: Optimizer = "adam",
    steps: int = 300,
    learning_rate: float = 0.05,
) -> Fit:
    """As `amt.inference.mle.fit_mle`, with the log prior added to the log likelihood.

    The mode is that of the density of unconstrained values (`log_prior`). `Fit.log_likelihood` is
    the sum of both.
    """

    def log_posterior(model: MultiTaskGP):
        return model.log_likelihood(grid)[0] + log_prior(model)

    return maximize(starts, log_posterior, grid, optimizer, steps, learning_rate)
