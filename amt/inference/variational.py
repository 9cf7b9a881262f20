"""Variational inference of the hierarchical model by an autoguide of NumPyro."""

from collections.abc import Callable, Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpyro
import optax
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.handlers import replay, seed
from numpyro.infer import ELBO, SVI
from numpyro.infer.autoguide import AutoGuide, AutoNormal
from numpyro.infer.initialization import init_to_value
from numpyro.infer.util import log_density

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.inference.draws import Draws
from amt.inference.hierarchical import (
    draw_models,
    hierarchical_model,
    pooled,
    redundant,
    start_sites,
    tied,
)

_MEAN_FIELD = partial(AutoNormal, init_scale=0.01)


class InOrderELBO(ELBO):
    """The ELBO from one draw of the guide, its terms in the order of the model.

    `numpyro.infer.Trace_ELBO` adds them in an order that differs from process to process, so that
    none would find the program that another has compiled.
    """

    def loss(self, rng_key, param_map, model, guide, *args, **kwargs) -> Float[Array, ""]:
        model_key, guide_key = jax.random.split(rng_key)
        of_guide, drawn = log_density(seed(guide, guide_key), args, kwargs, param_map)
        replayed = replay(seed(model, model_key), drawn)
        of_model, _ = log_density(replayed, args, kwargs, param_map)
        return jnp.asarray(of_guide - of_model)


def fit_svi(
    model: MultiTaskGP,
    grid: CurveGrid,
    key: PRNGKeyArray,
    *,
    fixed: Iterable[str] | None = None,
    guide: Callable[..., AutoGuide] = _MEAN_FIELD,
    steps: int = 3000,
    learning_rate: float = 0.01,
    draws: int = 1000,
) -> Draws:
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
        optax.flatten(optax.adam(optax.cosine_decay_schedule(learning_rate, steps)))
    )
    svi = SVI(hierarchical_model, approximation, optimizer, InOrderELBO())
    start_key, sample_key, mean_key = jax.random.split(key, 3)

    def step(state, _):
        return svi.update(state, *args)

    state, loss = jax.lax.scan(step, svi.init(start_key, *args), length=steps)
    sites = approximation.sample_posterior(
        sample_key, svi.get_params(state), sample_shape=(1, draws)
    )
    sites = tied(model, grid, sites)
    models, means = draw_models(model, grid, sites, mean_key)
    return Draws(models, means, sites, loss=loss)
