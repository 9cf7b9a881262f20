r"""Stochastic variational inference with inducing points: the way of the AT2 reference.

Kernels, noise, task means, inducing points and q (`amt.gp.inducing`) are learned together by
stochastic gradient steps on the ELBO of a batch. It approximates what `amt.inference.mle` does
exactly, and is here to compare with.

`fit_svgp` is one compiled scan. To look in between, `begin` and `advance` are its parts:

```python
state = begin(start, grid, key, settings)
for _ in range(settings.passes):
    state, elbo = advance(state, grid, settings, passes=1)
    posterior = InducingPosterior.of(state.gp(), grid)
```

Source: Hensman, Fusi, Lawrence (2013); Xiao, Xing, Neiswanger (2021), section 5, and the code
that the authors published, for the settings.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from amt.gp.grid import CurveGrid
from amt.gp.inducing import InducingPoints, InducingPosterior, SparseGP
from amt.gp.model import MultiTaskGP
from amt.parameters import unconstrain


@dataclass(frozen=True, kw_only=True)
class SVGPSettings:
    """Settings of the maximisation of the ELBO.

    The learning rate rises linearly over the first share `warmup` of all passes, and then falls
    linearly to 0; it changes after a pass. A pass takes all observations in batches, in a new
    order each; what is left for less than a batch is left out of that pass.

    Attributes:
        num_inducing: inducing points, a random subset of the grid's points to start with.
        batch_size: observations of a step; None for all of them (closed form on the grid, in
            float64).
        passes: how often to go through the observations.
        later_passes: passes that the learning rate is to fall over after these.
        optimizer: "sgd" with momentum, or "adam".
        noise: noise variance to start from; None for that of the model.
        start: q to start from, the "prior" or, for the parameters at the start, the "optimal"
            (in float64).
        jitter: of `SparseGP`; None for 1e-6 in float64 and 1e-3 in float32, where 1e-4
            does not keep the Cholesky factor of 1,000 points finite.

    Raises:
        ValueError: no such optimizer or start, or a number out of range.
    """

    num_inducing: int = 256
    batch_size: int | None = 1000
    passes: int = 20
    later_passes: int = 0
    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 0.02
    momentum: float = 0.9
    warmup: float = 0.05
    noise: float | None = 0.05
    start: Literal["prior", "optimal"] = "prior"
    jitter: float | None = None

    def __post_init__(self):
        if self.optimizer not in ("sgd", "adam"):
            raise ValueError(f"the optimizer is sgd or adam, not {self.optimizer!r}")
        if self.start not in ("prior", "optimal"):
            raise ValueError(f"q starts as prior or optimal, not {self.start!r}")
        for name in ("num_inducing", "batch_size", "passes", "learning_rate"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, not {value}")

    def batches(self, size: int) -> tuple[int, int]:
        """Number and size of a pass's batches of `size` observations."""
        batch = size if self.batch_size is None else min(self.batch_size, size)
        return size // batch, batch

    def rate(self, done: Float[Array, ""]) -> Float[Array, ""]:
        """Learning rate of the pass after `done` passes."""
        total = self.passes + self.later_passes
        warmup = self.warmup * total
        falling = (total - done) / max(total - warmup, 1)
        return self.learning_rate * jnp.minimum(done / max(warmup, 1), falling)


REFERENCE = SVGPSettings(
    num_inducing=1000,
    batch_size=1000,
    passes=200,
    later_passes=300,
    optimizer="sgd",
    learning_rate=0.02,
    momentum=0.8,
    warmup=0.01,
    noise=math.log(2),
    start="prior",
)
"""Settings of the AT2 reference, for its published experiments.

Its 300 later passes are 3 after each of 100 observations of the target, which are conditioned on
exactly here. Its learning rate, too, starts at 0, so that the first pass changes nothing.
"""

PRESETS = {"light": SVGPSettings(), "reference": REFERENCE}


class SVGPState(NamedTuple):
    """Where the optimisation is.

    Attributes:
        start: where it began.
        free: learned leaves, unconstrained.
        optimizer: the optimizer's state.
        done: passes so far.
        key: for the passes to come.
    """

    start: SparseGP
    free: tuple[Array, ...]
    optimizer: optax.OptState
    done: Float[Array, ""]
    key: PRNGKeyArray

    def gp(self) -> SparseGP:
        """The Gaussian process as learned so far."""
        return unconstrain(self.start).constrain(self.free)


class SparseFit(NamedTuple):
    """A fitted sparse Gaussian process and how the optimisation went.

    Attributes:
        gp: at the last step.
        elbo: the estimate of every step, before it.
    """

    gp: SparseGP
    elbo: Float[Array, "step"]

    @property
    def model(self) -> MultiTaskGP:
        return self.gp.model

    def diagnostics(self) -> dict[str, float]:
        """The last tenth's mean estimate of the `elbo`; not for `jax.jit`."""
        return {"elbo": float(self.elbo[-len(self.elbo) // 10 :].mean())}

    def posterior(self, grid: CurveGrid, rank: int | None = None) -> InducingPosterior:
        """Condition on the source curves, for any target; `rank` as in `amt.gp.posterior`."""
        return InducingPosterior.of(self.gp, grid, rank)


def fit_svgp(
    start: MultiTaskGP,
    grid: CurveGrid,
    key: PRNGKeyArray,
    *,
    settings: SVGPSettings = SVGPSettings(),
) -> SparseFit:
    """Maximise the ELBO of `grid` from `start`.

    Pure, for use under `jax.jit` (with the settings static) and `jax.vmap`. There is no guard
    against steps that are too large: `SparseFit.elbo` shows them, in the end by NaN.

    Args:
        key: for the inducing points and the batches.
    """
    state, elbo = advance(begin(start, grid, key, settings), grid, settings, settings.passes)
    return SparseFit(state.gp(), elbo)


def begin(
    start: MultiTaskGP, grid: CurveGrid, key: PRNGKeyArray, settings: SVGPSettings
) -> SVGPState:
    """The state before the first pass."""
    start.require_product(grid, "sparse variational inference")
    if settings.noise is not None:
        variance = jnp.full_like(start.noise.variance, settings.noise)
        start = eqx.tree_at(lambda model: model.noise.variance, start, variance)
    key, chosen = jax.random.split(key)
    inducing = InducingPoints.sample(grid, settings.num_inducing, chosen)
    jitter = settings.jitter
    if jitter is None:
        jitter = 1e-6 if grid.scores.dtype == jnp.float64 else 1e-3
    gp = SparseGP.init(start, grid, inducing, jitter=jitter)
    if settings.start == "optimal":
        gp = gp.with_optimal(grid)
    free = unconstrain(gp).free
    state = _transformation(settings).init(free)
    return SVGPState(gp, free, state, jnp.zeros((), grid.scores.dtype), key)


def advance(
    state: SVGPState, grid: CurveGrid, settings: SVGPSettings, passes: int
) -> tuple[SVGPState, Float[Array, "step"]]:
    """Some passes more, and the estimate of the ELBO before every step."""
    constrain = unconstrain(state.start).constrain
    transformation = _transformation(settings)
    size = grid.scores.size
    number, batch = settings.batches(size)

    def loss(free, index):
        gp = constrain(free)
        whole = settings.batch_size is None
        return -(gp.elbo(grid) if whole else gp.elbo_of_batch(grid, index)) / size

    def go_through(carry, _):
        free, optimizer, done, key = carry
        key, order = jax.random.split(key)
        order = jax.random.permutation(order, size)[: number * batch].reshape(number, batch)
        rate = settings.rate(done)

        def step(carry, index):
            free, optimizer = carry
            value, gradient = jax.value_and_grad(loss)(free, index)
            updates, optimizer = transformation.update(gradient, optimizer)
            updates = jax.tree.map(lambda update: -rate * update, updates)
            return (optax.apply_updates(free, updates), optimizer), value

        (free, optimizer), values = jax.lax.scan(step, (free, optimizer), order)
        return (free, optimizer, done + 1, key), values

    start: Any = state.free, state.optimizer, state.done, state.key
    (free, optimizer, done, key), values = jax.lax.scan(go_through, start, length=passes)
    return SVGPState(state.start, free, optimizer, done, key), -size * values.ravel()


def _transformation(settings: SVGPSettings) -> optax.GradientTransformation:
    """The optimizer at a learning rate of -1."""
    if settings.optimizer == "sgd":
        return optax.trace(decay=settings.momentum)
    return optax.scale_by_adam(b1=settings.momentum)
