r"""Task means with a normal prior, integrated out of a complete grid.

With scores \(y = H m + f + \varepsilon\), \(H = I_T \otimes 1_C \otimes h\) and
\(m_t \sim N(\mu_t, s_t^2)\), S being their diagonal covariance, the scores have the covariance
\(K + H S H^\top\), \(K = K_T \otimes K_C \otimes K_E + I\) as in
`amt.gp.solvers.kronecker`. That is no Kronecker product and a diagonal, but an update of rank T
that is small in the eigenbasis: with
\(u = Q_C^\top 1\), \(v = Q_E^\top h\) and \(g_{ijk} = u_j v_k / D_{ijk}\),

\[ W = H^\top K^{-1} H = Q_T \mathrm{diag}_i\Big(\sum_{jk} g_{ijk} u_j v_k\Big) Q_T^\top, \qquad
   G = (S^{-1} + W)^{-1} = R B^{-1} R^\top, \qquad B = I + R^\top W R, \quad S = R R^\top, \]
\[ \log p(y) = \log N(r; 0, K) + \tfrac12 b^\top G\, b - \tfrac12 \log\det B, \qquad
   r = y - H \mu, \quad b = H^\top K^{-1} r, \]

exact for any s, 0 included, at the cost of `log_likelihood` and \(O(T^3)\). The derivative is
closed form as there: with \(\beta = \Sigma^{-1} r = K^{-1} (r - H G b)\) in the place of
\(\alpha\), and one more term of \(\Sigma^{-1} = K^{-1} - K^{-1} H G H^\top K^{-1}\).

Source: Rasmussen and Williams (2006), section 2.7, with a proper prior.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from amt.gp.factors import Grams, Whitened
from amt.gp.spectral import Grid, Spectral
from amt.linalg import cholesky, solve_lower


class _Means(NamedTuple):
    """The grid in the eigenbasis, and the terms of the module docstring that the means add to it.

    Attributes:
        curve: a task's mean, u v.
        weight: eigenvalues of W.
        root: Q_T' R.
        spectral: residuals of the prior means.
        factor: Cholesky factor of B.
        response: Q_T' b.
        gain: g.
    """

    curve: Float[Array, "config epoch"]
    weight: Float[Array, "task"]
    root: Float[Array, "task task"]
    spectral: Spectral
    factor: Float[Array, "task task"]
    response: Float[Array, "task"]
    gain: Grid

    @classmethod
    def of(
        cls, whitened: Whitened, mean: Float[Array, "task"], spread: Float[Array, "task"]
    ) -> "_Means":
        grams, scores, shape = whitened
        spectral = Spectral.of(grams, scores - mean[:, None, None] * shape)
        curve = spectral.mean_curve(shape)
        gain = curve / spectral.spectrum
        weight = jnp.sum(gain * curve, (1, 2))
        root = spectral.eigen[0].vectors.T * spread
        inner = root.T @ (weight[:, None] * root)
        factor = cholesky(jnp.eye(len(mean), dtype=inner.dtype) + inner)
        response = jnp.sum(gain * spectral.rotated, (1, 2))
        return cls(curve, weight, root, spectral, factor, response, gain)

    def half(self) -> Float[Array, "task task"]:
        """J with \\(J^\\top J = Q_T^\\top G Q_T\\)."""
        return solve_lower(self.factor, self.root.T)

    def log_density(self) -> Float[Array, ""]:
        explained = jnp.square(self.half() @ self.response).sum() / 2
        log_det = jnp.log(jnp.diagonal(self.factor)).sum()
        return self.spectral.log_density() + explained - log_det


@jax.custom_vjp
def random_means_log_likelihood(
    whitened: Whitened, mean: Float[Array, "task"], spread: Float[Array, "task"]
) -> Float[Array, ""]:
    """Log density of scores in units of the noise, the task means integrated out.

    Differentiable once, in reverse mode, in everything; see the module docstring.

    Args:
        whitened: scores, their Gram matrices, and h, how a task's mean shows at each epoch.
        mean, spread: mean and standard deviation of the prior of each task's mean.
    """
    return _Means.of(whitened, mean, spread).log_density()


def _forward(whitened, mean, spread):
    means = _Means.of(whitened, mean, spread)
    return means.log_density(), (means, whitened.shape, mean, spread)


def _backward(saved, cotangent):
    means, shape, mean, spread = saved
    spectral = means.spectral
    tasks, configs, fidelities = spectral.eigen
    half = means.half()
    covariance = half.T @ half  # of the means given the scores, in the eigenbasis
    shift = covariance @ means.response
    beta = (spectral.rotated - shift[:, None, None] * means.curve) / spectral.spectrum

    def factor(axis: int) -> Float[Array, "n n"]:
        weight, vectors = spectral.without_axis(axis), spectral.eigen[axis].vectors
        rest = tuple(i for i in range(3) if i != axis)
        inner = jnp.tensordot(beta * weight, beta, (rest, rest))
        inner -= jnp.diag(jnp.sum(weight / spectral.spectrum, rest))
        if axis == 0:
            inner += covariance * jnp.tensordot(means.gain * weight, means.gain, (rest, rest))
        else:
            scaled = means.gain * weight * jnp.diagonal(covariance)[:, None, None]
            inner += jnp.tensordot(scaled, means.gain, (rest, rest))
        return vectors @ inner @ vectors.T / 2

    residual = -spectral.back(beta)
    posterior_mean = mean + tasks.vectors @ shift
    projected = means.gain * configs.vectors.sum(0)[:, None]
    through_gain = fidelities.vectors @ jnp.einsum("i,ijk->k", jnp.diagonal(covariance), projected)
    by_shape = -jnp.einsum("t,tce->e", posterior_mean, residual) - through_gain
    by_mean = -jnp.einsum("tce,e->t", residual, shape)
    precision = jnp.diag(means.weight) - means.weight[:, None] * covariance * means.weight
    own = jnp.einsum("ti,ij,tj->t", tasks.vectors, precision, tasks.vectors)
    by_spread = spread * (jnp.square(by_mean) - own)
    grams = Grams(factor(0), factor(1), factor(2))
    gradients = Whitened(grams, residual, by_shape), by_mean, by_spread
    return jax.tree.map(lambda g: cotangent * g, gradients)


random_means_log_likelihood.defvjp(_forward, _backward)


def means_posterior(
    whitened: Whitened, mean: Float[Array, "task"], spread: Float[Array, "task"]
) -> tuple[Float[Array, "task"], Float[Array, "task task"]]:
    """Mean of the task means given the scores, and a root J of their covariance \\(J^\\top J\\).

    Arguments as for `random_means_log_likelihood`; without a derivative.
    """
    means = _Means.of(whitened, mean, spread)
    half, vectors = means.half(), means.spectral.eigen[0].vectors
    return mean + vectors @ (half.T @ (half @ means.response)), half @ vectors.T
