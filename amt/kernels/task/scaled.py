"""Tasks with an output scale each."""

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from amt.kernels.task.base import TargetObservations, TaskKernel
from amt.parameters import parameter


class ScaledTask(TaskKernel):
    r"""\(a_t\, a_{t'}\, k(t, t')\): the scores of task t are \(a_t\) times those of kernel k.

    A target has the scale 1, at which the population of tasks is centred. Its covariances with
    the sources are \(a_t\, k(*, t)\), which is all that k needs to know of the scales.
    """

    kernel: TaskKernel
    scales: Float[Array, "task"] = parameter(
        constraints.positive, prior=dist.Normal(0.0, 0.5), role="task_scale"
    )

    def gram(self) -> Float[Array, "task task"]:
        return self.scales[:, None] * self.scales * self.kernel.gram()

    def with_target(self, observations: TargetObservations) -> "ScaledTask":
        inside = observations._replace(response=observations.response * self.scales)
        return ScaledTask(self.kernel.with_target(inside), jnp.append(self.scales, 1))
