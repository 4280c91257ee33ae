"""Defects made by computer, for a network that learns to find what was never photographed.

As in DRAEM (Zavrtanik et al. 2021), whose defects are thresholded noise filled with texture, and
NSA (Schlüter et al. 2022), which takes the texture from another normal image.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.augment.batch import Batch, following

SMALLEST = 8  # pixels of a side

# Sides of the grids of noise that blobs are cut from: few and large, or many and small.
_GRIDS = (4, 7, 11)
_SHARE = (0.03, 0.3)  # of the area that a blob covers
# In parts of the shorter side.
_PIECE, _LENGTH, _WIDTH = (0.02, 0.3), (0.1, 0.6), (0.008, 0.03)
_BITE, _DEPTH = (0.04, 0.3), (0.02, 0.15)
_BAND = (0.03, 0.5)
# How much darker or lighter, in parts of the way from the image's mean to black or to white; how
# much of other texture is mixed in; and how much flatter or rougher it is than it was.
_SHADE, _MIXED, _ROUGHER = (-0.65, 0.15), (0.3, 1.0), (0.2, 2.0)
# A change below this is none: of grey values in 0..1, about 8 of 255.
_SEEN = 0.03


def damaged(key: jax.Array, image: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An image with a defect, and where that is.

    Its outline is, equally likely, a blob of smooth noise, one to three pieces (rectangles or
    ellipses of any angle), a thin bent line, a bite out of the border, or a band along all of one
    border, as where grinding or coating ends. It is filled with the texture of the other image,
    moved, turned, and made flatter or rougher, or made darker or lighter, or both.

    Args:
      key: of this image.
      image: float32 `[H, W, C]` in 0..1.
      other: the same, an image to take texture from; the image itself will do.

    Returns:
      float32 `[H, W, C]` in 0..1; and bool `[H, W]`, where it differs by more than 0.03 in a
      channel, so that a defect that cannot be seen is not to be found.
    """
    height, width = image.shape[:2]
    of_kind, of_shape, of_filling = (jax.random.fold_in(key, n) for n in range(3))
    shapes = [shape(of_shape, height, width) for shape in (blob, pieces, line, bite, band)]
    kind = jax.random.randint(of_kind, (), 0, len(shapes))
    inside = jnp.stack(shapes)[kind]
    # Edges are a pixel wide: a hard one would tell a made defect from a real one.
    soft = mean_of_neighbours(inside.astype(jnp.float32))[..., jnp.newaxis]
    changed = jnp.clip(image * (1 - soft) + _filling(of_filling, image, other) * soft, 0, 1)
    return changed, (jnp.abs(changed - image) > _SEEN).any(axis=-1)


def some_damaged(
    keys: jax.Array, images: jax.Array, valid: jax.Array | None, probability: float
) -> tuple[jax.Array, jax.Array]:
    """A batch some of whose images have a defect, and where it is; see `damaged`.

    The texture of a defect is that of the next valid image, of the last that of the first; of a
    single image its own.

    Args:
      keys: of each image, `[B]`.
      images: float32 `[B, H, W, C]` in 0..1.
      valid: bool `[B]`, false for rows of padding, which come last; None for none of them.
      probability: that an image gets a defect.

    Returns:
      float32 `[B, H, W, C]`, and bool `[B, H, W]`.
    """
    others = images[following(len(images), valid)]

    def made(own: jax.Array, one: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
        of_defect, of_none = jax.random.split(own)
        changed, where = damaged(of_defect, one, other)
        none = jax.random.bernoulli(of_none, 1 - probability)
        return jnp.where(none, one, changed), where & ~none

    return jax.vmap(made)(keys, images, others)


def add_defects(keys: jax.Array, batch: Batch, probability: float) -> Batch:
    """A batch with defects in some images, which its `mask` then marks as region 1, too."""
    images, where = some_damaged(keys, batch["image"], batch.get("valid"), probability)
    mask = batch["mask"]
    return {**batch, "image": images, "mask": jnp.where(where & (mask == 0), 1, mask)}


def blob(key: jax.Array, height: int, width: int) -> jax.Array:
    """Bool `[H, W]`: where smooth noise is highest, on 3 to 30 % of the area."""
    of_noise, of_grid, of_share = (jax.random.fold_in(key, n) for n in range(3))
    grids = [
        jax.image.resize(
            jax.random.normal(jax.random.fold_in(of_noise, side), (side, side), jnp.float32),
            (height, width),
            "cubic",
        )
        for side in _GRIDS
    ]
    chosen = jax.random.randint(of_grid, (), 0, len(grids))
    noise = jnp.stack(grids)[chosen]
    share = jax.random.uniform(of_share, (), jnp.float32, *_SHARE)
    some = jnp.sort(noise.reshape(-1)[:: max(1, height * width // 1024)])
    place = ((1 - share) * (len(some) - 1)).astype(jnp.int32)
    return noise > some[place]


def pieces(key: jax.Array, height: int, width: int) -> jax.Array:
    """Bool `[H, W]`: one to three rectangles or ellipses at any angle."""
    count = jax.random.randint(jax.random.fold_in(key, 3), (), 1, 4)

    def one(number: int) -> jax.Array:
        of_place, of_size, of_kind = jax.random.split(jax.random.fold_in(key, number), 3)
        along, across = _turned(of_place, height, width)
        sizes = jax.random.uniform(of_size, (2,), jnp.float32, *map(math.log, _PIECE))
        a, b = jnp.exp(sizes) * min(height, width) / 2
        ellipse = (along / a) ** 2 + (across / b) ** 2 < 1
        rectangle = (jnp.abs(along) < a) & (jnp.abs(across) < b)
        return jnp.where(jax.random.bernoulli(of_kind), ellipse, rectangle) & (number < count)

    return one(0) | one(1) | one(2)


def line(key: jax.Array, height: int, width: int) -> jax.Array:
    """Bool `[H, W]`: a thin line, bent like a bow; one in two lies along an axis."""
    of_place, of_size, of_bend = jax.random.split(key, 3)
    along, across = _turned(of_place, height, width, axes=0.5)
    shorter = min(height, width)
    size = jax.random.uniform(of_size, (2,), jnp.float32)
    half = shorter * (_LENGTH[0] + (_LENGTH[1] - _LENGTH[0]) * size[0]) / 2
    thick = jnp.maximum(shorter * (_WIDTH[0] + (_WIDTH[1] - _WIDTH[0]) * size[1]), 1.0)
    bend = jax.random.uniform(of_bend, (), jnp.float32, -0.3, 0.3)
    return (jnp.abs(across - bend * along**2 / half) < thick / 2) & (jnp.abs(along) < half)


def bite(key: jax.Array, height: int, width: int) -> jax.Array:
    """Bool `[H, W]`: a piece missing from one of the four borders, with an uneven edge."""
    of_border, of_size = jax.random.split(key)
    depth, beside, uneven = _border(of_border, height, width)
    size = jax.random.uniform(of_size, (3,), jnp.float32)
    middle, half = size[0], _BITE[0] + (_BITE[1] - _BITE[0]) * size[1]
    deepest = min(height, width) * (_DEPTH[0] + (_DEPTH[1] - _DEPTH[0]) * size[2])
    bow = jnp.maximum(1 - ((beside - middle) / half) ** 2, 0)
    return depth < deepest * bow * (1 + 0.4 * uneven)


def band(key: jax.Array, height: int, width: int) -> jax.Array:
    """Bool `[H, W]`: all along one of the four borders, up to half the image, unevenly deep."""
    of_border, of_size = jax.random.split(key)
    depth, _, uneven = _border(of_border, height, width)
    shallow, deep = map(math.log, _BAND)
    size = jnp.exp(jax.random.uniform(of_size, (), jnp.float32, shallow, deep))
    return depth < min(height, width) * size * (1 + 0.1 * uneven)


def _border(key: jax.Array, height: int, width: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of a random border: pixels from it, the place along it in 0..1, and noise along it.

    All float32 `[H, W]`, the noise with standard deviation 1 at eight places, linear between them.
    """
    of_side, of_edge = jax.random.split(key)
    rows, columns = (lax.broadcasted_iota(jnp.float32, (height, width), axis) for axis in range(2))
    side = jax.random.randint(of_side, (), 0, 4)
    depth = jnp.stack([rows, height - 1 - rows, columns, width - 1 - columns])[side]
    beside = jnp.where(side < 2, columns / width, rows / height)
    length = max(height, width)
    edge = jax.image.resize(jax.random.normal(of_edge, (8,), jnp.float32), (length,), "linear")
    return depth, beside, edge[jnp.clip((beside * length).astype(jnp.int32), 0, length - 1)]


def _turned(
    key: jax.Array, height: int, width: int, axes: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Coordinates of all pixels, `[H, W]` each, about a random place and turned by any angle.

    With probability `axes` by a whole number of quarter turns.
    """
    of_place, of_angle, of_kind = jax.random.split(key, 3)
    place = jax.random.uniform(of_place, (2,), jnp.float32) * jnp.array(
        [height, width], jnp.float32
    )
    share = jax.random.uniform(of_angle, (), jnp.float32)
    share = jnp.where(jax.random.bernoulli(of_kind, axes), jnp.round(2 * share) / 2, share)
    angle = math.pi * share
    down, right = (
        lax.broadcasted_iota(jnp.float32, (height, width), axis) - place[axis] for axis in range(2)
    )
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return cosine * right + sine * down, cosine * down - sine * right


def _filling(key: jax.Array, image: jax.Array, other: jax.Array) -> jax.Array:
    """What a defect is filled with, `[H, W, C]`: other texture, another shade, or both."""
    of_kind, of_shift, of_turn, of_shade, of_share, of_gain = jax.random.split(key, 6)
    height, width = image.shape[:2]
    shift = jax.random.randint(of_shift, (2,), 0, jnp.array([height, width]))
    moved = jnp.roll(other, shift, (0, 1))
    turn = jax.random.bernoulli(of_turn, 0.5, (3,))
    moved = jnp.where(turn[0], moved[::-1], moved)
    moved = jnp.where(turn[1], moved[:, ::-1], moved)
    if height == width:
        moved = jnp.where(turn[2], moved.swapaxes(0, 1), moved)
    shade = jax.random.uniform(of_shade, (), jnp.float32, *_SHADE)
    shade *= jnp.where(shade < 0, image.mean(), 1 - image.mean())
    share = jax.random.uniform(of_share, (), jnp.float32, *_MIXED)
    gain = jax.random.uniform(of_gain, (), jnp.float32, *_ROUGHER)
    mean = other.mean(axis=(0, 1), keepdims=True)
    rougher = mean + gain * (moved - mean)
    texture = (1 - share) * image + share * rougher + shade / 2
    return jnp.where(jax.random.bernoulli(of_kind), texture, image + shade)


def mean_of_neighbours(values: jax.Array) -> jax.Array:
    """Of the nine pixels around each of `[H, W]`; beyond the border is what lies at it."""
    around = jnp.pad(values, 1, mode="edge")
    # A window rather than nine slices, for each of which XLA would draw the outline anew.
    total: jax.Array = lax.reduce_window(around, 0.0, lax.add, (3, 3), (1, 1), "VALID")
    return total / 9
