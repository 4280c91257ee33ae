"""Heat maps against the laws that define them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import quick

from cnn_jax import models, nn
from cnn_jax.errors import ModelError
from cnn_jax.explain import grad_cam, last_maps, occlusion

RNG = np.random.default_rng(0)


def images(n=3, height=9, width=7, channels=2):
    return jnp.asarray(RNG.normal(size=(n, height, width, channels)), jnp.float32)


def linear(height=9, width=7, channels=2, classes=3):
    """f(x) = sum w x + b for each class."""
    w = jnp.asarray(RNG.normal(size=(height, width, channels, classes)), jnp.float32)
    b = jnp.asarray(RNG.normal(size=classes), jnp.float32)
    return lambda x: jnp.einsum("bhwc,hwck->bk", x, w) + b[None, :], np.asarray(w, np.float64)


def test_single_pixels_give_the_terms_of_a_sum_and_all_of_them_the_whole():
    f, w = linear()
    x, target, fill = images(), jnp.array([2, 0, 1]), jnp.array([0.3, -0.2])
    heat = quick(lambda x: occlusion(f, x, target, side=1, stride=1, fill=fill))(x)
    moved = np.asarray(x, np.float64) - np.asarray(fill)
    terms = np.stack([(w[..., t] * m).sum(axis=-1) for t, m in zip(target, moved, strict=True)])
    np.testing.assert_allclose(heat, terms, atol=2e-5)
    blank = jnp.broadcast_to(fill, x.shape)
    fall = (f(x) - f(blank))[jnp.arange(3), target]
    np.testing.assert_allclose(heat.sum(axis=(1, 2)), fall, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("side", "stride"), [(3, 1), (3, 2), (5, 5), (4, 3)])
def test_it_is_the_mean_over_all_squares_that_hold_a_pixel(side, stride):
    f, w = linear()
    x, target = images(1), jnp.array([1])
    heat = np.asarray(occlusion(f, x, target, side=side, stride=stride))[0]
    terms = (w[..., 1] * np.asarray(x[0], np.float64)).sum(axis=-1)
    total, times = np.zeros((9, 7)), np.zeros((9, 7))
    first = [1 - side + (side - 1) % stride] * 2
    for top in range(first[0], 9, stride):
        for left in range(first[1], 7, stride):
            part = np.s_[max(top, 0) : top + side, max(left, 0) : left + side]
            total[part] += terms[part].mean()
            times[part] += 1
    assert times.min() >= 1
    np.testing.assert_allclose(heat, total / times, atol=2e-5)


def test_what_is_not_looked_at_has_none():
    """A network that sees the upper left corner alone, and multiplies what it sees."""
    x = images(2)
    heat = occlusion(
        lambda x: (x[:, :3, :3] ** 2).sum(axis=(1, 2)), x, jnp.array([0, 1]), side=2, stride=1
    )
    np.testing.assert_allclose(np.asarray(heat)[:, 5:], 0, atol=1e-6)  # sums round differently
    np.testing.assert_allclose(np.asarray(heat)[:, :, 5:], 0, atol=1e-6)
    assert (np.asarray(heat)[:, :3, :3] > 0).all()


@pytest.mark.parametrize(("side", "stride"), [(0, 1), (3, 4), (8, 1), (3, 0)])
def test_squares_that_leave_pixels_out_are_refused(side, stride):
    with pytest.raises(ModelError, match="1 <= stride <= side <= 7"):
        occlusion(linear()[0], images(), jnp.array([0, 0, 0]), side=side, stride=stride)


class Pooled(nn.Module):
    """A convolution, global average pooling and a linear layer: where CAM is defined."""

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.relu(nn.Conv(5, (3, 3), name="conv")(image))
        x = Last(name="maps")(x)
        return nn.Dense(3, name="head")(nn.global_avg_pool(x))


class Last(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x * self.param("scale", nn.initializers.normal(), (1, 1, 1, 5))


@pytest.mark.parametrize("target", [0, 2])
def test_before_the_cut_it_is_the_class_activation_map(target):
    model, x = Pooled(), images(2, 6, 8)
    variables = model.init(jax.random.key(0), x)
    targets = jnp.full(2, target)
    heat = grad_cam(model, variables, x, targets, at="maps", positive=False)
    logits, found = nn.tap(model, variables, x, at=("maps",))
    head = variables["params"]["head"]
    cam = (np.asarray(found["maps"]) @ np.asarray(head["kernel"])[:, target]) / 48
    np.testing.assert_allclose(heat, cam, atol=1e-6)
    without = np.asarray(logits)[:, target] - float(head["bias"][target])
    np.testing.assert_allclose(np.asarray(heat).sum(axis=(1, 2)), without, rtol=1e-4, atol=1e-5)
    cut = grad_cam(model, variables, x, targets, at="maps")
    np.testing.assert_allclose(cut, np.maximum(cam, 0), atol=1e-6)


def test_the_layer_is_chosen_and_maps_are_as_large_as_the_image():
    for name, expected in (("compact", "stage3"), ("resnet18", "stage4"), ("lenet5", "conv2")):
        model = models.create(name, num_classes=3, image_size=32)
        shape = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), shape)
        assert last_maps(model, variables, shape) == expected
    model, x = models.create("compact", num_classes=3, image_size=20, widths=(4, 8)), images(2, 20)
    variables = models.initialize(model, jax.random.key(0), x.shape[1:])
    heat = quick(lambda v, x: grad_cam(model, v, x, jnp.array([0, 2])))(variables, x)
    assert heat.shape == x.shape[:3] and float(heat.min()) >= 0


def test_layers_without_maps_are_refused():
    model, x = Pooled(), images(2)
    variables = model.init(jax.random.key(0), x)
    with pytest.raises(ModelError, match="'head' gives no maps"):
        grad_cam(model, variables, x, jnp.array([0, 0]), at="head")
    with pytest.raises(ModelError, match="did you mean 'conv'"):
        grad_cam(model, variables, x, jnp.array([0, 0]), at="convs")
