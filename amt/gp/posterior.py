r"""Posteriors of source curves: predictions of any target task, and of the sources themselves.

Given all source scores, the f of a target with covariances \(k_*\) with the sources is a Gaussian
process whose covariance between the configurations and epochs (x, e) and (x', e') is

\[ u_e^\top \big( s\, k_C(x, x') \Lambda - \Psi(x, x') \big) u_{e'}, \]

with the target's variance s, the eigenvalues \(\Lambda\) of the fidelity's Gram matrix, the rows
\(u_e\) of its eigenvectors, and \(\Psi\) what the sources explain. How \(\Psi\) is found is what
posteriors differ in. Smooth fidelity kernels have few eigenvalues above rounding error: only the
largest `rank` are carried (`amt.gp.spectral.numerical_rank` says how many there are), which
changes nothing but time.

A source's f is that of a target whose covariances with all tasks are the source's, none of whose
scores is known by itself: \(k_* = K_T e_t\), \(s = [K_T]_{tt}\). At an epoch e off the grid it is
\(u_e = \Lambda^{-1} Q^\top B^{-1/2} k_E(E, e)\), and what \(u_e\) leaves of \(k_E(e, e)\) is
independent of everything on the grid.
"""

from abc import abstractmethod
from dataclasses import replace
from typing import NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from amt.gp.conditioning import beside_sources, condition_on, mean_prior, target_noise
from amt.gp.observations import Observations, TargetPosterior
from amt.gp.sources import Rows, Sources
from amt.gp.spectral import Eigen
from amt.kernels.task.base import bordered


class CurvePrediction(NamedTuple):
    """Marginals of the noise-free scores of the sources, their means included."""

    mean: Float[Array, "task row epoch"]
    variance: Float[Array, "task row epoch"]


class Target(NamedTuple):
    """A target task's covariances, before its observations are conditioned on.

    Attributes:
        gram: Gram matrix of the sources and the target, which is last.
        nugget: variance of the target's curves by themselves; 0 for none.
        shared: covariance of that with each source's own; None of a target that is no source.
    """

    gram: Float[Array, "task+1 task+1"]
    nugget: Float[Array, ""] | float = 0.0
    shared: Float[Array, "task"] | None = None


class TargetPrior(NamedTuple):
    """A target given the sources alone, its mean left out.

    Attributes:
        mean: of each configuration and epoch.
        variance: of each.
        cross: covariances of the observations with each configuration's functions of the epoch.
    """

    mean: Float[Array, "row epoch"]
    variance: Float[Array, "row epoch"]
    cross: Float[Array, "obs row rank"]


class AbstractSourcePosterior(eqx.Module):
    """The posterior of source curves, which predicts any target and the sources themselves.

    Attributes:
        sources: the source curves and their covariance.
        fidelity: eigenvalues and vectors of the epochs' Gram matrix in units of the noise, only
            the largest.
        source_mean: the sources' means.
    """

    sources: Sources
    fidelity: Eigen
    source_mean: Float[Array, "task"]

    @abstractmethod
    def response(self, rows: Rows) -> Float[Array, "task row epoch"]:
        """The prediction of a target per unit of its covariance with each source.

        See `amt.kernels.task.TargetObservations.response`.
        """

    @abstractmethod
    def prior(
        self, target: Target, rows: Rows, at: Observations, functions: Float[Array, "epoch rank"]
    ) -> TargetPrior:
        """The target given the sources alone; NaN where it is indefinite together with them.

        Args:
            target: its covariances with the sources.
            rows: the configurations.
            at: where it has observations; their scores are not used.
            functions: the eigenvectors at the epochs asked for.
        """

    @property
    def noise(self) -> Float[Array, "epoch"]:
        """The target's noise variance at each epoch."""
        factors = self.sources.factors
        return target_noise(factors.task_noise) * factors.epoch_noise

    @property
    def basis(self) -> Float[Array, "epoch rank"]:
        """Eigenvectors of the fidelity at the grid's epochs, in units of the scores."""
        return self.fidelity.vectors * jnp.sqrt(self.sources.factors.epoch_noise)[:, None]

    def on_grid(self) -> Self:
        """The same posterior without the kernels that only other configurations and epochs need.

        A function that is compiled for it serves all kernels of configurations and epochs.
        """
        return replace(self, sources=replace(self.sources, inputs=None))

    def condition(
        self,
        observations: Observations,
        extra: Float[Array, "extra feature"] | None = None,
        pending: Observations | None = None,
        *,
        observable: int | None = None,
    ) -> TargetPosterior:
        """The target's posterior given the sources and its observations.

        Where the task kernel is indefinite together with the target (`AT2Task` with `psd=None`),
        a variance can be negative; the posterior is then NaN, never silently wrong.

        Args:
            extra: features of configurations off the grid; they count, and the posterior has
                them, behind those of the grid.
            pending: evaluations under way, their scores unused. They count as observed at their
                posterior mean given `observations`: they lower variances and leave means as they
                are. The similarity of tasks is that of `observations` alone.
            observable: how many of `extra`, the first ones, can have observations; None for all.

        Source: Ginsbourger, Le Riche, Carraro (2010), the kriging believer; Desautels, Krause,
        Burdick (2014), section 4.
        """
        sources = self.sources
        rows = sources.rows(extra, observable)
        at, under_way = observations.with_pending(pending)
        config, epoch, told = at.config, at.epoch, slice(len(observations.score))
        mean, mean_variance = mean_prior(self.source_mean, sources.scores)
        noise, basis = self.noise[epoch], self.basis

        between_epochs = (basis[epoch] * self.fidelity.values) @ basis[epoch].T
        between = (rows.gram[config][:, config] * between_epochs)[told, told]
        nugget = own = 0.0
        if sources.factors.nugget is not None:
            nugget = jnp.mean(sources.factors.nugget)
            same = config[:, None] == config
            own = (jnp.where(same, nugget, 0) * between_epochs)[told, told]
        seen = beside_sources(
            observations,
            sources.scores,
            self.response(rows),
            (mean, mean_variance),
            between,
            noise[told],
            own,
        )
        target = Target(sources.task.with_target(seen).gram(), nugget)
        prior = self.prior(target, rows, at, basis)

        # The unknown mean is one more function of the epoch, constant and of all configurations.
        deviation = jnp.sqrt(mean_variance)
        constant = jnp.full((*prior.cross.shape[:2], 1), deviation, basis.dtype)
        return condition_on(
            at,
            noise,
            TargetPosterior(mean + prior.mean, prior.variance + mean_variance),
            jnp.concatenate([prior.cross, constant], -1),
            jnp.concatenate([basis, jnp.full((len(basis), 1), deviation, basis.dtype)], 1),
            under_way,
        )

    def curves(
        self,
        features: Float[Array, "row feature"] | None = None,
        epochs: Float[Array, "epoch"] | None = None,
    ) -> CurvePrediction:
        """Predict the sources' own curves given all their scores.

        In place of a target's unknown mean stands the source's, at its generalized-least-squares
        value; how uncertain that is, is left out, as it is from the likelihood.

        Args:
            features: of the configurations; by default those of the grid. Where there is a
                nugget, each has another curve than those of the grid, even where it has the
                features of one.
            epochs: as a share of the grid's last; by default those of the grid.
        """
        sources, skip = self.sources, len(self.sources.scores[0])
        rows = sources.rows(features)
        functions, left = self._functions(epochs)
        gram, nugget = sources.factors.grams.task, sources.factors.nugget
        nothing = Observations.empty(1, sources.scores.dtype)

        def of_task(task: Int[Array, ""]) -> CurvePrediction:
            row = gram[task]
            target = Target(bordered(gram, row, row[task]))
            if nugget is not None:
                shared = jnp.where(jnp.arange(len(nugget)) == task, nugget, 0)
                target = Target(target.gram, nugget[task], shared)
            prior = self.prior(target, rows, nothing, functions)
            variance = prior.variance
            if left is not None:
                own = row[task] * rows.variance + target.nugget
                variance += own[:, None] * left
            keep = slice(0 if features is None else skip, None)
            return CurvePrediction(prior.mean[keep] + self.source_mean[task], variance[keep])

        return jax.lax.map(of_task, jnp.arange(len(gram)))

    def _functions(
        self, epochs: Float[Array, "epoch"] | None
    ) -> tuple[Float[Array, "epoch rank"], Float[Array, "epoch"] | None]:
        """The eigenvectors at any epochs, and the variance that they leave there."""
        if epochs is None:
            return self.basis, None
        inputs, values = self.sources.off_grid(), self.fidelity.values
        scale = jnp.sqrt(self.sources.factors.epoch_noise)
        cross = inputs.fidelity(epochs, inputs.epochs) / scale
        positive = values > jnp.finfo(values.dtype).eps * values[-1]
        functions = cross @ self.fidelity.vectors
        functions = jnp.where(positive, functions / jnp.where(positive, values, 1), 0)
        left = inputs.fidelity(epochs) - jnp.square(functions) @ values
        return functions, jnp.maximum(left, 0)


def less_explained(
    posterior: AbstractSourcePosterior,
    variance: Float[Array, ""],
    target: Target,
    rows: Rows,
    at: Observations,
    functions: Float[Array, "epoch rank"],
    explained: tuple[Float[Array, "obs row rank"], Float[Array, "row rank rank"]],
) -> tuple[Float[Array, "row epoch"], Float[Array, "obs row rank"]]:
    r"""Compute `TargetPrior.variance` and `TargetPrior.cross` from what the sources explain.

    Args:
        variance: s of the module docstring.
        explained: \(\Psi\) between the observations and each configuration's functions, and
            between the functions of each configuration.

    Returns:
        Both, the variance NaN where it is negative by more than rounding errors.
    """
    values = posterior.fidelity.values
    at_observations, among = explained
    itself = jnp.where(at.config[:, None] == jnp.arange(len(rows.cross)), target.nugget, 0)
    between = variance * rows.gram[at.config] + itself
    cross = between[:, :, None] * (posterior.basis[at.epoch] * values)[:, None, :]
    own = (variance * rows.variance + target.nugget)[:, None]
    marginal = own * (jnp.square(functions) @ values)
    rounding = 1e3 * jnp.finfo(marginal.dtype).eps * jnp.max(jnp.abs(marginal))
    marginal -= jnp.einsum("xkl,ek,el->xe", among, functions, functions)
    indefinite = jnp.min(marginal) < -rounding
    marginal = jnp.where(indefinite, jnp.nan, jnp.maximum(marginal, 0))
    return marginal, cross - at_observations
