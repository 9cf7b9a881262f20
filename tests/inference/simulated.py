"""Posterior draws that several tests look at: NUTS on data simulated from known models."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import pytest

from amt.gp.grid import CurveGrid
from amt.gp.model import MultiTaskGP
from amt.gp.noise import SeparableNoise
from amt.inference.draws import Draws
from amt.inference.nuts import sample_nuts
from amt.kernels import LogMatern, Matern
from amt.kernels.task.latent import LatentTask
from amt.kernels.task.scaled import ScaledTask

SHAPE = TASKS, CONFIGS, EPOCHS = 4, 12, 4
DATASETS, CHAINS, DRAWS = 5, 2, 100


class Simulated(NamedTuple):
    """Known models and their means, scores simulated from them, and the posterior given each."""

    truth: MultiTaskGP
    means: np.ndarray
    grid: CurveGrid
    posterior: Draws


def known(rng: np.random.Generator) -> MultiTaskGP:
    """A model near the middle of its prior."""
    near = lambda center, *shape: np.asarray(center * np.exp(0.3 * rng.normal(size=shape)))  # noqa: E731
    embedding = 0.7 * rng.normal(size=(TASKS, 2))
    contrast = rng.normal(size=TASKS)
    return MultiTaskGP(
        task=ScaledTask(
            LatentTask(embedding=embedding, scale=near(1.0)),
            np.exp(0.4 * (contrast - contrast.mean())),
        ),
        config=Matern(lengthscale=near(0.7, 2)),
        fidelity=LogMatern(lengthscale=near(2.0)),
        noise=SeparableNoise(variance=near(0.01, TASKS), power=None),
    )


def simulate(model: MultiTaskGP, means: np.ndarray, rng: np.random.Generator) -> CurveGrid:
    features, epochs = rng.uniform(size=(CONFIGS, 2)), np.linspace(1 / EPOCHS, 1, EPOCHS)
    grams = model.task.gram(), model.config(features, features), model.fidelity(epochs, epochs)
    roots = [np.linalg.cholesky(np.asarray(g) + 1e-9 * np.eye(len(g))) for g in grams]
    scores = np.einsum("ti,cj,ek,ijk->tce", *roots, rng.normal(size=SHAPE))
    scores += means[:, None, None]
    noise = np.sqrt(np.asarray(model.noise.variance))[:, None, None]
    scores += noise * rng.normal(size=SHAPE)
    return CurveGrid(scores, features, epochs)


@pytest.fixture(scope="session")
def simulated() -> Simulated:
    rng = np.random.default_rng(1)
    truths = jax.device_put([known(rng) for _ in range(DATASETS)])
    means = 0.5 + 0.3 * rng.normal(size=(DATASETS, TASKS))
    grids = [simulate(*pair, rng) for pair in zip(truths, means, strict=True)]
    sample = jax.jit(partial(sample_nuts, chains=CHAINS, warmup=240, draws=DRAWS, max_tree_depth=6))
    # One after the other: side by side, all would take as many steps as the slowest.
    keys = jax.random.split(jax.random.key(0), DATASETS)
    draws = [sample(*arguments) for arguments in zip(truths, grids, keys, strict=True)]
    stacked = (
        jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(each))
        for each in (truths, grids, draws)
    )
    truth, grid, posterior = stacked
    return Simulated(truth, means, grid, posterior)
