r"""A mixture of priors of a target, weighted by what each predicted of its scores so far.

How noisy a target is, how much of it no source shows, and whether the sources say anything about it
is not known before it is trained. So there are components with the standard deviations of noise
and of the residual halved, as learned, and doubled, and one without transfer
(`without_transfer`); component k has the weight

\[ w_k \propto \pi_k \prod_i p_k(y_i \mid y_1, \dots, y_{i-1}), \]

the predictive densities being those of `TargetState`. Sources that mislead lose their weight
after a few scores.

Source: Hoeting, Madigan, Raftery, Volinsky (1999), Bayesian Model Averaging: A Tutorial, for the
weights.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from amt.gp.grid import CurveGrid
from amt.gp.observations import TargetPosterior
from amt.gp.task_regression.model import CommonScale, TaskRegression
from amt.gp.task_regression.target import TargetPrior, TargetState

SCALES = (0.5, 1.0, 2.0)
WITHOUT_TRANSFER = 0.1


def without_transfer(prior: TargetPrior, grid: CurveGrid, *, smooth: float = 0.6) -> TargetPrior:
    """The prior of a target whose curves are like no source's, w = 0.

    The mean is the sources' mean course, the same for all configurations, and how curves differ
    among the configurations of a source is the covariance of h and d.

    Args:
        prior: with transfer, which gives all that is the same.
        grid: curves of the sources.
        smooth: the share of h in that covariance.
    """
    level, scale, curves = CommonScale.of(grid.scores)
    course = jnp.mean(level) + jnp.mean(scale) * jnp.mean(curves, (0, 1))
    among = curves - jnp.mean(curves, 1, keepdims=True)
    total = jnp.einsum("tce,tcf->ef", among, among) / (among.shape[0] * among.shape[1])
    total *= jnp.square(jnp.mean(scale))
    return prior._replace(
        mean=jnp.broadcast_to(course, prior.mean.shape),
        weighted=prior.weighted.at[1:].set(0),
        fidelity=smooth * total,
        own=(1 - smooth) * total,
    )


class MixturePrior(NamedTuple):
    """Priors of a target, stacked along a leading axis, and the logarithms of their weights."""

    components: TargetPrior
    log_weights: Float[Array, "component"]

    @classmethod
    def of(cls, model: TaskRegression, grid: CurveGrid) -> "MixturePrior":
        """The components of the module docstring, the one without transfer last."""
        learned = model.target_prior(grid)
        scales = [(noise, residual) for noise in SCALES for residual in SCALES]
        components = [*(learned.scaled(*pair) for pair in scales), without_transfer(learned, grid)]
        share = math.log((1 - WITHOUT_TRANSFER) / len(scales))
        log_weights = jnp.asarray([share] * len(scales) + [math.log(WITHOUT_TRANSFER)])
        return cls(
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *components),
            log_weights.astype(grid.scores.dtype),
        )


class MixtureState(NamedTuple):
    """A target's mixture given its scores so far.

    Attributes:
        prior: of the target.
        states: of each component.
        count: of the updates so far, those without a score included.
    """

    prior: MixturePrior
    states: TargetState
    count: Int[Array, ""]

    @classmethod
    def init(cls, prior: MixturePrior, capacity: int) -> "MixtureState":
        """Start without scores, with room for `capacity` updates."""
        states = jax.vmap(lambda component: TargetState.init(component, capacity))
        return cls(prior, states(prior.components), jnp.zeros((), int))

    def update(
        self,
        config: Int[Array, ""],
        epoch: Int[Array, ""],
        score: Float[Array, ""],
        observed: Bool[Array, ""] | bool = True,
    ) -> "MixtureState":
        """Condition every component on one more score; not `observed`, nothing changes."""

        def of_component(prior: TargetPrior, state: TargetState) -> TargetState:
            return state.update(prior, self.count, config, epoch, score, observed)

        states = jax.vmap(of_component)(self.prior.components, self.states)
        return MixtureState(self.prior, states, self.count + 1)

    @property
    def noise(self) -> Float[Array, "component epoch"]:
        """Noise variance of each epoch under each component."""
        return self.prior.components.noise

    def posterior(self) -> TargetPosterior:
        """Marginals of the noise-free scores under each component, and the weights."""
        log_weights = jax.nn.log_softmax(self.prior.log_weights + self.states.log_density)
        return TargetPosterior(self.states.mean, self.states.variance, log_weights)
