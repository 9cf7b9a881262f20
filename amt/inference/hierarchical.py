r"""A hierarchical model of the sources, and its posterior by NUTS or variational inference.

\[ y_{tce} = m_t + a_t f(t, c, e) + \varepsilon_{tce}, \qquad
   f \sim \mathrm{GP}(0, k_T k_C k_E), \quad \varepsilon_{tce} \sim N(0, v_t e^{-p}) \]

Tasks are partially pooled: means, output scales and noise each have a population,

\[ m_t \sim N(\mu, \tau_m^2), \qquad \log a_t \sim N(0, \tau_a^2), \qquad
   \log v_t \sim N(\log v, \tau_v^2), \]

whose location and spread are learned, and everything else has the prior of
`amt.inference.priors`. The spreads are log-normal: \(\tau_a\) and \(\tau_v\) around 1/2, 95%
within a factor of 4.3; \(\tau_m\) around half the standard deviation of the scores, within a
factor of 7. On real data tasks are never all the same, and a prior with mass at 0 would give the
posterior the neck of a funnel for nothing. The likelihood is exact on the grid, and a
`numpyro.factor` of the model; the task means are integrated out of it (`amt.gp.random_means`),
which removes them, and their funnel with \(\tau_m\), from what is sampled. They are drawn
afterwards from their exact posterior.

**What is sampled.** Some parameters say the same thing twice, and are held at the values of the
model that is given (`fixed` overrides the choice):

- A product of kernels has one scale: that of the task kernel. Scales of the config and fidelity
  kernels are fixed (`redundant`). ICM's loadings and kappa scale each task by themselves: it gets
  no \(a_t\). With any other task kernel that has a scale s, the data do not tell s from the
  geometric mean of the \(a_t\). It is 1: s is the scale of the sources' middle, which is where
  the population is centred, and \(\log a\) is normal on the contrasts (the T - 1 dimensions of
  sum 0), as it is given its mean.
- Columns of features in which any two configurations differ alike, such as the two of a binary
  hyperparameter, or the activity of a hyperparameter and the value of its parent that activates
  it, enter a Matern kernel through \(\sum_f \ell_f^{-2}\) only. They have one lengthscale
  (`alike`), and what is left over is drawn from the prior and not used.
- Loadings of ICM and embeddings of LatentTask are determined up to a rotation, the latter up to a
  shift also. They are sampled in coordinates in which the first task is on the first axis, the
  second in the plane of the first two, and so on; the diagonal is positive with the
  chi distribution that a rotation-invariant standard normal has there (Bartlett), so that the
  prior of the Gram matrix is unchanged.
- For NUTS, encoder weights of deep kernels are fixed (`encoder_weights`): hidden units can be
  permuted and change sign, so that their posterior has factorially many modes that no two chains
  would share, and convergence could not be told. What NUTS gives then is the posterior given the
  learned features. Variational inference takes the weights in, around one mode.

**How it is sampled.** All on unconstrained values z, whitened: \(z = \hat z + R u\), with the mode
\(\hat z\) found by L-BFGS and Newton steps, and \(R R^\top\) the inverse Hessian there (Laplace).
The likelihood is differentiable once, so that the Hessian is by central differences of its
gradient. NUTS on u gives pilot draws; their covariance over all chains, its correlations shrunk,
replaces the metric for the draws that count. (The covariance that a chain estimates by itself in
a warm-up of some hundred iterations is too noisy in fifty dimensions: it takes two to three times
as many leapfrog steps as no adaptation at all.)

Source: Gelman, Carlin, Stern, Dunson, Vehtari, Rubin (2013), chapter 5; Hoffman and Gelman (2014);
Phan, Pradhan, Jankowiak (2019) for NumPyro.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from numpyro.diagnostics import split_gelman_rubin
from numpyro.distributions.transforms import ExpTransform
from numpyro.infer import NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoContinuous, AutoNormal
from numpyro.infer.initialization import init_to_value
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

from amt.gp.factors import Whitened
from amt.gp.grid import CurveGrid
from amt.gp.mixture import Mixture
from amt.gp.model import MultiTaskGP
from amt.gp.random_means import means_posterior, random_means_log_likelihood
from amt.gp.solvers.kronecker import Kronecker, KroneckerPosterior
from amt.inference.priors import Learned, learned, replace
from amt.kernels.task import ICM
from amt.kernels.task.scaled import ScaledTask
from amt.linalg import cholesky, eigh, solve_lower

Sites = dict[str, Array]

# Declared field: whether a shift of all tasks changes nothing, as a rotation does.
_ROTATIONS = {"ICM.loadings": False, "LatentTask.embedding": True}
_PER_FEATURE = ("Matern.lengthscale",)
_SCALES = ("scale", "variance", "amplitude")
_SPREADS = dist.Normal(-0.7, 0.75)
_MEAN_FIELD = partial(AutoNormal, init_scale=0.01)


def redundant(model: MultiTaskGP) -> frozenset[str]:
    """Names of the scales of the config and fidelity kernels: the task kernel has one."""
    return frozenset(
        leaf.name
        for leaf in learned(model)
        if leaf.name.partition(".")[0] in ("config", "fidelity")
        and leaf.declared.partition(".")[2] in _SCALES
    )


def encoder_weights(model: MultiTaskGP) -> frozenset[str]:
    """Names of the weights, biases and embeddings of a deep kernel's encoder."""
    return frozenset(leaf.name for leaf in learned(model) if leaf.declared.startswith("ConfigNet."))


def pooled(model: MultiTaskGP) -> MultiTaskGP:
    """`model` with a noise variance and, but for ICM, an output scale of each task."""
    task, noise = model.task, model.noise
    num_tasks = len(task.gram())
    if not isinstance(task, ICM | ScaledTask):
        task = ScaledTask(task, jnp.ones((num_tasks,), noise.variance.dtype))
    variance = jnp.broadcast_to(noise.variance, (num_tasks,))
    return eqx.tree_at(lambda m: (m.task, m.noise.variance), model, (task, variance))


def _has_scale(model: MultiTaskGP) -> bool:
    """Whether the kernel inside `ScaledTask` has a scale of its own."""
    inside = [leaf.declared for leaf in learned(model.task) if leaf.name.startswith("kernel.")]
    return any(declared.partition(".")[2] in _SCALES for declared in inside)


def _contrasts(num_tasks: int, dtype: Any) -> Float[np.ndarray, "task task-1"]:
    """An orthonormal basis of the vectors whose sum is 0 (Helmert)."""
    row = np.arange(1, num_tasks)
    below = np.tri(num_tasks - 1, num_tasks) - row[:, None] * np.eye(num_tasks - 1, num_tasks, 1)
    return (below / np.sqrt(row * (row + 1.0))[:, None]).T.astype(dtype)


def alike(features: Float[Array, "config feature"]) -> Bool[Array, "feature feature"]:
    """Which columns differ alike between all configurations: equal, but for a shift and a sign."""
    shifted = (features - features[0]).T
    difference = jnp.minimum(
        jnp.abs(shifted[:, None] - shifted).max(-1), jnp.abs(shifted[:, None] + shifted).max(-1)
    )
    return difference < 1e-6


def _tied(model: MultiTaskGP, grid: CurveGrid, sites: Sites) -> Sites:
    """With the lengthscale of the first of the columns that are `alike` for all of them."""
    tied = {}
    for leaf in learned(model):
        if leaf.declared in _PER_FEATURE and leaf.name in sites:
            tied[leaf.name] = sites[leaf.name][..., jnp.argmax(alike(grid.features), axis=1)]
    return sites | tied


def _triangular(name: str, matrix: Float[Array, "task rank"], shift: bool) -> Sites:
    """Coordinates of `matrix` that a rotation (and a shift) of its rows leaves as they are."""
    if shift:
        matrix = jnp.asarray(_contrasts(len(matrix), matrix.dtype)).T @ matrix
    size = min(matrix.shape)
    top = matrix[:size]
    jitter = jnp.finfo(matrix.dtype).eps * jnp.square(matrix).sum() * jnp.eye(size)
    factor = cholesky((top @ top.T + jitter).astype(matrix.dtype))
    lower = jnp.asarray(solve_lower(factor, top @ matrix.T)).T
    return {
        f"{name}.diagonal": jnp.diagonal(lower),
        f"{name}.below": lower[np.tril_indices(len(lower), -1, size)],
    }


def _from_triangular(
    name: str, sites: Sites, like: Float[Array, "task rank"], shift: bool
) -> Float[Array, "task rank"]:
    """The matrix with these coordinates."""
    diagonal, below = sites[f"{name}.diagonal"], sites[f"{name}.below"]
    rows, size = len(like) - shift, len(diagonal)
    lower = jnp.zeros((rows, like.shape[1]), below.dtype)
    lower = lower.at[jnp.diag_indices(size)].set(diagonal)
    lower = lower.at[np.tril_indices(rows, -1, size)].set(below)
    return jnp.asarray(_contrasts(len(like), below.dtype)) @ lower if shift else lower


def _sample_triangular(leaf: Learned, shift: bool) -> Sites:
    """The coordinates of a matrix whose elements have the prior of the leaf, N(0, s^2)."""
    rows, rank = leaf.value.shape
    rows -= shift
    size = min(rows, rank)
    degrees = jnp.arange(rank, rank - size, -1) / 2
    root: Any = dist.transforms.PowerTransform(0.5)
    chi = dist.TransformedDistribution(dist.Gamma(degrees, 0.5 / leaf.prior.variance), root)
    below = leaf.prior.expand([len(np.tril_indices(rows, -1, size)[0])]).to_event(1)
    priors = {f"{leaf.name}.diagonal": chi.to_event(1), f"{leaf.name}.below": below}
    return {name: jnp.asarray(numpyro.sample(name, prior)) for name, prior in priors.items()}


def _constrained(leaf: Learned) -> dist.Distribution:
    """The prior of a whole leaf on its constrained values."""
    shape = leaf.value.shape
    return dist.TransformedDistribution(
        leaf.prior.expand(shape).to_event(len(shape)), leaf.transform
    )


def hierarchical_model(
    model: MultiTaskGP, grid: CurveGrid, fixed: Iterable[str] = frozenset()
) -> None:
    """The NumPyro model of complete source curves; see the module docstring.

    Args:
        model: from `pooled`; gives the kernels, and the values of what is fixed.
        fixed: names (`amt.inference.priors.learned`) of what is not sampled.
    """
    sites: Sites = {}

    def population(name: str, location: Any, spread: dist.Distribution = _SPREADS):
        """Log-normal, one a task, around the logarithm of a location."""
        tau = sites[f"{name}.spread"] = numpyro.sample(f"{name}.spread", _exp(spread))
        tasks = dist.LogNormal(location, tau).expand([grid.scores.shape[0]]).to_event(1)
        sites[name] = numpyro.sample(name, tasks)

    for leaf in learned(model):
        if leaf.name in fixed:
            continue
        if leaf.declared in _ROTATIONS:
            sites |= _sample_triangular(leaf, _ROTATIONS[leaf.declared])
        elif leaf.declared == "ScaledTask.scales" and _has_scale(model):
            name, tau = f"{leaf.name}.contrasts", f"{leaf.name}.spread"
            sites[tau] = numpyro.sample(tau, _exp(_SPREADS))
            contrasts = dist.Normal(0.0, sites[tau]).expand([leaf.value.size - 1]).to_event(1)
            sites[name] = numpyro.sample(name, contrasts)
        elif leaf.declared == "ScaledTask.scales":
            population(leaf.name, 0.0)
        elif leaf.declared == "SeparableNoise.variance":
            typical = numpyro.sample(f"{leaf.name}.location", _exp(leaf.prior))
            population(leaf.name, jnp.log(typical))
        else:
            sites[leaf.name] = numpyro.sample(leaf.name, _constrained(leaf))

    center, unit = jnp.mean(grid.scores), jnp.std(grid.scores)
    location = numpyro.sample("mean.location", dist.Normal(center, 2 * unit))
    spread = numpyro.sample("mean.spread", dist.LogNormal(jnp.log(unit) - 0.7, 1.0))
    drawn = assemble(model, _tied(model, grid, sites))
    terms, half_log_det = _whitened(drawn, grid, location, spread)
    numpyro.factor("likelihood", random_means_log_likelihood(*terms) - half_log_det)


def _exp(prior: dist.Distribution) -> dist.Distribution:
    return dist.TransformedDistribution(prior, ExpTransform())


def assemble(model: MultiTaskGP, sites: Sites) -> MultiTaskGP:
    """`model` with the values of the sites of `hierarchical_model` that are part of a model."""
    values = {}
    for leaf in learned(model):
        if f"{leaf.name}.diagonal" in sites:
            shift = _ROTATIONS[leaf.declared]
            values[leaf.name] = _from_triangular(leaf.name, sites, leaf.value, shift)
        elif f"{leaf.name}.contrasts" in sites:
            contrasts = sites[f"{leaf.name}.contrasts"]
            values[leaf.name] = jnp.exp(_contrasts(leaf.value.size, contrasts.dtype) @ contrasts)
        elif leaf.name in sites:
            values[leaf.name] = sites[leaf.name]
    return replace(model, values)


def start_sites(model: MultiTaskGP, grid: CurveGrid, fixed: Iterable[str] = frozenset()) -> Sites:
    """Values of all sites of `hierarchical_model` that suit the values of `model`."""
    sites: Sites = {}
    for leaf in learned(model):
        if leaf.name in fixed:
            continue
        if leaf.declared in _ROTATIONS:
            sites |= _triangular(leaf.name, leaf.value, _ROTATIONS[leaf.declared])
            continue
        if leaf.declared == "ScaledTask.scales" and _has_scale(model):
            basis = _contrasts(leaf.value.size, leaf.value.dtype)
            sites[f"{leaf.name}.contrasts"] = basis.T @ jnp.log(leaf.value)
        else:
            sites[leaf.name] = leaf.value
        if leaf.declared in _PER_FEATURE:
            same = alike(grid.features)
            precision = same @ (leaf.value**-2) / same.sum(1)
            sites[leaf.name] = 1 / jnp.sqrt(precision)
        if leaf.declared in ("ScaledTask.scales", "SeparableNoise.variance"):
            sites[f"{leaf.name}.spread"] = jnp.maximum(jnp.std(jnp.log(leaf.value)), 0.3)
        if leaf.declared == "SeparableNoise.variance":
            sites[f"{leaf.name}.location"] = jnp.exp(jnp.mean(jnp.log(leaf.value)))
    means = model.log_likelihood(grid).means
    floor = jnp.std(grid.scores) / 10
    return sites | {
        "mean.location": jnp.mean(means),
        "mean.spread": jnp.maximum(jnp.std(means), floor),
    }


def _whitened(
    model: MultiTaskGP, grid: CurveGrid, location: Float[Array, ""], spread: Float[Array, ""]
) -> tuple[tuple[Whitened, Float[Array, "task"], Float[Array, "task"]], Float[Array, ""]]:
    """Arguments of `random_means_log_likelihood`, and half the log-determinant of the noise."""
    factors = model.factors(grid)
    root = jnp.sqrt(factors.task_noise)
    terms = factors.whiten(grid.scores), location / root, spread / root
    return terms, factors.half_log_det_noise()


class Statistics(NamedTuple):
    """How sampling went, draw by draw; `warmup_steps` are those of the warm-up.

    Attributes:
        diverging: whether the trajectory diverged.
        num_steps: leapfrog steps, each of one gradient.
        accept_prob: mean acceptance probability along the trajectory.
        energy: the Hamiltonian.
        step_size: of the leapfrog steps, in the whitened space.
        warmup_steps: leapfrog steps of each iteration of the warm-up.
    """

    diverging: Bool[Array, "chain draw"]
    num_steps: Int[Array, "chain draw"]
    accept_prob: Float[Array, "chain draw"]
    energy: Float[Array, "chain draw"]
    step_size: Float[Array, "chain draw"]
    warmup_steps: Int[Array, "chain warmup"]


class Posterior(NamedTuple):
    """Draws from the posterior of the hierarchical model.

    Attributes:
        model: models stacked along a leading axis of all draws, one chain after the other.
        means: task means of each draw.
        sites: what was sampled, on its natural scale, by chain.
        statistics: of NUTS; None of variational inference.
        loss: minus the ELBO at each step of variational inference; None of NUTS.
    """

    model: MultiTaskGP
    means: Float[Array, "draw task"]
    sites: Sites
    statistics: Statistics | None = None
    loss: Float[Array, "step"] | None = None

    def thin(self, count: int) -> "Posterior":
        """With models and means of `count` draws, evenly spaced; the sites of all stay."""
        chosen = np.linspace(0, len(self.means) - 1, count).round().astype(int)
        model, means = jax.tree.map(lambda x: x[chosen], (self.model, self.means))
        return self._replace(model=model, means=means)

    def diagnostics(self) -> dict[str, float]:
        """Of NUTS the largest split R-hat (`r_hat`) of all that is sampled and the number of
        `divergences`; of variational inference the last tenth's mean `elbo`. Not for `jax.jit`.

        Source: Gelman, Carlin, Stern, Dunson, Vehtari, Rubin (2013), section 11.4.
        """
        if self.loss is not None:
            return {"elbo": -float(self.loss[-len(self.loss) // 10 :].mean())}
        assert self.statistics is not None
        r_hat = [split_gelman_rubin(np.asarray(site)).max() for site in self.sites.values()]
        divergences = np.sum(self.statistics.diverging)
        return {"r_hat": float(max(r_hat)), "divergences": float(divergences)}

    def posterior(self, grid: CurveGrid, rank: int | None = None) -> Mixture:
        """Condition on the sources under each draw; `thin` first, a dozen will do."""

        def of_draw(model: MultiTaskGP, means: Float[Array, "task"]) -> KroneckerPosterior:
            return Kronecker().posterior(model.sources(grid), rank, means)

        return Mixture.of_draws(jax.vmap(of_draw)(self.model, self.means))


def _posterior(model: MultiTaskGP, grid: CurveGrid, sites: Sites, key: PRNGKeyArray):
    """Models and means of sites with leading axes (chain, draw)."""

    def one(sites: Sites, key: PRNGKeyArray):
        drawn = assemble(model, sites)
        terms, _ = _whitened(drawn, grid, sites["mean.location"], sites["mean.spread"])
        mean, root = means_posterior(*terms)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        task_noise, _ = drawn.noise.factors(grid.scores.shape[0], grid.epochs)
        return drawn, (mean + noise @ root) * jnp.sqrt(task_noise)

    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), sites)
    count = len(flat["mean.location"])
    return jax.lax.map(lambda args: one(*args), (flat, jax.random.split(key, count)))


class Mode(NamedTuple):
    """The mode of a density on unconstrained values, and the normal distribution around it.

    Attributes:
        location: the mode.
        root: R, R R' being the inverse Hessian of minus the log density there.
        gradient: gradient left, in the whitened space: 0 at the mode.
        curvature: eigenvalues of the Hessian; one that is not positive is replaced for `root`.
    """

    location: Float[Array, "free"]
    root: Float[Array, "free free"]
    gradient: Float[Array, "free"]
    curvature: Float[Array, "free"]


def find_mode(
    potential: Callable[[Float[Array, "free"]], Float[Array, ""]],
    start: Float[Array, "free"],
    *,
    steps: int = 200,
    newton: int = 3,
) -> Mode:
    """Minimise `potential` by L-BFGS, then Newton steps with a Hessian by differences.

    Where the Hessian is not positive definite, or flatter than a standard deviation of 10, the
    magnitude of its eigenvalues, at least 0.01, stands for them.
    """
    value_and_grad = jax.value_and_grad(potential)
    optimizer = optax.lbfgs()
    from_state = optax.value_and_grad_from_state(potential)

    def descend(carry, _):
        free, state = carry
        value, gradient = from_state(free, state=state)
        update, state = optimizer.update(
            gradient, state, free, value=value, grad=gradient, value_fn=potential
        )
        return (free + update, state), None

    (free, _), _ = jax.lax.scan(descend, (start, optimizer.init(start)), length=steps)
    free = jnp.where(jnp.isfinite(free).all(), free, start)

    identity = jnp.eye(len(start), dtype=start.dtype)
    width = jnp.finfo(start.dtype).eps ** 0.25

    def curvature(free):
        slope = lambda direction: jax.grad(potential)(free + width * direction)  # noqa: E731
        both = jax.lax.map(slope, jnp.concatenate([identity, -identity]))
        hessian = (both[: len(free)] - both[len(free) :]) / (2 * width)
        values, vectors = eigh((hessian + hessian.T) / 2)
        return values, vectors / jnp.sqrt(jnp.maximum(jnp.abs(values), 0.01))

    def improve(free, stay):
        value, gradient = value_and_grad(free)
        values, root = curvature(free)
        proposal = free - root @ (root.T @ gradient)
        move = (potential(proposal) < value) & ~stay
        return jnp.where(move, proposal, free), Mode(free, root, root.T @ gradient, values)

    _, modes = jax.lax.scan(improve, free, jnp.arange(newton + 1) == newton)
    return jax.tree.map(lambda x: x[-1], modes)


def _shrunk_covariance(u: Float[Array, "draw free"]) -> Float[Array, "free free"]:
    """Covariance of draws, its correlations shrunk by what 2 draws a dimension are worth."""
    draws, size = u.shape
    covariance = jnp.cov(u.T, bias=True).reshape(size, size)
    keep = draws / (draws + 2 * size)
    return keep * covariance + (1 - keep) * jnp.diag(jnp.diagonal(covariance))


def _chains(
    potential: Callable[[Float[Array, "free"]], Float[Array, ""]],
    starts: Float[Array, "chain free"],
    key: PRNGKeyArray,
    warmup: int,
    draws: int,
    *,
    thinning: int = 1,
    target_accept: float,
    max_tree_depth: int,
    mesh: Mesh | None,
) -> tuple[Float[Array, "chain draw free"], Statistics]:
    """NUTS with unit metric from each start; the step size is adapted for `warmup` iterations.

    A draw is the last of `thinning` iterations, whose leapfrog steps and divergences are its own.
    """

    def chain(start, key):
        kernel = NUTS(
            potential_fn=potential,
            adapt_mass_matrix=False,
            target_accept_prob=target_accept,
            max_tree_depth=max_tree_depth,
        )

        def step(state, _):
            state = kernel.sample(state, (), {})
            statistics = Statistics(
                diverging=state.diverging,
                num_steps=state.num_steps,
                accept_prob=state.accept_prob,
                energy=state.energy,
                step_size=state.adapt_state.step_size,
                warmup_steps=state.num_steps,
            )
            return state, (state.z, statistics)

        state = kernel.init(key, warmup, start, (), {})
        length = warmup + draws * thinning
        _, (u, statistics) = jax.lax.scan(step, state, length=length)
        of_draw = jax.tree.map(lambda x: x[warmup:].reshape(draws, thinning), statistics)
        last = jax.tree.map(lambda x: x[:, -1], of_draw)
        return u[warmup:][thinning - 1 :: thinning], last._replace(
            diverging=of_draw.diverging.any(1),
            num_steps=of_draw.num_steps.sum(1),
            warmup_steps=statistics.num_steps[:warmup],
        )

    run, keys = jax.vmap(chain), jax.random.split(key, len(starts))
    if mesh is not None:
        by_chain = PartitionSpec(mesh.axis_names)
        run = jax.shard_map(run, mesh=mesh, in_specs=by_chain, out_specs=by_chain, check_vma=False)
    return run(starts, keys)


def sample_nuts(
    model: MultiTaskGP,
    grid: CurveGrid,
    key: PRNGKeyArray,
    *,
    fixed: Iterable[str] | None = None,
    chains: int = 4,
    warmup: int = 450,
    draws: int = 500,
    thinning: int = 1,
    target_accept: float = 0.9,
    max_tree_depth: int = 8,
    mesh: Mesh | None = None,
) -> Posterior:
    """Draw from the posterior with NUTS, from starts spread as the normal at the mode is.

    Pure, for use under `jax.jit` (`fixed` as a tuple, marked static, as are the numbers).

    Args:
        model: fitted, of any noise, such as that of `fit_map`.
        fixed: names of what is not sampled, of the `pooled` model; by default those of `redundant`
            and `encoder_weights`.
        warmup: iterations before the first draw: a third each to adapt the step size of the pilot
            run, for its draws, and to adapt the step size of the run. (Of less than 150 in a
            third, NumPyro leaves too few after its last restart of the adaptation.)
        thinning: iterations for each draw.
        mesh: devices to spread the chains over, evenly; else all are on one.
    """
    model.require_product(grid, "the hierarchical model")
    model = pooled(model)
    fixed = redundant(model) | encoder_weights(model) if fixed is None else frozenset(fixed)
    args = model, grid, fixed
    start = unconstrain_fn(hierarchical_model, args, {}, start_sites(*args))
    flat, unravel = ravel_pytree(start)

    def potential(free):
        return potential_energy(hierarchical_model, args, {}, unravel(free))

    mode = find_mode(potential, flat)
    sample = partial(_chains, target_accept=target_accept, max_tree_depth=max_tree_depth, mesh=mesh)
    start_key, pilot_key, final_key, mean_key = jax.random.split(key, 4)

    def along(root):
        return lambda u: potential(mode.location + root @ u)

    u = jax.random.normal(start_key, (chains, flat.size), flat.dtype)
    third = warmup // 3
    u, pilot = sample(along(mode.root), u, pilot_key, third, third)
    metric = cholesky(_shrunk_covariance(u.reshape(-1, flat.size)))
    u = jnp.asarray(solve_lower(metric, u[:, -1].T)).T
    root = mode.root @ metric
    u, statistics = sample(along(root), u, final_key, warmup - 2 * third, draws, thinning=thinning)
    warmup_steps = [pilot.warmup_steps, pilot.num_steps, statistics.warmup_steps]
    statistics = statistics._replace(warmup_steps=jnp.concatenate(warmup_steps, axis=1))

    def natural(u):
        free = unravel(mode.location + root @ u)
        return _tied(model, grid, constrain_fn(hierarchical_model, args, {}, free))

    sites = jax.vmap(jax.vmap(natural))(u)
    models, means = _posterior(model, grid, sites, mean_key)
    return Posterior(models, means, sites, statistics=statistics)


def fit_svi(
    model: MultiTaskGP,
    grid: CurveGrid,
    key: PRNGKeyArray,
    *,
    fixed: Iterable[str] | None = None,
    guide: Callable[..., AutoContinuous] = _MEAN_FIELD,
    steps: int = 3000,
    learning_rate: float = 0.01,
    draws: int = 1000,
) -> Posterior:
    """Fit a NumPyro autoguide by maximising the ELBO, from the values of `model`, and draw from it.

    Pure, as `sample_nuts` is, and with its arguments.

    Args:
        fixed: by default those of `redundant`: encoder weights are inferred.
        guide: an autoguide, such as `AutoNormal` or `AutoLowRankMultivariateNormal`; set its
            `init_scale` to a fraction of a typical standard deviation by `functools.partial`.
        learning_rate: Adam's, decayed to 0 along a cosine.
        draws: how many to take from the guide at the end, as one chain.
    """
    model.require_product(grid, "the hierarchical model")
    model = pooled(model)
    fixed = redundant(model) if fixed is None else frozenset(fixed)
    args = model, grid, fixed
    start = init_to_value(values=start_sites(*args))
    approximation = guide(hierarchical_model, init_loc_fn=start)
    optimizer = numpyro.optim.optax_to_numpyro(
        optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    )
    svi = SVI(hierarchical_model, approximation, optimizer, Trace_ELBO())
    start_key, sample_key, mean_key = jax.random.split(key, 3)

    def step(state, _):
        return svi.update(state, *args)

    state, loss = jax.lax.scan(step, svi.init(start_key, *args), length=steps)
    sites = approximation.sample_posterior(
        sample_key, svi.get_params(state), sample_shape=(1, draws)
    )
    sites = _tied(model, grid, sites)
    models, means = _posterior(model, grid, sites, mean_key)
    return Posterior(models, means, sites, loss=loss)
