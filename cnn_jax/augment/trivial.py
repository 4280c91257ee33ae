"""TrivialAugment (Müller and Hutter, 2021): one operation of random strength for each image.

Operations and ranges are those of the paper's wide space, with the algorithms of Pillow.
A batch does not pay for 14 of them: those that move pixels are one affine map, those that
blend are one blend, and the rest are cheap for each pixel.
"""

from __future__ import annotations

import enum
import math

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.augment import affine
from cnn_jax.augment.batch import Batch, beside
from cnn_jax.augment.colour import blend, grey, mean_grey


class Operation(enum.IntEnum):
    """The operations, and their range from strength 0 to 1."""

    IDENTITY = 0
    SHEAR_HORIZONTAL = 1  # 0 to 0.99 pixels a row, either way
    SHEAR_VERTICAL = 2
    TRANSLATE_HORIZONTAL = 3  # 0 to 32 pixels (to the image's side, if smaller), either way
    TRANSLATE_VERTICAL = 4
    ROTATE = 5  # 0 to 135 degrees, either way
    BRIGHTNESS = 6  # factor 1 to 0.01 or 1.99, as for the next three
    SATURATION = 7  # nothing for images that are not RGB
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10  # 8 to 2 bits
    SOLARIZE = 11  # values from 1 to from 0 on are inverted
    AUTOCONTRAST = 12
    EQUALIZE = 13


# Strengths are 0, 1/30, ..., 1.
_LEVELS = 31
_SLOPE = 0.99
_SHIFT = 32
_DEGREES = 135.0


def draw(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Operation int32 `[B]` and strength float32 `[B]`, negative for one example in two."""

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        operation, level, sign = jax.random.split(key, 3)
        strength = jax.random.randint(level, (), 0, _LEVELS).astype(jnp.float32) / (_LEVELS - 1)
        return (
            jax.random.randint(operation, (), 0, len(Operation)),
            jnp.where(jax.random.bernoulli(sign), -strength, strength),
        )

    return jax.vmap(one)(keys)


def geometry(operation: jax.Array, strength: jax.Array, height: int, width: int) -> affine.Map:
    """The map of the examples whose operation moves pixels; for the others they stay."""

    def amount(of: Operation, largest: float) -> jax.Array:
        return jnp.where(operation == of, strength * largest, jnp.zeros_like(strength))

    turned = affine.rotation(amount(Operation.ROTATE, math.radians(_DEGREES))).matrix
    sheared = affine.shearing(
        amount(Operation.SHEAR_HORIZONTAL, _SLOPE), amount(Operation.SHEAR_VERTICAL, _SLOPE)
    ).matrix
    matrix = jnp.where(beside(operation == Operation.ROTATE, turned), turned, sheared)
    shift = jnp.stack(
        [
            amount(Operation.TRANSLATE_VERTICAL, min(_SHIFT, height)),
            amount(Operation.TRANSLATE_HORIZONTAL, min(_SHIFT, width)),
        ],
        axis=-1,
    )
    return affine.Map(matrix, shift)


def colour(operation: jax.Array, strength: jax.Array, batch: Batch) -> Batch:
    """The images `[B, H, W, C]` after their operation, if it changes values."""
    image = batch["image"]
    changed = _blended(operation, strength, image)
    for of, values in (
        (Operation.POSTERIZE, posterize(image, 8 - jnp.floor(6 * jnp.abs(strength) + 1e-3))),
        (Operation.SOLARIZE, solarize(image, 1 - jnp.abs(strength))),
        (Operation.AUTOCONTRAST, autocontrast(image)),
        (Operation.EQUALIZE, equalize(image)),
    ):
        changed = jnp.where(beside(operation == of, image), values, changed)
    return {**batch, "image": changed}


def _blended(operation: jax.Array, strength: jax.Array, image: jax.Array) -> jax.Array:
    def chosen(of: Operation) -> jax.Array:
        return beside(operation == of, image)

    degenerate = jnp.where(chosen(Operation.BRIGHTNESS), jnp.zeros_like(image), image)
    if image.shape[-1] == 3:
        degenerate = jnp.where(chosen(Operation.SATURATION), grey(image), degenerate)
    degenerate = jnp.where(chosen(Operation.CONTRAST), mean_grey(image), degenerate)
    degenerate = jnp.where(chosen(Operation.SHARPNESS), smooth(image), degenerate)
    active = (operation >= Operation.BRIGHTNESS) & (operation <= Operation.SHARPNESS)
    factor = jnp.where(active, 1 + _SLOPE * strength, jnp.ones_like(strength))
    return blend(image, degenerate, factor)


def smooth(image: jax.Array) -> jax.Array:
    """Weights 5 for a pixel and 1 for its eight neighbours; the border stays as it is."""
    height, width = image.shape[1:3]
    padded = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * image
    row, column = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    inner = (row > 0) & (row < height - 1) & (column > 0) & (column < width - 1)
    return jnp.where(inner[None, :, :, None], total / 13, image)


def posterize(image: jax.Array, bits: jax.Array) -> jax.Array:
    """Keep the upper bits, float32 `[B]`, of each value as a byte."""
    step = beside(2 ** (8 - bits), image)
    return jnp.floor(_bytes(image) / step) * step / 255


def solarize(image: jax.Array, threshold: jax.Array) -> jax.Array:
    """Invert the values from the threshold `[B]` on."""
    return jnp.where(image >= beside(threshold, image), 1 - image, image)


def autocontrast(image: jax.Array) -> jax.Array:
    """Stretch each channel of each image to 0..1; a constant one stays."""
    low = image.min(axis=(1, 2), keepdims=True)
    width = image.max(axis=(1, 2), keepdims=True) - low
    return jnp.where(width > 0, (image - low) / jnp.where(width > 0, width, 1), image)


def equalize(image: jax.Array) -> jax.Array:
    """Make the 256 values of each channel equally frequent, as `ImageOps.equalize` does.

    A channel of fewer than 255 pixels, not counting those of its largest value, stays.
    """
    size, height, width, channels = image.shape
    # The tables of the channels lie one after the other.
    first = 256 * jnp.arange(channels)[None, None, None, :]
    entry = (_bytes(image).astype(jnp.int32) + first).reshape(size, -1)

    def frequencies(entry: jax.Array) -> jax.Array:
        return jnp.zeros(channels * 256, jnp.int32).at[entry].add(1, mode="promise_in_bounds")

    count = jax.vmap(frequencies)(entry).reshape(size, channels, 256)
    brightest = jnp.where(count > 0, jnp.arange(256)[None, None], 0).max(axis=-1, keepdims=True)
    step = (height * width - jnp.take_along_axis(count, brightest, axis=-1)) // 255
    lower = jnp.cumsum(count, axis=-1) - count
    equal = jnp.clip((step // 2 + lower) // jnp.maximum(step, 1), 0, 255)
    table = jnp.where(step > 0, equal, jnp.arange(256)[None, None]).astype(jnp.float32) / 255
    # Without the barrier XLA's CPU backend takes several times as long.
    table, entry = lax.optimization_barrier((table.reshape(size, -1), entry))
    read = jax.vmap(lambda t, at: t.at[at].get(mode="promise_in_bounds"))
    return read(table, entry).reshape(image.shape)


def _bytes(image: jax.Array) -> jax.Array:
    """The values as whole numbers 0..255."""
    return jnp.round(image * 255)
