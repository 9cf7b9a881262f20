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

of which a search keeps the columns of E' epochs alone. Those of another cell are
\(A_{\cdot i} = L^{-1} k(\cdot, i)\), with the Cholesky factor L of the scores, to which one more
score adds the row \(A_{\cdot i}^\top\). So a query costs O(n C E' + r C E' + n^2), and never a
factorisation. The predictive density of each score comes with it, which components are weighted by.

Source: Rasmussen and Williams (2006), section 2.2; a row of A is one of an incremental Cholesky
factorisation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int

from amt.gp.grid import thinned
from amt.gp.observations import Observations, TargetPosterior
from amt.gp.task_regression.mixture import ALONE_NOISE, Components
from amt.gp.task_regression.widening import widening_after
from amt.linalg import cholesky, solve_lower

PREDICTED = 16  # epochs that a search predicts


def predicted_epochs(size: int) -> Int[np.ndarray, "kept"]:
    """Positions of the epochs that a search predicts, spread evenly on a logarithmic axis."""
    return thinned(size, PREDICTED)


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

    def with_cells(
        self, at: tuple[Int[Array, ""], Int[Array, ""]], cells: tuple[Int[Array, "o"], ...]
    ) -> Float[Array, "o"]:
        """Covariance of one configuration and epoch with some configurations at an epoch each."""
        return self.config[at[0], cells[0]] * self.epochs[at[1], cells[1]]

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

    def with_cells(
        self, config: Int[Array, ""], epoch: Int[Array, ""], *cells: Int[Array, "obs"]
    ) -> Float[Array, "part obs"]:
        """Prior covariance of one configuration and epoch with some, part by part.

        Args:
            cells: configuration and epoch of each of the others.
        """
        at = config, epoch
        transfer = self.weighted[:, *at] @ self.weighted[:, *cells]
        transfer += self.error.with_cells(at, cells)
        own = jnp.where(cells[0] == config, self.own[epoch, cells[1]], 0)
        residual = self.residual.with_cells(at, cells) + own
        course = self.course[epoch, cells[1]]
        others = (product.with_cells(at, cells) for product in self.separable)
        strength = self.direction[at] * self.direction[cells]
        return jnp.stack([course, transfer, strength, residual, *others])

    def among(self, config: Int[Array, "obs"], epoch: Int[Array, "obs"]) -> Float[Array, "p o o"]:
        """Prior covariance among some configurations at an epoch each, part by part."""
        of_each = jax.vmap(lambda *at: self.with_cells(*at, config, epoch), out_axes=1)
        return of_each(config, epoch)

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
    """The posterior of a target's curves at some epochs, given its scores so far.

    Attributes:
        epochs: positions of these epochs.
        mean, variance: of the noise-free score of each configuration and epoch.
        rows: A of the module docstring; rows of zeros are of no score.
        factor: L, with rows of the identity for no score.
        surprise: each score's deviation from what was expected, in standard deviations.
        cells: configuration and epoch of each score.
        log_density: log predictive density of all scores, each given those before it.
        count: number of scores so far.
    """

    epochs: Int[Array, "kept"]
    mean: Float[Array, "component config kept"]
    variance: Float[Array, "component config kept"]
    rows: Float[Array, "component obs config kept"]
    factor: Float[Array, "component obs obs"]
    surprise: Float[Array, "component obs"]
    cells: Int[Array, "2 obs"]
    log_density: Float[Array, "component"]
    count: Int[Array, ""]

    @classmethod
    def init(
        cls, prior: TargetPrior, capacity: int, epochs: Int[np.ndarray, "kept"] | None = None
    ) -> "TargetState":
        """Start without scores, with room for `capacity` of them.

        Args:
            epochs: positions of those to predict, in ascending order; None for all.
        """
        kept = jnp.arange(len(prior.noise)) if epochs is None else jnp.asarray(epochs)
        mean, variance = prior.means()[..., kept], prior.variances()[..., kept]
        (size, *shape), dtype = mean.shape, mean.dtype
        return cls(
            epochs=kept,
            mean=mean,
            variance=variance,
            rows=jnp.zeros((size, capacity, *shape), dtype),
            factor=jnp.broadcast_to(jnp.eye(capacity, dtype=dtype), (size, capacity, capacity)),
            surprise=jnp.zeros((size, capacity), dtype),
            cells=jnp.zeros((2, capacity), int),
            log_density=jnp.zeros(size, dtype),
            count=jnp.zeros((), int),
        )

    def update(
        self,
        prior: TargetPrior,
        config: Int[Array, ""],
        epoch: Int[Array, ""],
        score: Float[Array, ""],
        observed: Bool[Array, ""] | bool = True,
    ) -> "TargetState":
        """Condition on one more score; not `observed`, it changes nothing."""
        parts, capacity = prior.components.parts, self.cells.shape[1]
        told = jnp.arange(capacity) < self.count
        cross = parts @ jnp.where(told, prior.with_cells(config, epoch, *self.cells), 0)
        half = jax.vmap(solve_lower)(self.factor, cross[..., None])[..., 0]
        own = parts @ prior.with_cells(config, epoch, config[None], epoch[None])[:, 0]
        left = own - jnp.sum(jnp.square(half), 1)
        deviation = jnp.sqrt(left + prior.noises()[:, epoch])
        expected = prior.means()[:, config, epoch] + jnp.sum(half * self.surprise, 1)
        surprise = jnp.where(observed, (score - expected) / deviation, 0)
        density = norm.logpdf(surprise) - jnp.log(deviation)

        columns = jnp.tensordot(parts, prior.columns(config, epoch, self.epochs), 1)
        covariance = columns - jnp.einsum("kn,knce->kce", half, self.rows)
        added = jnp.where(observed, covariance / deviation[:, None, None], 0)
        here = jnp.arange(capacity) == self.count
        of_factor = jnp.where(here, jnp.where(observed, deviation[:, None], 1), half * observed)
        return TargetState(
            epochs=self.epochs,
            mean=self.mean + surprise[:, None, None] * added,
            variance=jnp.maximum(self.variance - jnp.square(added), 0),
            rows=self.rows.at[:, self.count].set(added),
            factor=self.factor.at[:, self.count].set(of_factor),
            surprise=self.surprise.at[:, self.count].set(surprise),
            cells=self.cells.at[:, self.count].set(jnp.stack([config, epoch])),
            log_density=self.log_density + jnp.where(observed, density, 0),
            count=self.count + jnp.asarray(observed),
        )

    def posterior(self, prior: TargetPrior) -> TargetPosterior:
        """Marginals of the noise-free scores under each component, and the weights."""
        return prior.posterior(self.mean, self.variance, self.log_density, self.count)
