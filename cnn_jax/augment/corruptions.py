"""The fifteen common corruptions of images, each in five severities (Hendrycks & Dietterich 2019).

Networks are *tested* on them, not trained: they measure what noise, blur, weather and compression
cost. Their parameters are the published ones, of CIFAR-10-C for images of up to 64 pixels and of
ImageNet-C for larger ones. Frost is the exception: the published one pastes photographs of frost;
here it is a made texture of the same weight, so that its figures compare only with our own.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from cnn_jax.augment.severities import LARGE, SMALL
from cnn_jax.errors import DataError

Corruption = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic",
    "pixelate",
    "jpeg",
]
CORRUPTIONS: tuple[str, ...] = get_args(Corruption)
SEVERITIES = (1, 2, 3, 4, 5)
LARGEST_SMALL = 64  # pixels along the shorter side
_AT_ONCE = 2**23  # values of images
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Images float32 `[N, H, W, C]` in 0..1, and a generator for each, which is its own."""

    images: np.ndarray
    generators: tuple[np.random.Generator, ...]

    def drawn(self, draw: Callable[[np.random.Generator], Any]) -> np.ndarray:
        """What each image's generator gives, stacked."""
        return np.stack([draw(generator) for generator in self.generators])


def corrupt(
    images: np.ndarray, corruption: Corruption | str, severity: int, *, seed: int = 0
) -> np.ndarray:
    """Images of which each is corrupted.

    Args:
      images: uint8 `[N, H, W, C]` of one channel or three, of 8 pixels or more.
      corruption: one of `CORRUPTIONS`.
      severity: 1 to 5.
      seed: what is drawn for an image hangs on this, on the corruption and on the image's place
        alone; all severities of an image share it.

    Returns:
      uint8 `[N, H, W, C]`, the numbers cut off below as in the published sets.

    Raises:
      DataError: no such corruption or severity, or no such images.
    """
    if corruption not in CORRUPTIONS:
        raise DataError(f"no corruption {corruption!r}: they are {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise DataError(f"severities are 1 to 5, not {severity}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise DataError(
            f"corruptions are of uint8 images [N, H, W, 1 or 3], not {images.dtype} "
            f"{list(images.shape)}"
        )
    side = min(images.shape[1:3])
    if side < 8:
        raise DataError(f"images of {images.shape[1]}×{images.shape[2]} pixels: 8 or more needed")
    table = SMALL if side <= LARGEST_SMALL else LARGE
    how, values = _HOW[corruption], table[corruption][severity - 1]
    place = CORRUPTIONS.index(corruption)
    out = np.empty_like(images)
    count = max(1, min(256, _AT_ONCE // math.prod(images.shape[1:])))
    for start in range(0, len(images), count):
        part = images[start : start + count]
        rows = range(start, start + len(part))
        generators = tuple(np.random.default_rng([seed, place, row]) for row in rows)
        batch = _Batch(part.astype(np.float32) / np.float32(255), generators)
        out[start : start + len(part)] = np.clip(how(batch, values), 0, 1) * 255
    return out


def _gaussian_noise(batch: _Batch, deviation: float) -> np.ndarray:
    shape = batch.images.shape[1:]
    return batch.images + deviation * batch.drawn(lambda g: g.standard_normal(shape))


def _shot_noise(batch: _Batch, photons: float) -> np.ndarray:
    images = iter(batch.images)
    return batch.drawn(lambda g: g.poisson(next(images) * photons) / photons)


def _impulse_noise(batch: _Batch, share: float) -> np.ndarray:
    shape = batch.images.shape[1:]
    drawn = batch.drawn(lambda g: g.random((2, *shape)))
    salt = (drawn[:, 1] < 0.5).astype(np.float32)
    return np.where(drawn[:, 0] < share, salt, batch.images)


def disk(radius: float, smoothing: float) -> np.ndarray:
    """float64 `[17, 17]` or larger: a disk whose edge is smoothed by a small Gaussian.

    Its sum is 1, but for radii that reach the border, whose smoothing there adds up to some 1 %: as
    in the published sets.
    """
    from scipy.ndimage import correlate1d  # type: ignore[attr-defined]

    half = max(8, math.ceil(radius))
    place = np.arange(-half, half + 1)
    inside = (place[:, np.newaxis] ** 2 + place**2 <= radius**2).astype(np.float64)
    taps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    kernel = np.exp(-(taps**2) / (2 * smoothing**2))
    kernel /= kernel.sum()
    inside /= inside.sum()
    for axis in (0, 1):
        inside = correlate1d(inside, kernel, axis=axis, mode="mirror")
    return inside


def _defocus_blur(batch: _Batch, values: tuple[float, float]) -> np.ndarray:
    from scipy.ndimage import correlate  # type: ignore[attr-defined]

    kernel = disk(*values)[np.newaxis, :, :, np.newaxis].astype(np.float32)
    found: np.ndarray = correlate(batch.images, kernel, mode="mirror")
    return found


def _smoothed(images: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian blur of `[N, H, W, C]` along H and W, up to four deviations."""
    from scipy.ndimage import gaussian_filter  # type: ignore[attr-defined]

    found: np.ndarray = gaussian_filter(images, (0, deviation, deviation, 0), mode="nearest")
    return found


def _glass_blur(batch: _Batch, values: tuple[float, int, int]) -> np.ndarray:
    """Pixels are taken from near places, one after the other, each from what is there by then.

    The paper speaks of swapping; the published program copies (its second assignment reads what
    the first has written), and so do its images and this.
    """
    deviation, far, times = values
    x = np.floor(_smoothed(batch.images, deviation) * 255) / np.float32(255)
    n, height, width, _ = x.shape
    down, across = range(height - far, far, -1), range(width - far, far, -1)
    steps = batch.drawn(lambda g: g.integers(-far, far, (times, len(down), len(across), 2)))
    every = np.arange(n)
    for time in range(times):
        for i, h in enumerate(down):
            for j, w in enumerate(across):
                dx, dy = steps[:, time, i, j].T
                x[:, h, w] = x[every, h + dy, w + dx]
    return _smoothed(x, deviation)


def blown(images: np.ndarray, length: float, fading: float, angles: np.ndarray) -> np.ndarray:
    """Blur along a line on one side of each pixel, whose weights fade as a Gaussian.

    Args:
      images: float `[N, H, W, C]`.
      length: of the line, in pixels.
      fading: standard deviation of the weights, in pixels.
      angles: float `[N]`, degrees from the rows, clockwise.
    """
    count = 2 * math.ceil(length) + 1
    step = np.arange(count)
    weights = np.exp(-(step**2) / (2 * fading**2))
    weights /= weights.sum()
    n, height, width, _ = images.shape
    turn = np.deg2rad(angles)[:, np.newaxis]
    down = np.ceil(step * np.sin(turn) - 0.5).astype(int)
    right = np.ceil(step * np.cos(turn) - 0.5).astype(int)
    every, rows, columns = np.arange(n)[:, None, None], np.arange(height), np.arange(width)
    out = np.zeros_like(images)
    for k, weight in enumerate(weights.astype(images.dtype)):
        y = np.clip(rows + down[:, k, None], 0, height - 1)[:, :, None]
        x = np.clip(columns + right[:, k, None], 0, width - 1)[:, None, :]
        out += weight * images[every, y, x]
    return out


def _motion_blur(batch: _Batch, values: tuple[float, float]) -> np.ndarray:
    return blown(batch.images, *values, batch.drawn(lambda g: g.uniform(-45, 45)))


def enlarged(images: np.ndarray, factor: float) -> np.ndarray:
    """The middle of `[N, H, W, C]`, larger by a factor: linear, and cut to the size it had."""
    from scipy.ndimage import zoom  # type: ignore[attr-defined]

    size = images.shape[1:3]
    inner = [math.ceil(side / factor) for side in size]
    top, left = ((side - part) // 2 for side, part in zip(size, inner, strict=True))
    x = zoom(
        images[:, top : top + inner[0], left : left + inner[1]], (1, factor, factor, 1), order=1
    )
    top, left = ((x.shape[axis + 1] - size[axis]) // 2 for axis in (0, 1))
    found: np.ndarray = x[:, top : top + size[0], left : left + size[1]]
    return found


def _zoom_blur(batch: _Batch, values: tuple[float, float]) -> np.ndarray:
    factors = np.arange(1, *values)
    total = sum((enlarged(batch.images, factor) for factor in factors), batch.images.copy())
    found: np.ndarray = total / (len(factors) + 1)
    return found


def _snow(batch: _Batch, values: tuple[float, ...]) -> np.ndarray:
    mean, deviation, size, least, length, fading, keeps = values
    x = batch.images
    shape = x.shape[1:3]
    flakes = batch.drawn(lambda g: mean + deviation * g.standard_normal((*shape, 1)))
    flakes = enlarged(flakes.astype(np.float32), size)
    flakes = np.clip(np.where(flakes < least, 0, flakes), 0, 1)
    flakes = blown(flakes, length, fading, batch.drawn(lambda g: g.uniform(-135, -45)))
    grey = (x @ _GREY)[..., np.newaxis] if x.shape[-1] == 3 else x
    x = keeps * x + (1 - keeps) * np.maximum(x, grey * 1.5 + 0.5)
    return x + flakes + np.rot90(flakes, k=2, axes=(1, 2))


def _frost(batch: _Batch, values: tuple[float, float]) -> np.ndarray:
    """Ice in ridges: where two rough surfaces cross."""
    height, width = batch.images.shape[1:3]
    surfaces = batch.drawn(
        lambda g: np.stack([plasma(g, max(height, width), 1.6)[:height, :width] for _ in range(2)])
    )
    ridges = 1 - np.abs(surfaces[:, 0] - surfaces[:, 1])
    ice = (ridges**4)[..., np.newaxis]
    return values[0] * batch.images + values[1] * ice


def plasma(generator: np.random.Generator, side: int, decay: float) -> np.ndarray:
    """float64 `[S, S]` in 0..1, S the power of 2 from `side` on: a fractal of midpoints.

    Diamond-square: the middle of four points (then of their diamonds) is their mean and a random
    part, which falls by `decay` with each halving; borders meet around.
    """
    size = 1 << (side - 1).bit_length()
    field = np.zeros((size, size))
    step, height = size, 100.0
    while step >= 2:
        half = step // 2

        def middle(total: np.ndarray, height: float = height) -> np.ndarray:
            return total / 4 + height * generator.uniform(-height, height, total.shape)

        corners = field[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        field[half::step, half::step] = middle(pairs + np.roll(pairs, -1, axis=1))
        centres = field[half::step, half::step]
        around = centres + np.roll(centres, 1, axis=0)
        field[::step, half::step] = middle(around + corners + np.roll(corners, -1, axis=1))
        around = centres + np.roll(centres, 1, axis=1)
        field[half::step, ::step] = middle(around + corners + np.roll(corners, -1, axis=0))
        step, height = half, height / decay
    field -= field.min()
    return field / field.max()


def _fog(batch: _Batch, values: tuple[float, float]) -> np.ndarray:
    thick, decay = values
    x = batch.images
    height, width = x.shape[1:3]
    clouds = batch.drawn(lambda g: plasma(g, max(height, width), decay)[:height, :width])
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    return (x + thick * clouds[..., np.newaxis]) * brightest / (brightest + thick)


def _brightness(batch: _Batch, more: float) -> np.ndarray:
    """The value of hue, saturation and value grows; the other two stay."""
    x = batch.images
    value = x.max(axis=-1, keepdims=True)
    new = np.clip(value + more, 0, 1)
    return np.where(value > 0, x * (new / np.maximum(value, 1e-9)), new)


def _contrast(batch: _Batch, factor: float) -> np.ndarray:
    means = batch.images.mean(axis=(1, 2), keepdims=True)
    return (batch.images - means) * factor + means


def _elastic(batch: _Batch, values: tuple[float, float, float]) -> np.ndarray:
    """Three points are moved, and with them the picture, affinely; then each pixel by itself."""
    from scipy.ndimage import gaussian_filter, map_coordinates  # type: ignore[attr-defined]

    n, height, width, channels = batch.images.shape
    side = min(height, width)
    far, smooth, corner = (side * value for value in values)
    middle, reach = np.array([width // 2, height // 2], np.float64), side // 3
    before = middle + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + batch.drawn(lambda g: g.uniform(-corner, corner, (3, 2)))
    noise = batch.drawn(lambda g: g.uniform(-1, 1, (2, height, width)))
    y, x = np.mgrid[:height, :width].astype(np.float64)
    out = np.empty_like(batch.images)
    for row in range(n):
        ones = np.ones((3, 1))
        # From where in the picture each pixel of the moved one comes.
        back = np.linalg.solve(np.hstack([after[row], ones]), before)
        affine = np.stack([x, y, np.ones_like(x)], axis=-1) @ back
        dx, dy = (
            far * gaussian_filter(each, smooth, mode="reflect", truncate=3) for each in noise[row]
        )
        for channel in range(channels):
            moved = map_coordinates(
                batch.images[row, :, :, channel],
                affine.transpose(2, 0, 1)[::-1],
                order=1,
                mode="mirror",
            )
            out[row, :, :, channel] = map_coordinates(
                moved, (y + dy, x + dx), order=1, mode="reflect"
            )
    return out


def _pixelate(batch: _Batch, share: float) -> np.ndarray:
    height, width = batch.images.shape[1:3]
    small = (int(width * share), int(height * share))

    def coarse(picture: Image.Image) -> Image.Image:
        box = Image.Resampling.BOX
        return picture.resize(small, box).resize((width, height), box)

    return _by_pillow(batch, coarse)


def _jpeg(batch: _Batch, quality: int) -> np.ndarray:
    def compressed(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _by_pillow(batch, compressed)


def _by_pillow(batch: _Batch, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """What is done to each as a picture of Pillow, whose values lie in the middle of a step.

    So they stay what they are when they are cut off to whole ones.
    """
    pixels = np.round(batch.images * 255).astype(np.uint8)
    grey = pixels.shape[-1] == 1
    pictures = (Image.fromarray(each[..., 0] if grey else each) for each in pixels)
    out = np.stack([np.asarray(change(picture)) for picture in pictures]).reshape(pixels.shape)
    return (out + 0.5).astype(np.float32) / 255


_HOW: Mapping[str, Callable[[_Batch, Any], np.ndarray]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic": _elastic,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}
