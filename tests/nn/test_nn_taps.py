import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import nn
from cnn_jax.errors import ModelError


class Unit(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        return jnp.tanh(flax.linen.Dense(4, name="dense")(x))


class Twice(flax.linen.Module):
    """A plain unit, a rematerialised one, and one that is called twice."""

    @flax.linen.compact
    def __call__(self, x, train=False):
        x = Unit(name="first")(x)
        x = flax.linen.remat(Unit)(name="second")(x)
        shared = Unit(name="shared")
        x = shared(shared(x))
        return nn.BatchNorm(use_running_average=not train, name="norm")(x)


def unit(variables, name, x):
    dense = variables["params"][name]["dense"]
    return jnp.tanh(x @ dense["kernel"] + dense["bias"][None])


@pytest.fixture
def setting():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    return Twice(), Twice().init(jax.random.key(0), x), x


def test_outputs_are_those_of_the_named_modules(setting):
    model, variables, x = setting
    at = ("first", "second", "second/dense", "shared", "shared#1")
    apply = jax.jit(lambda x: nn.tap(model, variables, x, at=at))
    outputs, found = apply(x)
    first = unit(variables, "first", x)
    second = unit(variables, "second", first)
    shared = unit(variables, "shared", second)
    np.testing.assert_allclose(outputs, model.apply(variables, x), rtol=1e-6)
    assert set(found) == set(at)
    np.testing.assert_allclose(found["first"], first, rtol=1e-5)
    np.testing.assert_allclose(found["second"], second, rtol=1e-5)
    np.testing.assert_allclose(jnp.tanh(found["second/dense"]), second, rtol=1e-5)
    np.testing.assert_allclose(found["shared"], shared, rtol=1e-5)
    np.testing.assert_allclose(found["shared#1"], unit(variables, "shared", shared), rtol=1e-5)


@pytest.mark.parametrize("path", ["first", "second", "shared", "shared#1"])
def test_gradient_of_add_is_the_gradient_at_the_layer(setting, path):
    model, variables, x = setting
    names = ["first", "second", "shared", "shared#1"]
    after = names[names.index(path) + 1 :]

    def norm(features):
        stats, params = variables["batch_stats"]["norm"], variables["params"]["norm"]
        layer = nn.BatchNorm(use_running_average=True)
        return layer.apply({"params": params, "batch_stats": stats}, features)

    def from_features(features):
        for name in after:
            features = unit(variables, name.partition("#")[0], features)
        return (norm(features) ** 3).sum()

    def from_change(change):
        outputs, found = nn.tap(model, variables, x, at=(path,), add={path: change})
        return (outputs**3).sum(), found[path]

    zero = jnp.zeros((3, 4))
    gradient, features = jax.jit(jax.grad(from_change, has_aux=True))(zero)
    np.testing.assert_allclose(gradient, jax.grad(from_features)(features), rtol=1e-4, atol=1e-6)
    assert np.abs(gradient).max() > 1e-3


def test_updated_collections_come_back_as_from_apply(setting):
    model, variables, x = setting
    (outputs, updates), found = nn.tap(
        model, variables, x, at=("norm",), train=True, mutable=["batch_stats"]
    )
    expected = model.apply(variables, x, train=True, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, (outputs, updates), expected)
    np.testing.assert_array_equal(found["norm"], outputs)


def test_paths_are_listed_with_shapes(setting):
    model, variables, x = setting
    paths = nn.tap_paths(model, variables, x)
    assert set(paths) == {
        *("first", "first/dense", "second", "second/dense", "norm"),
        *("shared", "shared#1", "shared/dense", "shared/dense#1"),
    }
    assert paths["shared#1"] == jax.ShapeDtypeStruct((3, 4), jnp.float32)


def test_modules_that_share_a_scope_are_one_path():
    layer, x = nn.Sequential([nn.DepthwiseConv((3, 3))]), jnp.ones((1, 4, 4, 2))
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    assert list(nn.tap_paths(layer, variables, x)) == ["layers_0"]


class Looped(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        step = flax.linen.scan(
            lambda module, carry, _: (module(carry), None),
            variable_broadcast="params",
            split_rngs={"params": False},
            length=3,
        )
        return step(Unit(name="turn"), x, None)[0]


def test_a_module_inside_a_loop_is_refused():
    model, x = Looped(), jnp.ones((3, 4))
    variables = model.init(jax.random.key(0), x)
    with pytest.raises(ModelError, match="no submodule 'turn'"):
        nn.tap(model, variables, x, at=("turn",))


def test_unknown_paths_and_wrong_shapes_are_refused(setting):
    model, variables, x = setting
    with pytest.raises(ModelError, match=r"did you mean 'second/dense'\? The paths are first, "):
        nn.tap(model, variables, x, at=("secnd/dense",))
    with pytest.raises(ModelError, match="no submodule 'shared#2'"):
        nn.tap(model, variables, x, add={"shared#2": jnp.zeros((3, 4))})
    with pytest.raises(ModelError, match="that output is"):
        nn.tap(model, variables, x, add={"first": jnp.zeros((1, 4))})
    with pytest.raises(ModelError, match="must be a sequence"):
        nn.tap(model, variables, x, at="first")
