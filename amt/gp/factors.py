r"""The covariance of learning curves by its factors, and its whitening.

Scores on a (task, config, epoch) grid have the covariance

\[ K = K_T \otimes K_C \otimes K_E + A \otimes I \otimes B, \qquad A = \mathrm{diag}(a_t),\
   B = \mathrm{diag}(b_e), \]

with a nugget \(\nu\) also \(\mathrm{diag}(\nu_t) \otimes I \otimes K_E\). Whitening,
\(K_T \to A^{-1/2} K_T A^{-1/2}\), \(K_E \to B^{-1/2} K_E B^{-1/2}\),
\(r \to (A \otimes I \otimes B)^{-1/2} r\), leaves unit noise, and
\(\frac12 \log\det (A \otimes I \otimes B)\) to be subtracted from the log density of the whitened
residual.

Source: Stegle, Lippert, Mooij, Lawrence, Borgwardt (2011).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Grams(NamedTuple):
    """Gram matrices of tasks, configurations and epochs."""

    task: Float[Array, "task task"]
    config: Float[Array, "config config"]
    fidelity: Float[Array, "epoch epoch"]


class Whitened(NamedTuple):
    """Scores and Gram matrices in units of the noise.

    Attributes:
        grams: of tasks, configurations and epochs.
        scores: NaN where missing.
        shape: the course over the epochs of a task's mean.
    """

    grams: Grams
    scores: Float[Array, "task config epoch"]
    shape: Float[Array, "epoch"]


class Factors(NamedTuple):
    """Gram matrices of the three axes, noise variances of tasks and epochs, and the nugget.

    Attributes:
        grams: of tasks, configurations and epochs.
        task_noise: noise variance of each task at the last epoch.
        epoch_noise: noise variance of each epoch, relative to the last.
        nugget: variance of each task's curves by themselves; None for none.
    """

    grams: Grams
    task_noise: Float[Array, "task"]
    epoch_noise: Float[Array, "epoch"]
    nugget: Float[Array, "task"] | None = None

    def whiten(
        self, scores: Float[Array, "task config epoch"]
    ) -> tuple[Whitened, Float[Array, ""]]:
        """Scores and Gram matrices in units of the noise; see the module docstring.

        Returns also half the log-determinant of the noise of all scores.
        """
        a, b = jnp.sqrt(self.task_noise), jnp.sqrt(self.epoch_noise)
        task, config, fidelity = self.grams
        half_log_det = len(config) * (len(b) * jnp.sum(jnp.log(a)) + len(a) * jnp.sum(jnp.log(b)))
        residual = scores / (a[:, None, None] * b)
        grams = Grams(task / (a[:, None] * a), config, fidelity / (b[:, None] * b))
        return Whitened(grams, residual, 1 / jnp.sqrt(self.epoch_noise)), half_log_det

    def require_product(self, what: str) -> None:
        """Raise an error unless the covariance is a Kronecker product and separable noise.

        Args:
            what: needs one.

        Raises:
            ValueError: there is a nugget.
        """
        if self.nugget is not None:
            raise ValueError(f"{what} knows no nugget: ObservedCurves does")

    def half_log_det_noise(self, mask: Bool[Array, "task config epoch"]) -> Float[Array, ""]:
        """Half the log-determinant of the noise of the scores in `mask`."""
        log_noise = jnp.log(self.task_noise)[:, None, None] + jnp.log(self.epoch_noise)
        return jnp.sum(mask * log_noise) / 2
