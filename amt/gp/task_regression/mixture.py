r"""Components of a target's prior, weighted by what each predicted of its scores so far.

Whether the sources say anything about a target, how much of it none of them shows, and how noisy it
is, is not known before it is trained. So there are components

- as learned, with the standard deviations of noise and of the residual halved, as they are, and
  doubled: nine in all,
- of unknown strength: the sum of the weights of the sources, about 1 as learned, is N(0, 1). Where
  the best of the sources is the worst of the target it comes out negative,
- of the sources' scales: w = 0. The mean is the sources' mean course, the same for all
  configurations, and how curves differ among the configurations of a source is the covariance of
  those of the target (`amt.gp.task_regression.surface`),
- of the target alone: curves differ as those of a task of which nothing is known, little or much
  (`amt.gp.task_regression.alone`). Where there are no sources, they differ from the first epoch on
  or more and more.

Component k has the weight

\[ w_k \propto \pi_k \prod_i p_k(y_i \mid y_1, \dots, y_{i-1}), \]

the predictive densities being those of `amt.gp.task_regression.target`. Sources that mislead lose
their weight after a few scores. While it is not known whether they do, scores that the sources'
best configurations would have in either case say nothing. So from when the components but those
as learned have most of the weight, a query trusts these others alone, or else those as learned
alone, each for as many of the queries as they have weight (`Components.trusted`).

Source: Hoeting, Madigan, Raftery, Volinsky (1999), Bayesian Model Averaging: A Tutorial, for the
weights.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

SCALES = (0.5, 1.0, 2.0)
ALONE_SCALES = (0.06, 0.25, 1.0)  # of scores, which are of the order of 1
ONLY_SCALES = (0.05, 0.1, 0.2, 0.4)  # where there are no sources
ALONE_NOISE = 0.1  # standard deviation, as a share of the scale
OTHERWISE = 0.05  # prior weight of each of the last three kinds
_GOLDEN = (5**0.5 - 1) / 2


class Components(NamedTuple):
    """Factors of the mean and of the variances of each component's parts; see `TargetPrior`.

    Attributes:
        log_weight: logarithm of the prior weight.
        noise: of the noise.
        shared: of what the sources' mean curve of a configuration differs by from that of all, 1
            or 0.
        transfer: of the sources' weighted curves, 1 or 0.
        strength: of an unknown multiple of the sources' mean curves, 1 or 0.
        residual: of what no source shows.
        surface: of how curves differ among the configurations of a source.
        steady, growing: of how they differ where no source is known.
    """

    log_weight: Float[Array, "component"]
    noise: Float[Array, "component"]
    shared: Float[Array, "component"]
    transfer: Float[Array, "component"]
    strength: Float[Array, "component"]
    residual: Float[Array, "component"]
    surface: Float[Array, "component"]
    steady: Float[Array, "component"]
    growing: Float[Array, "component"]

    @classmethod
    def of(cls, dtype: jnp.dtype) -> "Components":
        """The components of the module docstring, in their order."""
        pairs = [(noise**2, residual**2) for noise in SCALES for residual in SCALES]
        weight = (1 - 3 * OTHERWISE) / len(pairs)
        rows = [(weight, noise, 1, 1, 0, residual, 0, 0, 0) for noise, residual in pairs]
        rows.append((OTHERWISE, 1, 0, 1, 1, 1, 0, 0, 0))
        rows.append((OTHERWISE, 1, 0, 0, 0, 0, 1, 0, 0))
        each = OTHERWISE / len(ALONE_SCALES)
        rows += [(each, 0, 0, 0, 0, 0, 0, scale**2, 0) for scale in ALONE_SCALES]
        return cls._of_rows(rows, dtype)

    @classmethod
    def of_target_alone(cls, dtype: jnp.dtype) -> "Components":
        """Where there are no sources: steady and growing differences, each on more scales."""
        courses = [part for s in ONLY_SCALES for part in ((s**2, 0), (0, s**2))]
        rows = [(1 / len(courses), 0, 1, 0, 0, 0, 0, *course) for course in courses]
        return cls._of_rows(rows, dtype)

    @classmethod
    def _of_rows(cls, rows: list[tuple[float, ...]], dtype: jnp.dtype) -> "Components":
        weights, *factors = jnp.asarray(rows, dtype).T
        return cls(jnp.log(weights), *factors)

    @property
    def parts(self) -> Float[Array, "component part"]:
        """Factors of the parts of `TargetPrior.columns`, of which the course's is 1."""
        factors = self.transfer, self.strength, self.residual, self.surface
        parts = jnp.ones_like(self.transfer), *factors, self.steady, self.growing
        return jnp.stack(parts, 1)

    def trusted(
        self, log_weights: Float[Array, "component"], count: Int[Array, ""]
    ) -> Bool[Array, "component"]:
        r"""The components that a query trusts.

        All, while those as learned have at least half of the weight. Then the others, where the
        fractional part of \(n (\sqrt5 - 1) / 2\) is less than their weight, which spreads their
        queries as evenly as can be, and those as learned where it is not.

        Args:
            log_weights: of all components, whose weights sum to 1.
            count: n, number of scores and of evaluations under way.
        """
        learned = self.shared > 0
        others = jnp.sum(jnp.where(learned, 0, jnp.exp(log_weights)))
        drawn = learned != (jnp.mod(count * _GOLDEN, 1.0) < others)
        return drawn | (others <= 0.5)
