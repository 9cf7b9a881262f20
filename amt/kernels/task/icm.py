"""Kernel between tasks of free form: the intrinsic coregionalization model."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from amt.kernels.task.base import TargetObservations, TaskKernel
from amt.linalg import cholesky, solve_cholesky, solve_lower
from amt.parameters import parameter


class ICM(TaskKernel):
    r"""Free-form coregionalization: \(K = L L^\top + \mathrm{diag}(\kappa)\), L of shape (T, rank).

    Task t is \(\sum_r L_{tr} g_r + \sqrt{\kappa_t} h_t\), of latent functions shared by all tasks
    and one of its own. A target's loadings have the prior \(N(\bar L, \mathrm{cov}(L))\) of the
    sources' rows and are replaced by their posterior mean given its observations: a linear
    regression on the latent functions as the sources determine them, with the target's own
    function, its mean and the noise as errors. Its kappa is the sources' mean.

    Source: Bonilla, Chai, Williams (2007), equation 2; Swersky, Snoek, Adams (2013), section 3.
    """

    loadings: Float[Array, "task rank"] = parameter(
        constraints.real, prior=dist.Normal(0.0, 1.0), role="loadings"
    )
    kappa: Float[Array, "task"] = parameter(
        constraints.positive,
        prior=dist.Normal(-2.3, 2.0),  # around 0.1
    )

    @classmethod
    def init(
        cls,
        scores: Float[np.ndarray, "task config epoch"],
        key: PRNGKeyArray,
        dtype: jnp.dtype,
        *,
        rank: int = 2,
    ) -> "ICM":
        """Starts with every task loading on the first latent function, and noise on the others."""
        loadings = 0.3 * jax.random.normal(key, (len(scores), rank), dtype)
        return cls(loadings=loadings.at[:, 0].add(1.0), kappa=jnp.full((len(scores),), 0.1, dtype))

    def gram(self) -> Float[Array, "task task"]:
        return self.loadings @ self.loadings.T + jnp.diag(self.kappa)

    def with_target(self, observations: TargetObservations) -> "ICM":
        prior_mean = self.loadings.mean(0)
        centred = self.loadings - prior_mean
        # The prior covariance of the loadings is R R', the errors' L L'.
        rounding = jnp.finfo(centred.dtype)
        jitter = 10 * rounding.eps * jnp.square(self.loadings).sum() + rounding.tiny
        identity = jnp.eye(centred.shape[1], dtype=centred.dtype)
        root = cholesky(centred.T @ centred / max(len(centred) - 1, 1) + jitter * identity)
        kappa = self.kappa.mean()

        latent = jnp.where(observations.mask[:, None], observations.response, 0) @ self.loadings
        residual = jnp.where(observations.mask, observations.residual, 0) - latent @ prior_mean
        whitened: Array = solve_lower(
            cholesky(observations.error(kappa)),
            jnp.concatenate([latent @ root, residual[:, None]], 1),
        )
        design, response = whitened[:, :-1], whitened[:, -1:]
        precision = cholesky(identity + design.T @ design)
        shift = root @ solve_cholesky(precision, design.T @ response)[:, 0]
        return ICM(
            loadings=jnp.concatenate([self.loadings, (prior_mean + shift)[None]]),
            kappa=jnp.append(self.kappa, kappa),
        )
