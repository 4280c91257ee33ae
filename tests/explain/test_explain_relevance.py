"""Relevance against shares by hand, layer by layer, and against what it must be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import quick

from cnn_jax import models, nn
from cnn_jax.errors import ModelError
from cnn_jax.explain import gradient_times_input, layer_relevance

SHAPE = (3, 4, 3, 2)
TARGET = np.array([1, 0, 2], np.int32)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


class Folded(nn.Module):
    """Dense, batch norm, ReLU; a branch of the same that is added; ReLU; two dense layers."""

    activate: object = nn.relu
    bias: bool = True

    @nn.compact
    def __call__(self, image):
        def dense(x, features, name):
            layer = nn.Dense(
                features, use_bias=self.bias, name=name, dtype=x.dtype, param_dtype=x.dtype
            )
            return layer(x)

        def norm(x, name):
            layer = nn.BatchNorm(
                use_running_average=True, use_bias=self.bias, name=name, dtype=x.dtype
            )
            return layer(x)

        x = norm(dense(image.reshape(len(image), -1), 7, "first"), "norm1")
        x = self.activate(x)
        x = self.activate(x + norm(dense(x, 7, "second"), "norm2"))
        return dense(dense(x, 5, "third"), 4, "head")


def variables_of(model, bias=True):
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(SHAPE, jnp.float32))
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(1)
    drawn = jax.tree.unflatten(structure, [rng.normal(size=leaf.shape) for leaf in leaves])
    stats = drawn["batch_stats"]
    for one in stats.values():
        one["var"] = np.abs(one["var"]) + 0.5
        one["mean"] = one["mean"] if bias else 0 * one["mean"]
    return jax.tree.map(jnp.asarray, drawn)


def by_hand(variables, x, epsilon):
    """R of the pixels, with every layer a matrix and a bias, and its shares written out."""
    params, stats = jax.tree.map(
        lambda v: np.asarray(v, np.float64), (variables["params"], variables["batch_stats"])
    )

    def layer(name, norm=None):
        w, b = params[name]["kernel"], params[name]["bias"]
        if norm is None:
            return w, b
        scale = params[norm]["scale"] / np.sqrt(stats[norm]["var"] + 1e-5)
        return w * scale, (b - stats[norm]["mean"]) * scale + params[norm]["bias"]

    (w1, b1), (w2, b2) = layer("first", "norm1"), layer("second", "norm2")
    w2 = w2 + np.eye(7)
    (w3, b3), (w4, b4) = layer("third"), layer("head")
    out = w3 @ w4, b3 @ w4 + b4
    layers, inputs, sums = ((w1, b1), (w2, b2), out), [x.reshape(len(x), -1)], []
    for w, b in layers:
        sums.append(inputs[-1] @ w + b)
        inputs.append(np.maximum(sums[-1], 0))
    relevance = np.zeros_like(sums[-1])
    rows = np.arange(len(x))
    relevance[rows, TARGET] = sums[-1][rows, TARGET]
    for (w, _), a, z in zip(layers[::-1], inputs[-2::-1], sums[::-1], strict=True):
        shares = a[:, :, None] * w[None] / (z + epsilon * np.where(z >= 0, 1, -1))[:, None, :]
        relevance = (shares * relevance[:, None, :]).sum(axis=2)
    return relevance.reshape(x.shape)


@pytest.mark.parametrize("epsilon", [0.0, 0.3])
@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-5), (np.float64, 1e-10)])
def test_shares_by_hand(epsilon, dtype, atol):
    x = draw(*SHAPE)
    with jax.enable_x64(dtype == np.float64):
        variables = jax.tree.map(lambda v: v.astype(dtype), variables_of(Folded()))
        found = quick(lambda v, x, t: layer_relevance(Folded(), v, x, t, epsilon=epsilon))(
            variables, jnp.asarray(x, dtype), TARGET
        )
        assert found.dtype == dtype
        expected = by_hand(variables, x, epsilon)
        np.testing.assert_allclose(found, expected, atol=atol * abs(expected).max())


def test_without_biases_it_is_conserved_and_an_epsilon_takes_some():
    with jax.enable_x64(True):
        model, x = Folded(bias=False), jnp.asarray(draw(*SHAPE))
        variables = variables_of(model, bias=False)
        logits = np.asarray(model.apply(variables, x))[np.arange(3), TARGET]
        totals = [
            layer_relevance(model, variables, x, TARGET, epsilon=e).sum(axis=(1, 2, 3))
            for e in (0.0, 1e-6, 1e3)
        ]
        np.testing.assert_allclose(totals[0], logits, rtol=1e-10)
        np.testing.assert_allclose(totals[1], logits, rtol=1e-3)
        assert (abs(totals[2]) < 0.05 * abs(logits)).all()


def test_with_no_epsilon_it_is_gradient_times_input():
    model = models.create("compact", num_classes=4, image_size=12, widths=(4, 8))
    x = jnp.asarray(draw(2, 12, 12, 3), jnp.float32)
    variables = models.initialize(model, jax.random.key(0), x.shape[1:])
    target = jnp.array([0, 3])
    exact, plain, quiet = quick(
        lambda v, x: (
            layer_relevance(model, v, x, target, epsilon=0.0),
            gradient_times_input(lambda x: model.apply(v, x), x, target),
            layer_relevance(model, v, x, target, epsilon=1.0),
        )
    )(variables, x)
    np.testing.assert_allclose(exact, plain, atol=1e-5 * float(abs(plain).max()))
    assert float(abs(quiet).sum()) < 0.9 * float(abs(plain).sum())


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18", "vgg16"])
def test_there_are_rules_for_our_networks_of_relus(name):
    model = models.create(name, num_classes=4, image_size=64)
    x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    found = jax.eval_shape(
        lambda v, x: layer_relevance(model, v, x, jnp.array([0, 3]), epsilon=0.1), variables, x
    )
    assert found.shape == x.shape


class Pooled(nn.Module):
    """A convolution whose largest sums are taken before the ReLU: one layer ends there, not two."""

    @nn.compact
    def __call__(self, image):
        x = image.reshape(len(image), -1) @ self.param("first", nn.initializers.normal(1), (24, 8))
        x = nn.relu(nn.max_pool(x.reshape(-1, 2, 4, 1), (1, 2), (1, 2)))
        return x.reshape(len(x), -1) @ self.param("head", nn.initializers.normal(1), (4, 3))


@pytest.mark.heavy
def test_max_pooling_gives_all_to_the_largest():
    model, x = Pooled(), draw(*SHAPE)
    variables = model.init(jax.random.key(0), jnp.asarray(x, jnp.float32))
    found = layer_relevance(model, variables, jnp.asarray(x, jnp.float32), TARGET, epsilon=0.5)
    first, head = (np.asarray(variables["params"][name]) for name in ("first", "head"))
    flat = x.reshape(3, -1)
    z = (flat @ first).reshape(3, 4, 2)
    a = np.maximum(z.max(axis=2), 0)
    y = (a @ head)[np.arange(3), TARGET][:, None]
    of_a = a * head[:, TARGET].T * y / (y + 0.5 * np.sign(y))
    of_z = ((z == z.max(axis=2, keepdims=True)) * of_a[:, :, None]).reshape(3, 8)
    z = z.reshape(3, 8)
    share = of_z / (z + 0.5 * np.sign(z))
    np.testing.assert_allclose(found, (flat * (share @ first.T)).reshape(SHAPE), atol=1e-5)


class Pooling(nn.Module):
    """Every kind of pooling there is a rule for, and a layer under `jax.checkpoint`."""

    @nn.compact
    def __call__(self, image):
        x = nn.relu(nn.Conv(4, (3, 3))(image))
        x = nn.avg_pool(x, (2, 2), (2, 2), padding="SAME")
        x = nn.relu(nn.remat(nn.Conv)(4, (3, 3), padding="CIRCULAR")(nn.blur_pool(x, 2)))
        x = nn.adaptive_max_pool(nn.relu(nn.ConvTranspose(4, (2, 2), (2, 2))(x)), 3)
        return nn.Dense(3)(nn.global_max_pool(x))


def test_poolings_and_recomputed_layers_have_rules():
    model, x = Pooling(), jnp.asarray(draw(3, 9, 9, 2), jnp.float32)
    variables = quick(model.init)(jax.random.key(0), x)
    exact, plain, quiet = quick(
        lambda v, x: (
            layer_relevance(model, v, x, TARGET, epsilon=0.0),
            gradient_times_input(lambda x: model.apply(v, x), x, TARGET),
            layer_relevance(model, v, x, TARGET, epsilon=0.1),
        )
    )(variables, x)
    np.testing.assert_allclose(exact, plain, atol=1e-6)
    assert float(abs(quiet - plain).max()) > 1e-3


class Gated(nn.Module):
    @nn.compact
    def __call__(self, image):
        x = nn.Dense(4)(nn.global_avg_pool(image))
        return x * x


def test_what_has_no_rule_is_refused():
    x = jnp.asarray(draw(*SHAPE), jnp.float32)
    for model, match in (
        (Folded(activate=nn.tanh), "no rule for the operation 'tanh'"),
        (Folded(activate=nn.softplus), "no rule for"),
        (Folded(activate=nn.relu6), "no rule for"),
        (Gated(), "no rule for the operation 'mul' of several features"),
    ):
        variables = model.init(jax.random.key(0), x)
        with pytest.raises(ModelError, match=match):
            layer_relevance(model, variables, x, TARGET, epsilon=0.0)
    with pytest.raises(ModelError, match="epsilon=-1"):
        layer_relevance(Folded(), variables_of(Folded()), x, TARGET, epsilon=-1)
