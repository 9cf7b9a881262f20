"""Kernel between tasks by learned embeddings."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions import constraints

from amt.kernels.task.base import GivenGram, TargetObservations, TaskKernel, bordered
from amt.linalg import cholesky, solve_cholesky, solve_lower
from amt.parameters import parameter

_STEPS = 10


class LatentTask(TaskKernel):
    r"""RBF kernel on a learned embedding of tasks.

    \[ k(t, t') = s \exp(-\tfrac12 \lVert z_t - z_{t'} \rVert^2), \qquad z_t \in \mathbb{R}^D \]

    A target's embedding is not learned but inferred. Its prior is \(z \sim N(\bar z, \Sigma)\),
    \(\Sigma = (I + \sum_t (z_t - \bar z)(z_t - \bar z)^\top) / T\): the sources' moments, and one
    more task's worth of the standard normal. Its scores are \(R\, k(z)\) (`response`) plus errors:
    what a typical source has that the other sources do not determine (\(1 / (K^{-1})_{tt}\) of
    its variance, the mean over tasks), its mean and the noise. The posterior of z is the Gaussian
    at its mode, found by a fixed number of Levenberg-Marquardt steps from the prior mean or the
    source that explains the observations best, with the curvature there (that of Gauss and Newton
    where the other is not positive definite).

    The target's covariances with the sources are their means over this \(N(\mu, C)\),

    \[ k(*, t) = s\, |I + C|^{-1/2} \exp(-\tfrac12 (\mu - z_t)^\top (I + C)^{-1} (\mu - z_t)), \]

    and its variance is s. The mean of positive semi-definite matrices is one, so that nothing
    needs projecting, and the less is known of z, the less similar is the target to any source.

    Source: Lawrence (2005) for the embedding, Girard, Rasmussen, Quinonero Candela, Murray-Smith
    (2003) for the mean over an uncertain input.
    """

    embedding: Float[Array, "task latent"] = parameter(
        constraints.real, prior=dist.Normal(0.0, 1.0), role="embedding"
    )
    scale: Float[Array, ""] = parameter(
        constraints.positive, prior=dist.Normal(0.0, 3.0), role="scale"
    )

    @classmethod
    def init(
        cls,
        scores: Float[np.ndarray, "task config epoch"],
        key: PRNGKeyArray,
        dtype: jnp.dtype,
        *,
        dimension: int = 2,
    ) -> "LatentTask":
        """Starts at s = 1 and embeddings at random, at which tasks correlate by about 0.6."""
        embedding = jax.random.normal(key, (len(scores), dimension), dtype) / dimension**0.5
        return cls(embedding=0.7 * embedding, scale=jnp.ones((), dtype))

    def gram(self) -> Float[Array, "task task"]:
        difference = self.embedding[:, None] - self.embedding
        return self.scale * jnp.exp(-jnp.square(difference).sum(-1) / 2)

    def with_target(self, observations: TargetObservations) -> GivenGram:
        gram, z = self.gram(), self.embedding
        center = z.mean(0)
        identity = jnp.eye(z.shape[1], dtype=z.dtype)
        root = cholesky((identity + (z - center).T @ (z - center)) / len(z))
        standard: Array = solve_lower(root, (z - center).T)

        # With z = center + root u: minus log density of u, u'u / 2 + k'Gk / 2 - g'k.
        G, g = self._evidence(gram, observations)

        def covariances(u):
            difference = z - center - root @ u
            k = self.scale * jnp.exp(-jnp.square(difference).sum(-1) / 2)
            return k, k[:, None] * (difference @ root)

        def loss(u, k):
            return (u @ u + k @ G @ k) / 2 - g @ k

        def curvature(jacobian):
            return identity + jacobian.T @ G @ jacobian

        def step(_, carry):
            u, value, damping = carry
            k, jacobian = covariances(u)
            gradient = u + jacobian.T @ (G @ k - g)
            factor = cholesky(curvature(jacobian) + damping * identity)
            proposal = u - solve_cholesky(factor, gradient[:, None])[:, 0]
            proposed = loss(proposal, covariances(proposal)[0])
            better = proposed < value
            return (
                jnp.where(better, proposal, u),
                jnp.where(better, proposed, value),
                jnp.where(better, damping / 10, 10 * damping + 1),
            )

        starts = jnp.pad(standard.T, ((1, 0), (0, 0)))
        values = jax.vmap(lambda u: loss(u, covariances(u)[0]))(starts)
        best = jnp.argmin(values)
        carry = (starts[best], values[best], jnp.zeros((), z.dtype))
        u = jax.lax.fori_loop(0, _STEPS, step, carry)[0]

        # C = root H^{-1} root' at the mode, H the curvature.
        k, jacobian = covariances(u)
        weight = k * (G @ k - g)
        difference = (z - center - root @ u) @ root
        more = difference.T @ (weight[:, None] * difference) - weight.sum() * (root.T @ root)
        factor, newton = cholesky(curvature(jacobian)), cholesky(curvature(jacobian) + more)
        factor = jnp.where(jnp.isfinite(newton).all(), newton, factor)
        half: Array = solve_lower(factor, root.T)
        spread = cholesky(identity + half.T @ half)
        scaled: Array = solve_lower(spread, (z - center - root @ u).T)
        row = self.scale * jnp.exp(-jnp.square(scaled).sum(0) / 2) / jnp.prod(jnp.diagonal(spread))
        return GivenGram(bordered(gram, row, self.scale))

    def _evidence(
        self, gram: Float[Array, "task task"], observations: TargetObservations
    ) -> tuple[Float[Array, "task task"], Float[Array, "task"]]:
        """G and g of minus the log density of the observations, k'Gk / 2 - g'k."""
        eye = jnp.eye(len(gram), dtype=gram.dtype)
        jitter = 10 * len(gram) * jnp.finfo(gram.dtype).eps * self.scale
        inverse: Array = solve_lower(cholesky(gram + jitter * eye), eye)
        precision = jnp.square(inverse).sum(0)
        mask, error = observations.mask, observations.error(jnp.mean(1 / precision))
        response = jnp.where(mask[:, None], observations.response, 0)
        residual = jnp.where(mask, observations.residual, 0)
        whitened: Array = solve_lower(
            cholesky(error), jnp.concatenate([response, residual[:, None]], axis=1)
        )
        return whitened[:, :-1].T @ whitened[:, :-1], whitened[:, :-1].T @ whitened[:, -1]
