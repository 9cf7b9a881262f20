"""Learned leaves: their declarations, unconstrained values and the way back."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpyro.distributions import constraints

from amt.gp.model import MultiTaskGP
from amt.parameters import learned, parameter, replace, unconstrain
from tests.problems import small_curves

STANDARD = dist.Normal(0.0, 1.0)


def around(values):
    return dist.Normal(values.sum(), 1.0)


class Inner(eqx.Module):
    own: jax.Array = parameter(constraints.greater_than(1.0), prior=STANDARD, role="scale")
    inherited: jax.Array


class Outer(eqx.Module):
    inner: Inner = parameter(constraints.positive, prior=dist.Normal(1.0, 2.0), role="weight")
    pair: tuple = parameter(constraints.unit_interval, prior=lambda module: around(module.data))
    real: jax.Array = parameter(constraints.real, prior=None)
    data: jax.Array
    undeclared: Inner
    optional: jax.Array | None = parameter(constraints.positive, prior=STANDARD)
    name: str = eqx.field(static=True, default="outer")


def outer(optional=None):
    return Outer(
        inner=Inner(jnp.array([1.5, 3.0]), jnp.array(0.2)),
        pair=(jnp.array(0.25), {"deep": [jnp.array([0.5, 0.9])]}),
        real=jnp.array(-2.0),
        data=jnp.array([-1.0, 5.0]),
        undeclared=Inner(jnp.array(2.0), jnp.array(-7.0)),
        optional=optional,
    )


def assert_models_close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(lambda a, e: assert_allclose(a, e, rtol=1e-10), actual, expected)


@pytest.mark.parametrize("optional", [None, jnp.array(3.0)])
def test_unconstrain_and_constrain_are_inverse(optional):
    model = outer(optional)
    free, constrain = unconstrain(model)
    assert_models_close(constrain(free), model)
    moved = tuple(f + 0.3 for f in free)
    again = unconstrain(constrain(moved)).free
    for got, want in zip(again, moved, strict=True):
        assert_allclose(got, want, rtol=1e-8)


def test_free_are_the_learned_leaves_under_their_bijections():
    logit = lambda p: np.log(p / (1 - p))  # noqa: E731
    expected = [
        np.log([0.5, 2.0]),  # greater than 1, which its own field says
        np.log(0.2),  # positive, which the field that holds it says
        logit(0.25),
        logit(np.array([0.5, 0.9])),
        -2.0,
        np.log(2 - 1.0),  # declared inside of a field that is not
    ]
    free = unconstrain(outer()).free
    assert len(free) == len(expected)
    for got, want in zip(free, expected, strict=True):
        assert_allclose(got, want, atol=1e-10)


def test_the_innermost_declaration_holds():
    leaves = learned(outer())
    assert [(leaf.name, leaf.declared, leaf.role) for leaf in leaves] == [
        ("inner.own", "Inner.own", "scale"),
        ("inner.inherited", "Outer.inner", "weight"),
        ("pair.0", "Outer.pair", "shape"),
        ("pair.1.deep.0", "Outer.pair", "shape"),
        ("real", "Outer.real", "shape"),
        ("undeclared.own", "Inner.own", "scale"),
    ]
    for leaf, free in zip(leaves, unconstrain(outer()).free, strict=True):
        assert_array_equal(leaf.free, free)
    # A function makes a prior from the module that declares the field.
    means = [leaf.prior.mean for leaf in leaves if leaf.name != "real"]
    assert_allclose(means, [0, 1, 4, 4, 0])


def test_what_has_no_prior_says_so():
    real = learned(outer())[4]
    with pytest.raises(ValueError, match=r"real has no prior: Outer\.real is .* prior=None"):
        _ = real.prior
    assert str(real) == "real (Outer.real, shape): no prior"
    assert str(learned(outer())[1]) == (
        "inner.inherited (Outer.inner, weight): ExpTransform of Normal(loc=1, scale=2)"
    )


def test_a_field_without_a_prior_is_refused_where_it_is_defined():
    with pytest.raises(TypeError, match=r"states its prior.*amt\.parameter\(constraint, prior="):

        class Forgetful(eqx.Module):
            lengthscale: jax.Array = parameter(constraints.positive)

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'constraint'"):
        parameter(prior=STANDARD)  # pyright: ignore


@pytest.mark.parametrize(
    ("error", "message", "declared"),
    [
        (TypeError, "a prior is a numpyro distribution .*, not 1.0", {"prior": 1.0}),
        (ValueError, "no role 'size'; there are shape, scale, ", {"role": "size"}),
        (ValueError, "the constraint of 'loadings' is Real", {"role": "loadings"}),
        (
            ValueError,
            "the prior of 'embedding' is normal with mean 0",
            {"constraint": constraints.real, "prior": dist.Normal(1.0, 1.0), "role": "embedding"},
        ),
    ],
)
def test_declarations_that_make_no_sense_are_refused(error, message, declared):
    with pytest.raises(error, match=message):
        parameter(**{"constraint": constraints.positive, "prior": STANDARD} | declared)


def test_replace_puts_values_by_name():
    model = MultiTaskGP.init(small_curves(), jax.random.key(0))
    new = replace(model, {"config.net.hidden.bias": jnp.ones(5), "noise.variance": jnp.ones(1)})
    assert_allclose(new.config.net.hidden.bias, 1)
    assert_allclose(new.noise.variance, 1)
    assert new.config.net.output.weight is model.config.net.output.weight
    with pytest.raises(KeyError, match=r"no leaf 'noise\.level'"):
        replace(model, {"noise.level": jnp.ones(1)})


def test_what_is_not_learned_is_left_as_it_is():
    model = outer()
    free, constrain = unconstrain(model)
    moved = constrain(tuple(f + 1 for f in free))
    assert moved.data is model.data
    assert moved.undeclared.inherited is model.undeclared.inherited
    assert moved.optional is None
    assert moved.name == "outer"
    assert moved.real == model.real + 1


def test_constraints_hold_wherever_the_free_values_go():
    free, constrain = unconstrain(outer(jnp.array(3.0)))
    for shift in (-30.0, 30.0):
        model = constrain(tuple(f + shift for f in free))
        assert (model.inner.own >= 1).all()
        assert model.inner.inherited > 0
        assert model.optional > 0
        assert 0 <= model.pair[0] <= 1


def test_gradients_pass_to_the_free_values():
    model = outer(jnp.array(3.0))
    free, constrain = unconstrain(model)

    def total(free):
        m = constrain(free)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(eqx.filter(m, eqx.is_array)))

    expected = [
        model.inner.own - 1,  # d(1 + exp(x)) = exp(x)
        model.inner.inherited,
        0.25 * 0.75,  # the logistic function
        np.array([0.5 * 0.5, 0.9 * 0.1]),
        1.0,
        1.0,
        3.0,
    ]
    for got, want in zip(jax.jit(jax.grad(total))(free), expected, strict=True):
        assert_allclose(got, want, rtol=1e-6)


class Pair(NamedTuple):
    first: jax.Array
    second: jax.Array


class HoldsNamedTuple(eqx.Module):
    pair: Pair = parameter(constraints.positive, prior=STANDARD)


def test_a_named_tuple_passes_the_constraint_on():
    model = HoldsNamedTuple(Pair(jnp.array(0.5), jnp.array(2.0)))
    free, constrain = unconstrain(model)
    assert_allclose(free, np.log([0.5, 2.0]))
    assert_models_close(constrain(free), model)
    first, second = learned(model)
    assert (first.name, second.name) == ("pair.first", "pair.second")
    assert first.declared == second.declared == "HoldsNamedTuple.pair"
    assert_allclose([first.free, second.free], np.log([0.5, 2.0]))


@pytest.mark.parametrize(
    "kernels",
    [{}, {"task": "icm", "config": "matern", "fidelity": "freeze_thaw", "noise": "task_epoch"}],
)
def test_a_model_comes_back_and_its_data_is_not_learned(kernels):
    model = MultiTaskGP.init(small_curves(), jax.random.key(0), **kernels)
    free, constrain = unconstrain(model)
    assert_models_close(constrain(free), model)
    if not kernels:
        moved = constrain(tuple(f + 0.1 for f in free))
        assert_array_equal(moved.task.distance, model.task.distance)
        assert_array_equal(moved.task.overlap, model.task.overlap)
        assert moved.task.lengthscale != model.task.lengthscale
    else:
        assert_allclose(free[0], model.task.loadings)
        assert_allclose(free[1], jnp.log(model.task.kappa))


def test_models_stacked_along_a_leading_axis():
    free, constrain = unconstrain(outer())
    stacked = jax.tree.map(lambda f: jnp.stack([f, f + 1]), free)
    both = jax.vmap(constrain)(stacked)
    assert_models_close(
        jax.tree.map(lambda leaf: leaf[1], both), constrain(tuple(f + 1 for f in free))
    )
