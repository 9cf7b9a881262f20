r"""A target in task regression: its prior from the sources, and conditioning on its scores.

In the model of `amt.gp.task_regression.model` the prior of a target's curves is a mixture of normal
ones (`amt.gp.task_regression.mixture`). That of component k has the mean \(m_k\) and a covariance
that is a weighted sum of seven parts,

\[ \begin{aligned}
   \text{course}   &: K_u(e, e'), &
   \text{transfer} &: \sum_i \Phi_{ice} \Phi_{ic'e'} + \kappa(c, c') V_\kappa(e, e'), \\
   \text{strength} &: \delta_{ce} \delta_{c'e'}, &
   \text{residual} &: K_C(c, c') K_E(e, e') + 1[c = c'] K_d(e, e'), &
   \text{surface}  &: R(c, c') V(e, e'), &
   \text{steady}   &: A(c, c') B(e, e'), &
   \text{growing}  &: A(c, c') G(e, e'),
   \end{aligned} \]

\(\Phi\) being the sources' curves times a root of the prior covariance of their weights, which are
integrated out, and \(\kappa \otimes V_\kappa\) the error of the sources' curves themselves, at
configurations that they do not have, or of which scores were filled in, \(\delta\) what the
sources' mean curve of a configuration differs by from that of all, and A, B and G of
`amt.gp.task_regression.alone`. Given n scores, the
covariance is \(k - A^\top A\), with a row of A for each score, and one more score of the cell i
adds the row

\[ a = \frac{k(\cdot, i) - A^\top A_{\cdot i}}{\sqrt{k(i, i) - A_{\cdot i}^\top A_{\cdot i}
   + \sigma^2_i}}, \]

so that a query costs O(n C E + r C E), and never a factorisation. The predictive density of each
score comes with it, which components are weighted by.

Source: Rasmussen and Williams (2006), section 2.2; a row of A is one of an incremental Cholesky
factorisation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int

from amt.gp.observations import Observations, TargetPosterior
from amt.gp.task_regression.mixture import ALONE_NOISE, Components
from amt.gp.task_regression.widening import widening_after
from amt.linalg import cholesky, solve_lower


class Product(NamedTuple):
    """A covariance of configurations times one of epochs.

    Attributes:
        config: of the configurations that can have scores with all.
        variance: of each configuration.
        epochs: of the epochs.
    """

    config: Float[Array, "observable config"]
    variance: Float[Array, "config"]
    epochs: Float[Array, "epoch epoch"]

    @classmethod
    def of(
        cls, config: Float[Array, "config config"], epochs: Float[Array, "epoch epoch"]
    ) -> "Product":
        """A product of covariances whose configurations can all have scores."""
        return cls(config, jnp.diagonal(config), epochs)

    def column(self, config: Int[Array, ""], epoch: Int[Array, ""]) -> Float[Array, "config epoch"]:
        """Covariance of one configuration and epoch with all."""
        return self.config[config][:, None] * self.epochs[epoch]

    def among(self, config: Int[Array, "obs"], epoch: Int[Array, "obs"]) -> Float[Array, "o o"]:
        """Covariance among some configurations at an epoch each."""
        return self.config[config][:, config] * self.epochs[epoch][:, epoch]

    def diagonal(self) -> Float[Array, "config epoch"]:
        """Variance of each configuration and epoch."""
        return self.variance[:, None] * jnp.diagonal(self.epochs)


class TargetPrior(NamedTuple):
    """The prior of a target's curves of the module docstring, in units of the scores.

    Attributes:
        mean: with transfer, of each configuration and epoch.
        typical: without transfer, of each epoch.
        weighted: Phi.
        course: K_u, the unknown level of the task included.
        error, residual, surface, steady, growing: the products of the module docstring.
        own: K_d.
        noise: variance of each epoch.
        components: factors of all of it.
        widening: factors of standard deviations in forecasts (`widening_after`).
    """

    mean: Float[Array, "config epoch"]
    typical: Float[Array, "epoch"]
    weighted: Float[Array, "row config epoch"]
    course: Float[Array, "epoch epoch"]
    error: Product
    residual: Product
    own: Float[Array, "epoch epoch"]
    surface: Product
    steady: Product
    growing: Product
    noise: Float[Array, "epoch"]
    components: Components
    widening: Float[Array, "count"]

    @property
    def direction(self) -> Float[Array, "config epoch"]:
        """Difference delta of the sources' mean curve of each configuration from that of all."""
        return self.mean - self.typical

    @property
    def separable(self) -> tuple[Product, ...]:
        """The parts behind the residual that are products, in the order of `Components.parts`."""
        return self.surface, self.steady, self.growing

    def means(self) -> Float[Array, "component config epoch"]:
        """Prior mean of each component."""
        return self.typical + self.components.shared[:, None, None] * self.direction

    def noises(self) -> Float[Array, "component epoch"]:
        """Noise variance of each component."""
        of_sources = self.components.noise[:, None] * self.noise
        alone = self.components.steady + self.components.growing
        return of_sources + ALONE_NOISE**2 * alone[:, None]

    def columns(
        self,
        config: Int[Array, ""],
        epoch: Int[Array, ""],
        epochs: Int[Array, "kept"] | slice = slice(None),
    ) -> Float[Array, "part config kept"]:
        """Prior covariance of one configuration and epoch with all, part by part.

        Args:
            epochs: of the others, by position.
        """
        weighted = self.weighted[:, :, epochs]
        transfer = jnp.tensordot(self.weighted[:, config, epoch], weighted, 1)
        transfer += self.error.column(config, epoch)[:, epochs]
        residual = self.residual.column(config, epoch).at[config].add(self.own[epoch])[:, epochs]
        course = jnp.broadcast_to(self.course[epoch, epochs], transfer.shape)
        others = (product.column(config, epoch)[:, epochs] for product in self.separable)
        strength = self.direction[config, epoch] * self.direction[:, epochs]
        return jnp.stack([course, transfer, strength, residual, *others])

    def variances(self) -> Float[Array, "component config epoch"]:
        """Prior variance of each component."""
        transfer = jnp.sum(jnp.square(self.weighted), 0) + self.error.diagonal()
        residual = self.residual.diagonal() + jnp.diagonal(self.own)
        course = jnp.broadcast_to(jnp.diagonal(self.course), transfer.shape)
        strength = jnp.square(self.direction)
        others = (product.diagonal() for product in self.separable)
        parts = jnp.stack([course, transfer, strength, residual, *others])
        return jnp.tensordot(self.components.parts, parts, 1)

    def among(self, config: Int[Array, "obs"], epoch: Int[Array, "obs"]) -> Float[Array, "p o o"]:
        """Prior covariance among some configurations at an epoch each, part by part."""
        features = self.weighted[:, config, epoch].T
        transfer = features @ features.T + self.error.among(config, epoch)
        own = jnp.where(config[:, None] == config, self.own[epoch][:, epoch], 0)
        residual = self.residual.among(config, epoch) + own
        course = self.course[epoch][:, epoch]
        others = (product.among(config, epoch) for product in self.separable)
        direction = self.direction[config, epoch]
        strength = direction[:, None] * direction
        return jnp.stack([course, transfer, strength, residual, *others])

    def condition(
        self,
        observations: Observations,
        pending: Observations | None = None,
        epochs: Int[Array, "kept"] | None = None,
    ) -> TargetPosterior:
        """The posterior given all scores at once, by one factorisation of each component.

        Args:
            pending: evaluations under way; see `AbstractSourcePosterior.condition`.
            epochs: positions of those to predict; None for all.
        """
        at, under_way = observations.with_pending(pending)
        kept = jnp.arange(len(self.noise)) if epochs is None else epochs
        told = at.mask
        used = told if under_way is None else told | under_way
        parts = jax.vmap(lambda c, e: self.columns(c, e, kept), out_axes=1)(at.config, at.epoch)
        among, factors = self.among(at.config, at.epoch), self.components.parts
        both = used[:, None] & used

        def of_component(component: tuple[Array, ...]) -> tuple[Array, ...]:
            mean, variance, factors, noise = component
            gram = jnp.where(both, jnp.tensordot(factors, among, 1), 0)
            factor = cholesky(gram + jnp.diag(jnp.where(used, noise[at.epoch], 1)))
            residual = jnp.where(told, at.score - mean[at.config, at.epoch], 0)
            # At its posterior mean, an evaluation under way is no surprise.
            surprise = jnp.where(told, solve_lower(factor, residual[:, None])[:, 0], 0)
            cross = jnp.where(used[:, None, None], jnp.tensordot(factors, parts, 1), 0)
            half = solve_lower(factor, cross.reshape(len(cross), -1)).reshape(cross.shape)
            density = norm.logpdf(surprise) - jnp.log(jnp.diagonal(factor))
            return (
                mean[:, kept] + jnp.tensordot(surprise, half, 1),
                jnp.maximum(variance[:, kept] - jnp.sum(jnp.square(half), 0), 0),
                jnp.sum(jnp.where(told, density, 0)),
            )

        components = self.means(), self.variances(), factors, self.noises()
        mean, variance, log_density = jax.lax.map(of_component, components)
        return self.posterior(mean, variance, log_density, jnp.sum(used))

    def posterior(
        self,
        mean: Float[Array, "component config kept"],
        variance: Float[Array, "component config kept"],
        log_density: Float[Array, "component"],
        count: Int[Array, ""],
    ) -> TargetPosterior:
        """The mixture of the components' posteriors, given the density of the scores under each.

        Args:
            count: number of scores and of evaluations under way.
        """
        log_weights = jax.nn.log_softmax(self.components.log_weight + log_density)
        trusted = self.components.trusted(log_weights, count)
        widening = widening_after(self.widening, count)
        return TargetPosterior(mean, variance, log_weights, trusted, widening)

    def weights(
        self, observations: Observations
    ) -> tuple[Float[Array, "component one+row"], Float[Array, "component one+row one+row"]]:
        """Mean and covariance of what delta and the rows of Phi are weighted by, given all scores.

        They are standard normal before, and 0 in components that do not have them.
        """
        config, epoch, told = observations.config, observations.epoch, observations.mask
        among, both = self.among(config, epoch), told[:, None] & told
        rows = jnp.concatenate([self.direction[None], self.weighted])
        features = jnp.where(told, rows[:, config, epoch], 0)

        def of_component(component: tuple[Array, ...]) -> tuple[Array, ...]:
            mean, factors, noise, transfer, strength = component
            gram = jnp.where(both, jnp.tensordot(factors, among, 1), 0)
            factor = cholesky(gram + jnp.diag(jnp.where(told, noise[epoch], 1)))
            residual = jnp.where(told, observations.score - mean[config, epoch], 0)
            has = jnp.full(len(rows), transfer).at[0].set(strength)
            half = solve_lower(factor, features.T * has)
            mean = half.T @ solve_lower(factor, residual[:, None])[:, 0]
            return mean, jnp.diag(has) - half.T @ half

        components = self.means(), self.components.parts, self.noises()
        has = self.components.transfer, self.components.strength
        return jax.lax.map(of_component, (*components, *has))


class TargetState(NamedTuple):
    """The posterior of a target's curves, given its scores so far.

    Attributes:
        mean, variance: of the noise-free score of each configuration and epoch.
        rows: A of the module docstring; rows of zeros are of no score.
        log_density: log predictive density of all scores, each given those before it.
        count: number of scores so far.
    """

    mean: Float[Array, "component config epoch"]
    variance: Float[Array, "component config epoch"]
    rows: Float[Array, "component obs config epoch"]
    log_density: Float[Array, "component"]
    count: Int[Array, ""]

    @classmethod
    def init(cls, prior: TargetPrior, capacity: int) -> "TargetState":
        """Start without scores, with room for `capacity` of them."""
        mean, variance = prior.means(), prior.variances()
        size, *shape = mean.shape
        rows = jnp.zeros((size, capacity, *shape), mean.dtype)
        return cls(mean, variance, rows, jnp.zeros(size, mean.dtype), jnp.zeros((), int))

    def update(
        self,
        prior: TargetPrior,
        config: Int[Array, ""],
        epoch: Int[Array, ""],
        score: Float[Array, ""],
        observed: Bool[Array, ""] | bool = True,
    ) -> "TargetState":
        """Condition on one more score; not `observed`, it changes nothing."""
        columns = jnp.tensordot(prior.components.parts, prior.columns(config, epoch), 1)
        before = jnp.einsum("kn,knce->kce", self.rows[:, :, config, epoch], self.rows)
        covariance = columns - before
        deviation = jnp.sqrt(covariance[:, config, epoch] + prior.noises()[:, epoch])
        added = jnp.where(observed, covariance / deviation[:, None, None], 0)
        surprise = (score - self.mean[:, config, epoch]) / deviation
        surprise = jnp.where(observed, surprise, 0)
        density = norm.logpdf(surprise) - jnp.log(deviation)
        return TargetState(
            mean=self.mean + surprise[:, None, None] * added,
            variance=jnp.maximum(self.variance - jnp.square(added), 0),
            rows=self.rows.at[:, self.count].set(added),
            log_density=self.log_density + jnp.where(observed, density, 0),
            count=self.count + jnp.asarray(observed),
        )

    def posterior(self, prior: TargetPrior) -> TargetPosterior:
        """Marginals of the noise-free scores under each component, and the weights."""
        return prior.posterior(self.mean, self.variance, self.log_density, self.count)
