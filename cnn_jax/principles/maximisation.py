"""Images made for a unit: gradient ascent on what moves it (Erhan et al. 2009).

Ascent on pixels finds noise. Here an image is the sum of waves whose height may change the more the
longer they are, colours are those of natural images or of given ones, and the image is shaken at
each step (Olah, Mordvintsev & Schubert 2017, *Feature visualization*).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_jax import nn
from cnn_jax.errors import ModelError

_STRENGTHS = (0.01, 0.1, 0.3, 1.0)  # of the noise that is begun with


@dataclass(frozen=True, eq=False)
class Maximised:
    """Images made for units.

    Attributes:
      units: channels of the layer.
      images: float32 `[U, H, W, C]` in 0..1.
      values: float32 `[U]`, the highest value of each unit in its image.
      before: float32 `[U]`, the highest in any of the noise that was begun with.
    """

    units: tuple[int, ...]
    images: np.ndarray
    values: np.ndarray
    before: np.ndarray


def maximise_activation(
    model: nn.Module,
    variables: Mapping[str, Any],
    image_shape: Sequence[int],
    at: str,
    units: Sequence[int],
    *,
    preprocess: Callable[[jax.Array], jax.Array] = lambda x: x,
    colours: Any = None,
    steps: int = 200,
    learning_rate: float = 0.1,
    shake: int | None = None,
    seed: int = 0,
) -> Maximised:
    """Make an image for each of some units that moves it as much as can be.

    What is climbed is the highest value of the unit over the positions of its map, by Adam. The
    image is shaken for three fourths of the steps. Each begins from noise of four strengths, since
    a unit that a ReLU keeps at 0 has no slope to climb; the best of the four is kept.

    Args:
      model, variables: as in evaluation, `model.apply(variables, image, train=False)`.
      image_shape: (H, W, C) of the images.
      at: path as `nn.tap` has it, of maps `[B, h, w, C]` or of features `[B, C]`.
      units: channels, one image each, made together.
      preprocess: from images in 0..1 to what the network sees.
      colours: images in 0..1 `[N, H, W, C]` whose covariance of channels those made are given; None
        for channels that vary alike.
      steps, learning_rate: of Adam.
      shake: largest shift of the image at a step, in pixels along each axis, along a circle; None
        for an eighth of the shorter side.
      seed: of the noise that is begun with, and of the shaking.

    Raises:
      ModelError: an unknown path, another output, a unit that there is not, or a number that is
        not positive.
    """
    shape = tuple(image_shape)
    if len(shape) != 3 or min(shape) < 1 or steps < 1 or not learning_rate > 0 or not len(units):
        raise ModelError(
            f"images (H, W, C), a step, a rate and a unit at least are needed, not {list(shape)}, "
            f"{steps}, {learning_rate} and {len(units)}"
        )
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    output: Any = jax.eval_shape(
        lambda variables, x: nn.tap(model, variables, x, at=(at,), train=False)[1][at],
        variables,
        image,
    )
    if getattr(output, "ndim", 0) not in (2, 4):
        raise ModelError(f"{at!r} gives no features [B, h, w, C] or [B, C]")
    if bad := [unit for unit in units if not 0 <= unit < output.shape[-1]]:
        raise ModelError(f"{at!r} has the units 0 to {output.shape[-1] - 1}, and no {bad[0]}")
    most = min(shape[:2]) // 8 if shake is None else shake
    mix, start = _colour_mix(colours, shape[-1]), _start(len(units), shape, seed)
    climbed = functools.partial(
        _climb, model, at, preprocess, shape, steps, most, learning_rate=learning_rate
    )
    # Adam's correction of its bias raises a float to the power of an integer.
    with jax.numpy_dtype_promotion("standard"):
        found = jax.jit(climbed)(
            variables,
            jnp.tile(jnp.asarray(units), len(_STRENGTHS)),
            start,
            jnp.asarray(mix),
            jax.random.key(seed),
        )
    images, values, before = (
        np.asarray(each).reshape(len(_STRENGTHS), len(units), *each.shape[1:]) for each in found
    )
    best = values.argmax(axis=0), np.arange(len(units))
    return Maximised(
        tuple(int(unit) for unit in units), images[best], values[best], before.max(axis=0)
    )


def _climb(
    model: nn.Module,
    at: str,
    preprocess: Callable[[jax.Array], jax.Array],
    shape: tuple[int, ...],
    steps: int,
    most: int,
    variables: Any,
    units: jax.Array,
    start: jax.Array,
    mix: jax.Array,
    key: jax.Array,
    *,
    learning_rate: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The images in 0..1, what their units give, and what they gave before."""

    def highest(images: jax.Array) -> jax.Array:
        features = nn.tap(model, variables, preprocess(images), at=(at,), train=False)[1][at]
        flat = features.reshape(len(images), -1, features.shape[-1]).max(axis=1)
        return jnp.take_along_axis(flat, units[:, None], axis=1)[:, 0].astype(jnp.float32)

    def loss(waves: jax.Array, shift: jax.Array) -> jax.Array:
        images = _images(waves, shape, mix)
        return -highest(jnp.roll(images, shift, axis=(1, 2))).sum()

    optimizer = optax.adam(learning_rate)

    def step(state: Any, drawn: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        waves, moments = state
        key, shaken = drawn
        shift = jax.random.randint(key, (2,), -most, most + 1) * shaken
        gradient = jax.grad(loss)(waves, shift)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(waves, updates), moments), None

    shaken = (jnp.arange(steps) < 3 * steps // 4).astype(jnp.int32)
    drawn = jax.random.split(key, steps), shaken
    (waves, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), drawn)
    images = _images(waves, shape, mix)
    return images, highest(images), highest(_images(start, shape, mix))


def _start(count: int, shape: tuple[int, ...], seed: int) -> jax.Array:
    """Parts of the waves `[S U, 2, H, W // 2 + 1, C]`, one strength after the other."""
    height, width, channels = shape
    rng = np.random.default_rng(seed)
    drawn = [
        rng.normal(0, strength, (count, 2, height, width // 2 + 1, channels))
        for strength in _STRENGTHS
    ]
    return jnp.asarray(np.concatenate(drawn), jnp.float32)


def _images(waves: jax.Array, shape: tuple[int, ...], mix: jax.Array) -> jax.Array:
    """Images `[U, H, W, C]` in 0..1 of waves whose weight falls with their frequency."""
    height, width, _ = shape
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.sqrt(rows**2 + columns**2)
    scale = np.sqrt(height * width) / np.maximum(frequency, 1 / max(height, width))
    weighted = waves * scale[None, None, ..., None].astype(np.float32)
    spectrum = jax.lax.complex(weighted[:, 0], weighted[:, 1])
    pixels = jnp.fft.irfft2(spectrum, s=(height, width), axes=(1, 2)) / 4
    return jax.nn.sigmoid(pixels @ mix.T)


def _colour_mix(colours: Any, channels: int) -> np.ndarray:
    """float32 `[C, C]`: how channels vary together, the square root of their covariance."""
    if colours is None:
        return np.eye(channels, dtype=np.float32)
    pixels = np.asarray(colours, np.float64)
    if pixels.shape[-1:] != (channels,) or pixels.size < 2 * channels:
        raise ModelError(f"colours are of images [N, H, W, {channels}], not {list(pixels.shape)}")
    covariance = np.atleast_2d(np.cov(pixels.reshape(-1, channels).T))
    sizes, directions = np.linalg.eigh(covariance)
    root = directions * np.sqrt(np.maximum(sizes, 1e-8))
    # The brightest direction as strong as without colours, whatever the contrast of the images.
    mix: np.ndarray = (root / np.sqrt(max(sizes.max(), 1e-8)) * np.sqrt(channels)).astype(
        np.float32
    )
    return mix
