"""Gradients at the pixels against finite differences, and against what they must be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import quick

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.explain import gradient, gradient_times_input, saliency, smooth_grad

SHAPE = (3, 5, 4, 2)
TARGET = np.array([2, 0, 1], np.int32)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def network(dtype, bias=1.0):
    """A convolution, ReLU and a dense layer, as a function; smooth nowhere, so to say."""
    kernel, head = (jnp.asarray(draw(*s, seed=1), dtype) for s in ((3, 3, 2, 6), (120, 4)))
    shift = jnp.asarray(bias * draw(6, seed=2), dtype)

    def logits(x):
        maps = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return nn.relu(maps + shift[None, None, None]).reshape(len(x), -1) @ head

    return logits


def linear(dtype):
    w = jnp.asarray(draw(40, 4, seed=3), dtype)
    return lambda x: x.reshape(len(x), -1) @ w + 3, np.asarray(w)[:, TARGET].T.reshape(SHAPE)


def test_they_are_finite_differences():
    with jax.enable_x64(True):
        f, x, step = jax.jit(network(jnp.float64)), draw(*SHAPE), 1e-6
        heat = gradient(f, jnp.asarray(x), TARGET)
        assert heat.dtype == jnp.float64
        picked = lambda x: np.asarray(f(jnp.asarray(x)))[np.arange(3), TARGET]  # noqa: E731
        for place in np.ndindex(SHAPE[1:]):
            moved = np.zeros(SHAPE)
            moved[:, *place] = step
            slope = (picked(x + moved) - picked(x - moved)) / (2 * step)
            np.testing.assert_allclose(heat[:, *place], slope, atol=1e-7)
        np.testing.assert_array_equal(saliency(f, jnp.asarray(x), TARGET), abs(heat).max(axis=-1))


@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-5), (np.float64, 1e-10)])
def test_of_a_linear_function_they_are_its_weights(dtype, atol):
    with jax.enable_x64(dtype == np.float64):
        f, w = linear(dtype)
        x = jnp.asarray(draw(*SHAPE), dtype)
        heat = quick(lambda x: gradient(f, x, TARGET))(x)
        assert heat.dtype == dtype
        np.testing.assert_allclose(heat, w, atol=atol)
        np.testing.assert_allclose(gradient_times_input(f, x, TARGET), w * x, atol=atol)
        noisy = smooth_grad(f, x, TARGET, jax.random.key(0), samples=5, sigma=0.7, at_once=6)
        np.testing.assert_allclose(noisy, w, atol=atol)


def test_times_the_image_they_sum_to_a_homogeneous_answer():
    with jax.enable_x64(True):
        f, x = network(jnp.float64, bias=0.0), jnp.asarray(draw(*SHAPE))
        total = gradient_times_input(f, x, TARGET).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(total, f(x)[np.arange(3), TARGET], rtol=1e-10)


def test_half_precision_is_handed_over_in_single():
    x = jnp.asarray(draw(*SHAPE), jnp.bfloat16)
    heat = gradient(linear(jnp.bfloat16)[0], x, TARGET)
    assert heat.dtype == jnp.float32
    np.testing.assert_allclose(heat, linear(jnp.bfloat16)[1].astype(np.float32))


def test_noise_depends_neither_on_chunks_nor_on_the_other_images():
    f, x, key = network(jnp.float32), jnp.asarray(draw(*SHAPE), jnp.float32), jax.random.key(4)

    @quick
    def smoothed(x):
        def of(x, target, at_once, sigma=0.5):
            return smooth_grad(f, x, target, key, samples=7, sigma=sigma, at_once=at_once)

        parts = [of(x, TARGET, at_once) for at_once in (100, 1, 12)]
        return parts, of(x[1:2], TARGET[1:2], 32), of(x, TARGET, 12, 0.0), gradient(f, x, TARGET)

    (whole, *parts), alone, without, plain = smoothed(x)
    for part in parts:  # 7 at once; 1; 4, and the last of 8 does not count
        np.testing.assert_allclose(part, whole, atol=1e-5)
    np.testing.assert_allclose(alone, whole[1:2], atol=1e-5)
    np.testing.assert_allclose(without, plain, atol=1e-5)


def test_the_error_of_smoothing_falls_with_the_root_of_the_samples():
    """Of f = sum x^3 the smoothed gradient is 3 (x^2 + sigma^2), whatever the noise.

    Of 16 samples a key, and the mean over keys, which are as many more.
    """
    sigma, x = 0.5, jnp.asarray(draw(1, 8, 8, 4), jnp.float32)
    f = lambda x: (x**3).sum(axis=(1, 2, 3))[:, None]  # noqa: E731
    one = lambda key: smooth_grad(f, x, np.array([0]), key, samples=16, sigma=sigma)  # noqa: E731
    drawn = quick(lambda keys: jax.lax.map(one, keys))(jax.random.split(jax.random.key(5), 256))
    exact = 3 * (np.asarray(x, np.float64) ** 2 + sigma**2)
    errors = np.asarray(drawn, np.float64) - exact
    # Var 3 (x + e)^2 = 36 x^2 s^2 + 18 s^4, over n, is what remains.
    one_sample = np.sqrt(np.mean(36 * np.asarray(x) ** 2 * sigma**2 + 18 * sigma**4))
    for keys in (1, 4, 16, 64, 256):
        left = np.sqrt((errors.reshape(-1, keys, *x.shape).mean(axis=1) ** 2).mean())
        np.testing.assert_allclose(left, one_sample / np.sqrt(16 * keys), rtol=0.15)


class Own(nn.Module):
    """Any module is explained through a function of its logits."""

    @nn.compact
    def __call__(self, image):
        x = nn.tanh(nn.Dense(3, use_bias=False)(image.reshape(len(image), -1)))
        return {"logits": nn.Dense(4, use_bias=False)(x), "embedding": x}


def test_a_module_is_one_function_of_its_images():
    model, x = Own(), jnp.asarray(draw(*SHAPE), jnp.float32)
    variables = model.init(jax.random.key(0), x)
    heat = gradient(lambda x: model.apply(variables, x)["logits"], x, TARGET)
    first = variables["params"]["Dense_0"]
    inner = np.tanh(np.asarray(x).reshape(3, -1) @ np.asarray(first["kernel"]))
    last = np.asarray(variables["params"]["Dense_1"]["kernel"])[:, TARGET].T
    by_hand = ((1 - inner**2) * last) @ np.asarray(first["kernel"]).T
    np.testing.assert_allclose(heat, by_hand.reshape(SHAPE), atol=1e-5)


def test_a_class_that_is_none_is_refused_or_nan():
    f, x = network(jnp.float32), jnp.asarray(draw(*SHAPE), jnp.float32)
    for bad in (4, -1):
        target = np.array([0, bad, 1], np.int32)
        with pytest.raises(ModelError, match=f"target {bad} is no class: there are 4, from 0 to 3"):
            gradient(f, x, target)
        heat = quick(lambda x, t: gradient(f, x, t))(x, target)
        assert np.isnan(heat[1]).any() and np.isfinite(heat[0]).all()


def test_what_does_not_fit_is_refused():
    f, x = network(jnp.float32), jnp.asarray(draw(*SHAPE), jnp.float32)
    for image in (x[0], jnp.zeros(SHAPE, jnp.uint8)):
        with pytest.raises(ModelError, match=r"images must be floating \[B, H, W, C\]"):
            gradient(f, image, TARGET)
    for target in (TARGET[:2], TARGET.astype(np.float32)):
        with pytest.raises(ModelError, match="target must be an integer"):
            gradient(f, x, target)
    with pytest.raises(ModelError, match=r"not logits \[B, K\]"):
        gradient(lambda x: x, x, TARGET)
    key = jax.random.key(0)
    with pytest.raises(ModelError, match="sigma=-1"):
        smooth_grad(f, x, TARGET, key, samples=2, sigma=-1)
    for samples, at_once in ((0, 8), (2, 0)):
        with pytest.raises(ModelError, match="one step or sample at least"):
            smooth_grad(f, x, TARGET, key, samples=samples, sigma=1.0, at_once=at_once)
