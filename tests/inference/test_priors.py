"""Priors of every learned parameter."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from numpyro.distributions import constraints
from scipy.stats import lognorm, norm
from tinygp.kernels import Kernel

from amt.files import read_json
from amt.gp.model import MultiTaskGP
from amt.gp.task_regression.model import TaskRegression
from amt.inference.priors import LEARNED, learned_priors, log_prior
from amt.kernels import KERNELS
from amt.kernels.task.scaled import ScaledTask
from amt.parameters import learned, parameter, unconstrain
from amt.space import Encoder
from tests.problems import small_curves

GUESS = dist.Normal(0.0, 1.5)


class Mine(Kernel):
    """A user's kernel, with all that the library knows of it."""

    lengthscale: jax.Array = parameter(constraints.positive, prior=GUESS)
    period: jax.Array = parameter(
        constraints.positive, prior=lambda kernel: dist.Normal(kernel.data.sum(), 1.0)
    )
    share: jax.Array = parameter(constraints.interval(0.0, 1.0), prior=GUESS)
    slope: jax.Array = parameter(constraints.real, prior=dist.Normal(0.0, 1.0))
    data: jax.Array = eqx.field(default_factory=lambda: jnp.ones(2))

    def evaluate(self, X1, X2):
        return self.share + jnp.exp(-jnp.square(X1 - X2))


MINE = Mine(jnp.asarray(2.0), jnp.asarray(3.0), jnp.asarray(0.2), jnp.asarray([0.5, -1.0]))


@pytest.fixture(scope="module", params=range(4))
def model(request):
    names = {axis: list(kernels)[request.param] for axis, kernels in KERNELS.items()}
    return MultiTaskGP.init(small_curves(), jax.random.key(0), noise="task_epoch", **names)


def test_every_parameter_has_a_prior(model):
    free, _ = unconstrain(model)
    leaves = learned(model)
    assert len(leaves) == len(free) > 5
    for leaf, value in zip(leaves, free, strict=True):
        assert_allclose(leaf.free, value)
    expected = sum(density_of(leaf.prior, leaf.free) for leaf in leaves)
    assert np.isfinite(expected)
    assert_allclose(density(model), expected)


density = jax.jit(log_prior, static_argnums=1)


def density_of(prior, values):
    """Log density of values under a normal prior."""
    assert type(prior) is dist.Normal
    return norm.logpdf(values, prior.loc, prior.scale).sum()


@jax.jit
def with_gradient(model, everywhere):
    """The log prior and its gradient where all unconstrained values are one number."""
    free, constrain = unconstrain(model)
    at = jax.tree.map(lambda x: jnp.full_like(x, everywhere), free)
    return jax.value_and_grad(lambda free: log_prior(constrain(free)))(at)


@pytest.mark.parametrize("extreme", [-30.0, 30.0])
def test_finite_at_extremes_and_so_is_its_gradient(model, extreme):
    value, gradient = with_gradient(model, extreme)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradient)


def test_every_prior_integrates_to_one(model):
    for leaf in learned(model):
        loc, scale = np.asarray(leaf.prior.mean), np.sqrt(leaf.prior.variance)
        at = loc + scale * np.linspace(-9, 9, 2001)
        assert_allclose(np.trapezoid(np.exp(leaf.prior.log_prob(at)), at), 1, rtol=1e-6)


def test_the_density_is_of_the_unconstrained_value():
    only = eqx.tree_at(lambda m: m.slope, MINE, jnp.zeros(0))
    priors = {2.0: lognorm(1.5), 3.0: lognorm(1.0, scale=np.exp(2.0))}
    expected = sum(prior.logpdf(x) + np.log(x) for x, prior in priors.items())
    expected += norm(0.0, 1.5).logpdf(np.log(0.2 / 0.8))
    assert_allclose(log_prior(only), expected)


def test_a_kernels_own_declarations_are_its_priors():
    leaves = learned(MINE)
    assert [leaf.name for leaf in leaves] == ["lengthscale", "period", "share", "slope"]
    assert leaves[1].prior.mean == 2


def test_a_subclass_gives_a_field_another_prior():
    class Yours(Mine):
        period: jax.Array = parameter(constraints.positive, prior=dist.Normal(2.0, 0.1))

    yours = Yours(MINE.lengthscale, MINE.period, MINE.share, MINE.slope)
    expected = norm(2.0, 0.1).logpdf(np.log(3.0)) - norm(2.0, 1.0).logpdf(np.log(3.0))
    assert_allclose(np.asarray(density(yours)) - density(MINE), expected)


class NoPrior(eqx.Module):
    kernel: Mine
    offset: jax.Array = parameter(constraints.real, prior=None)


def test_a_parameter_without_a_prior_is_refused():
    with pytest.raises(ValueError, match=r"offset has no prior: NoPrior\.offset is declared"):
        log_prior(NoPrior(MINE, jnp.ones(2)))


def test_the_priors_of_the_kernels_are_those_that_were_chosen():
    """Location and scale of the normal priors, on unconstrained values."""
    curves = small_curves()
    stated = {}
    for names in zip(*KERNELS.values(), strict=True):
        chosen = dict(zip(KERNELS, names, strict=True))
        model = MultiTaskGP.init(
            curves, jax.random.key(0), noise="task_epoch", nugget=True, **chosen
        )
        for leaf in learned(model):
            stated[leaf.declared] = (leaf.role, float(leaf.prior.mean), float(leaf.prior.variance))
    scale = ("scale", 0, 9)
    at2 = np.sum(np.asarray(model_of("at2", curves).distance)) / 12
    rank = np.sum(np.asarray(model_of("rank", curves).distance)) / 12
    expected = {
        "AT2Task.scale": scale,
        "AT2Task.lengthscale": ("shape", np.log(at2) / 2, 1),
        "AT2Task.U": ("shape", -0.7, 1),
        "ICM.loadings": ("loadings", 0, 1),
        "ICM.kappa": ("shape", -2.3, 4),
        "RankAgreement.scale": scale,
        "RankAgreement.bandwidth": ("shape", np.log(rank), 1),
        "LatentTask.embedding": ("embedding", 0, 1),
        "LatentTask.scale": scale,
        "ConfigNet.embeddings": ("weight", 0, 1),
        "ConfigNet.hidden": ("weight", 0, 1),
        "ConfigNet.output": ("weight", 0, 1),
        "DeepPolynomial.offset": ("shape", 0, 1),
        "Matern.lengthscale": ("per_feature", np.log(Encoder(curves.space).num_features) / 2, 2.25),
        "AdditiveTree.weight": ("shape", 0, 2.25),
        "AdditiveTree.numeric": ("shape", 0, 2.25),
        "AdditiveTree.categorical": ("shape", 0, 2.25),
        "AT2Fidelity.a": ("shape", 0, 1),
        "AT2Fidelity.b": ("shape", 0, 1),
        "AT2Fidelity.scale": scale,
        "FreezeThaw.a": ("shape", 0, 1),
        "FreezeThaw.b": ("shape", 0, 1),
        "Fabolas.a": ("shape", 0, 1),
        "Fabolas.b": ("shape", 0, 1),
        "LogMatern.lengthscale": ("shape", 0.7, 1),
        "SeparableNoise.variance": ("noise", -6.9, 9),
        "SeparableNoise.power": ("shape", 0, 1),
        "MultiTaskGP.nugget": ("shape", -6.9, 9),
    }
    assert stated.keys() == expected.keys()
    for declared, (role, *moments) in expected.items():
        assert stated[declared][0] == role, declared
        assert_allclose(stated[declared][1:], moments, rtol=1e-12, err_msg=declared)
    scaled = learned(ScaledTask(model_of("at2", curves), jnp.ones(4)))[-1]
    assert (scaled.role, scaled.prior.mean, scaled.prior.variance) == ("task_scale", 0, 0.25)


def model_of(task, curves):
    return MultiTaskGP.init(curves, jax.random.key(0), task=task).task


def test_priors_in_units_of_the_data_follow_its_unit():
    curves = small_curves()
    location = []
    for unit in (1.0, 100.0):
        scaled = type(curves)(
            configs=curves.configs,
            space=curves.space,
            tasks=curves.tasks,
            scores=unit * curves.scores,
        )
        kernel = MultiTaskGP.init(scaled, jax.random.key(0)).task
        location.append({leaf.name: leaf.prior.mean for leaf in learned(kernel)}["lengthscale"])
    assert_allclose(np.diff(location), np.log(100))


def test_learned_priors_are_those_of_the_file_where_a_parameter_has_one():
    model = TaskRegression.init(small_curves(), jax.random.key(0), config="deep_rbf")
    entries, wanted = read_json(LEARNED)["priors"], 0.0
    for leaf in learned(model):
        prior = leaf.prior
        if not leaf.name.startswith(("config.", "surface.kernel.")):  # the file's are of Matern
            prior = dist.Normal(entries[leaf.name]["mean"], entries[leaf.name]["deviation"])
        wanted += density_of(prior, leaf.free)
    assert_allclose(density(model, "learned"), wanted)
    assert abs(wanted - density(model)) > 1


def test_every_parameter_of_task_regression_has_a_learned_prior():
    for leaf in learned(TaskRegression.init(small_curves(), jax.random.key(0))):
        assert (leaf.name, leaf.declared) in learned_priors()
