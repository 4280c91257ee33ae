"""Gradients of a logit with respect to the pixels: plain, times the image, and smoothed."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnn_jax.errors import ModelError
from cnn_jax.explain.answers import Answers, answer_of, working_dtype
from cnn_jax.explain.chunks import AT_ONCE, add_up, cut


def gradient(logits: Answers, image: jax.Array, target: jax.Array) -> jax.Array:
    """df/dx, f the logit of each image's class.

    Of f(x) = sum w x + b it is w. Pure, and may be jitted, as all methods here.

    Args:
      logits: `[B, H, W, C]` to `[B, K]`; in evaluation, so that an image answers for itself.
      image: float `[B, H, W, C]`, as `logits` takes it.
      target: int32 `[B]`, the class of each image.

    Returns:
      `[B, H, W, C]`, signed, in logits for a unit of the image; float32, or float64 for images
      that are.

    Raises:
      ModelError: images, targets or logits of another shape or kind, or a class that is none.
        Under `jit`, where classes are not known, one that is none gives NaN.
    """
    answer = answer_of(logits, image, target)
    return jax.grad(lambda x: answer(x).sum())(image).astype(working_dtype(image))


def saliency(logits: Answers, image: jax.Array, target: jax.Array) -> jax.Array:
    """max over channels of |df/dx| (Simonyan et al. 2014): how much a pixel can change f.

    Args, errors: those of `gradient`.

    Returns:
      `[B, H, W]`, not negative; float32, or float64 for images that are.
    """
    return jnp.abs(gradient(logits, image, target)).max(axis=-1)


def gradient_times_input(logits: Answers, image: jax.Array, target: jax.Array) -> jax.Array:
    """x df/dx (Shrikumar et al. 2016), of which images at 0 get nothing.

    Of a network of ReLUs without biases it sums to f(x): f(a x) = a f(x) for a > 0, and so
    sum x df/dx = f (Euler). Images are normalised as the
    network takes them: their 0 is what nothing is.

    Args, returns, errors: those of `gradient`.
    """
    return image.astype(working_dtype(image)) * gradient(logits, image, target)


def smooth_grad(
    logits: Answers,
    image: jax.Array,
    target: jax.Array,
    key: jax.Array,
    *,
    samples: int,
    sigma: float | jax.Array,
    at_once: int = AT_ONCE,
) -> jax.Array:
    """The mean of df/dx at x + e, e Gaussian noise (Smilkov et al. 2017, SmoothGrad).

    It is the gradient of f smoothed by that Gaussian. Its error falls as 1 / sqrt(samples), and
    there is none where f is linear. The noise is the same for every image, so that what an
    image gets does not depend on those beside it; nor does it depend on `at_once`.

    Args:
      logits, image, target: those of `gradient`.
      key: random key.
      samples: of the noise.
      sigma: standard deviation of the noise, in units of the image; the paper takes 0.1 to 0.2
        of the range from its darkest to its lightest value. A number, or `[B]`, one for each.
      at_once: images that `logits` is given at the same time, but for B if that is more.

    Returns:
      As `gradient`.

    Raises:
      ModelError: as `gradient`, or no samples, or a negative sigma.
    """
    answer = answer_of(logits, image, target)
    if isinstance(sigma, int | float) and not sigma >= 0:
        raise ModelError(f"sigma={sigma} must be a standard deviation, at least 0")
    chunks, size = cut(samples, image.shape[0], at_once)
    dtype = working_dtype(image)
    width = jnp.broadcast_to(jnp.asarray(sigma, dtype), image.shape[:1])
    width = width.reshape(1, -1, *(1,) * (image.ndim - 1))

    def terms(indices: jax.Array) -> jax.Array:
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)
        noise = jax.vmap(lambda one: jax.random.normal(one, image.shape[1:], dtype))(keys)
        noisy = image.astype(dtype)[None] + width * noise[:, None]
        # The last chunk may be longer than what is left.
        weights = jnp.repeat((indices < samples).astype(dtype), image.shape[0])
        x = noisy.reshape(-1, *image.shape[1:]).astype(image.dtype)
        found = jax.grad(lambda x: (weights * answer(x)).sum())(x)
        return found.astype(dtype).reshape(noisy.shape).sum(axis=0)

    return add_up(terms, chunks, size, 0) / samples
