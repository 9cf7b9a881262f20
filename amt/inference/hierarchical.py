r"""A hierarchical model of the sources, for NUTS and variational inference.

\[ y_{tce} = m_t + a_t f(t, c, e) + \varepsilon_{tce}, \qquad
   f \sim \mathrm{GP}(0, k_T k_C k_E), \quad \varepsilon_{tce} \sim N(0, v_t e^{-p}) \]

Tasks are partially pooled: means, output scales and noise each have a population,

\[ m_t \sim N(\mu, \tau_m^2), \qquad \log a_t \sim N(0, \tau_a^2), \qquad
   \log v_t \sim N(\log v, \tau_v^2), \]

whose location and spread are learned, and everything else has the prior that its field declares
(`amt.inference.priors`). The spreads are log-normal: \(\tau_a\) and \(\tau_v\) around 1/2, 95%
within a factor of 4.3; \(\tau_m\) around half the standard deviation of the scores, within a
factor of 7. On real data tasks are never all the same, and a prior with mass at 0 would give the
posterior the neck of a funnel for nothing. The likelihood is exact on the grid, and a
`numpyro.factor` of the model; the task means are integrated out of it (`amt.gp.random_means`),
which removes them, and their funnel with \(\tau_m\), from what is sampled. They are drawn
afterwards from their exact posterior.

**What is sampled.** Some parameters say the same thing twice. Which do is the role that their
fields declare (`amt.parameters.Role`), and they are held at the values of the model that is given
(`fixed` overrides the choice) or are sampled in other coordinates (`amt.inference.coordinates`):

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

Source: Gelman, Carlin, Stern, Dunson, Vehtari, Rubin (2013), chapter 5.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions.transforms import ExpTransform

from amt.gp.factors import Whitened
from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.random_means import means_posterior, random_means_log_likelihood
from amt.inference.coordinates import (
    Sites,
    alike,
    contrasts,
    from_triangular,
    sample,
    sample_triangular,
    triangular,
)
from amt.kernels.task.scaled import ScaledTask
from amt.parameters import Learned, learned, replace

_SPREADS = dist.Normal(-0.7, 0.75)
_UP_TO_ROTATION = ("loadings", "embedding")


def redundant(model: MultiTaskGP) -> frozenset[str]:
    """Names of the scales of the config and fidelity kernels: the task kernel has one."""
    return frozenset(
        leaf.name
        for leaf in learned(model)
        if leaf.role == "scale" and leaf.name.partition(".")[0] in ("config", "fidelity")
    )


def encoder_weights(model: MultiTaskGP) -> frozenset[str]:
    """Names of the weights, biases and embeddings of a deep kernel's encoder."""
    return frozenset(leaf.name for leaf in learned(model) if leaf.role == "weight")


def pooled(model: MultiTaskGP) -> MultiTaskGP:
    """`model` with a noise variance and, where it has no loadings, an output scale of each task."""
    task, noise = model.task, model.noise
    num_tasks = len(task.gram())
    if not any(leaf.role in ("loadings", "task_scale") for leaf in learned(task)):
        task = ScaledTask(task, jnp.ones((num_tasks,), noise.variance.dtype))
    variance = jnp.broadcast_to(noise.variance, (num_tasks,))
    return eqx.tree_at(lambda m: (m.task, m.noise.variance), model, (task, variance))


def _has_scale(model: MultiTaskGP) -> bool:
    """Whether the task kernel has a scale beside that of each task."""
    return any(leaf.role == "scale" for leaf in learned(model.task))


def tied(model: MultiTaskGP, grid: CurveGrid, sites: Sites) -> Sites:
    """`sites` with one lengthscale for columns that are `alike`: that of the first of them."""
    changed = {}
    for leaf in learned(model):
        if leaf.role == "per_feature" and leaf.name in sites:
            changed[leaf.name] = sites[leaf.name][..., jnp.argmax(alike(grid.features), axis=1)]
    return sites | changed


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
        fixed: names (`amt.parameters.learned`) of what is not sampled.
    """
    sites: Sites = {}

    def population(name: str, location: Any, spread: dist.Distribution = _SPREADS):
        """Log-normal, one a task, around the logarithm of a location."""
        tau = sites[f"{name}.spread"] = sample(f"{name}.spread", _exp(spread))
        tasks = dist.LogNormal(location, tau).expand([grid.scores.shape[0]]).to_event(1)
        sites[name] = sample(name, tasks)

    for leaf in learned(model):
        if leaf.name in fixed:
            continue
        if leaf.role in _UP_TO_ROTATION:
            sites |= sample_triangular(leaf, shift=leaf.role == "embedding")
        elif leaf.role == "task_scale" and _has_scale(model):
            name, tau = f"{leaf.name}.contrasts", f"{leaf.name}.spread"
            sites[tau] = sample(tau, _exp(_SPREADS))
            normal = dist.Normal(0.0, sites[tau]).expand([leaf.value.size - 1]).to_event(1)
            sites[name] = sample(name, normal)
        elif leaf.role == "task_scale":
            population(leaf.name, 0.0)
        elif leaf.role == "noise":
            typical = sample(f"{leaf.name}.location", _exp(leaf.prior))
            population(leaf.name, jnp.log(typical))
        else:
            sites[leaf.name] = sample(leaf.name, _constrained(leaf))

    center, unit = jnp.mean(grid.scores), jnp.std(grid.scores)
    location = sample("mean.location", dist.Normal(center, 2 * unit))
    spread = sample("mean.spread", dist.LogNormal(jnp.log(unit) - 0.7, 1.0))
    drawn = assemble(model, tied(model, grid, sites))
    terms, half_log_det, _ = _Likelihood.of(drawn, grid, location, spread)
    numpyro.factor("likelihood", random_means_log_likelihood(*terms) - half_log_det)


def _exp(prior: dist.Distribution) -> dist.Distribution:
    """The distribution of the exponential."""
    return dist.TransformedDistribution(prior, ExpTransform())


def assemble(model: MultiTaskGP, sites: Sites) -> MultiTaskGP:
    """`model` with the values that sites of `hierarchical_model` have, as far as it holds them."""
    values = {}
    for leaf in learned(model):
        if f"{leaf.name}.diagonal" in sites:
            shift = leaf.role == "embedding"
            values[leaf.name] = from_triangular(leaf.name, sites, leaf.value, shift)
        elif f"{leaf.name}.contrasts" in sites:
            along = sites[f"{leaf.name}.contrasts"]
            values[leaf.name] = jnp.exp(contrasts(leaf.value.size, along.dtype) @ along)
        elif leaf.name in sites:
            values[leaf.name] = sites[leaf.name]
    return replace(model, values)


def start_sites(model: MultiTaskGP, grid: CurveGrid, fixed: Iterable[str] = frozenset()) -> Sites:
    """Values of all sites of `hierarchical_model` that suit the values of `model`."""
    sites: Sites = {}
    for leaf in learned(model):
        if leaf.name in fixed:
            continue
        if leaf.role in _UP_TO_ROTATION:
            sites |= triangular(leaf.name, leaf.value, shift=leaf.role == "embedding")
            continue
        if leaf.role == "task_scale" and _has_scale(model):
            basis = contrasts(leaf.value.size, leaf.value.dtype)
            sites[f"{leaf.name}.contrasts"] = basis.T @ jnp.log(leaf.value)
        else:
            sites[leaf.name] = leaf.value
        if leaf.role == "per_feature":
            same = alike(grid.features)
            precision = same @ (leaf.value**-2) / same.sum(1)
            sites[leaf.name] = 1 / jnp.sqrt(precision)
        if leaf.role in ("task_scale", "noise"):
            sites[f"{leaf.name}.spread"] = jnp.maximum(jnp.std(jnp.log(leaf.value)), 0.3)
        if leaf.role == "noise":
            sites[f"{leaf.name}.location"] = jnp.exp(jnp.mean(jnp.log(leaf.value)))
    means = model.log_likelihood(grid).means
    floor = jnp.std(grid.scores) / 10
    return sites | {
        "mean.location": jnp.mean(means),
        "mean.spread": jnp.maximum(jnp.std(means), floor),
    }


class _Likelihood(NamedTuple):
    """Arguments of `random_means_log_likelihood` for a model, and the units they are in."""

    terms: tuple[Whitened, Float[Array, "task"], Float[Array, "task"]]
    half_log_det: Float[Array, ""]
    root: Float[Array, "task"]

    @classmethod
    def of(
        cls,
        model: MultiTaskGP,
        grid: CurveGrid,
        location: Float[Array, ""],
        spread: Float[Array, ""],
    ) -> "_Likelihood":
        """The scores in units of the noise, task means around `location`."""
        factors = model.factors(grid)
        root = jnp.sqrt(factors.task_noise)
        whitened, half_log_det = factors.whiten(grid.scores)
        return cls((whitened, location / root, spread / root), half_log_det, root)


def draw_models(
    model: MultiTaskGP, grid: CurveGrid, sites: Sites, key: PRNGKeyArray
) -> tuple[MultiTaskGP, Float[Array, "draw task"]]:
    """Models of sites with leading axes (chain, draw), and task means drawn given each."""

    def draw(sites: Sites, key: PRNGKeyArray):
        drawn = assemble(model, sites)
        likelihood = _Likelihood.of(drawn, grid, sites["mean.location"], sites["mean.spread"])
        mean, root = means_posterior(*likelihood.terms)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return drawn, (mean + noise @ root) * likelihood.root

    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), sites)
    count = len(flat["mean.location"])
    return jax.lax.map(lambda args: draw(*args), (flat, jax.random.split(key, count)))
