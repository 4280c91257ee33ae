"""Effective receptive fields: how much each pixel changes a feature (Luo et al. 2016).

*Understanding the effective receptive field in deep convolutional neural networks*: of the pixels
that could change a feature those in the middle do so most, in the shape of a Gaussian whose width
grows with the square root of the depth, while the theoretical field grows with the depth itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import curve_fit

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.principles.receptive_field import receptive_fields

_EDGE = 1 - 0.9545  # of the largest: two standard deviations, as in the paper


@dataclass(frozen=True, eq=False)
class EffectiveField:
    """The influence of each pixel on one position of a layer, and the Gaussian that fits it.

    Attributes:
      influence: float64 `[H, W]`, root of the mean over images, and of the sums over channels in
        and out, of the squared gradient; the largest is 1.
      centre, sigma: of the Gaussian, in pixels, along height and width.
      r2: the share of the variance of `influence` that the Gaussian explains.
      area: pixels with an influence of at least 4.55 % of the largest.
      share: `area` over the pixels of the theoretical field, as far as it lies in the image; NaN
        if the layer has none.
    """

    influence: np.ndarray
    centre: tuple[float, float]
    sigma: tuple[float, float]
    r2: float
    area: int
    share: float


def effective_field(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Any,
    at: str,
    *,
    position: tuple[int, int] | None = None,
    draws: int = 4,
    seed: int = 0,
) -> EffectiveField:
    """The effective field of one position of a layer, over images.

    The sum over the channels of the layer is taken by gradients of random signs of them, whose
    square has that sum as its mean.

    Args:
      model, variables: as in evaluation, `model.apply(variables, image, train=False)`.
      images: float `[B, H, W, C]`, normalised; noise of the same kind does, too.
      at: path of a submodule that gives maps, as `nn.tap` has it.
      position: row and column of the map; None for the middle.
      draws: of signs, for each image.
      seed: of the signs.

    Raises:
      ModelError: no such path or position, an output that is no map, no draws, no pixel that has
        an influence, or no Gaussian that fits.
    """
    if draws < 1:
        raise ModelError(f"one draw of signs at least is needed, not {draws}")
    images = jnp.asarray(images)
    paths = nn.tap_paths(model, variables, images, train=False)
    shape = getattr(paths.get(at), "shape", None)
    if at not in paths:
        nn.tap(model, variables, images, at=(at,), train=False)  # which names what is near
    if shape is None or len(shape) != 4:
        raise ModelError(f"{at!r} gives no maps [B, h, w, C]: choose a convolutional layer")
    row, column = position or (shape[1] // 2, shape[2] // 2)
    if not (0 <= row < shape[1] and 0 <= column < shape[2]):
        raise ModelError(f"{at!r} is {list(shape)}: it has no position {(row, column)}")

    # Variables and images are arguments, or they would be constants that XLA computes with.
    def chosen(image: jax.Array, variables: Any, key: jax.Array) -> jax.Array:
        features = nn.tap(model, variables, image, at=(at,), train=False)[1][at][:, row, column]
        signs = jax.random.rademacher(key, features.shape, features.dtype)
        return (signs * features).sum()

    @jax.jit
    def squares(image: jax.Array, variables: Any, key: jax.Array) -> jax.Array:
        gradient = jax.grad(chosen)(image, variables, key)
        return (gradient.astype(jnp.float32) ** 2).sum(axis=(0, 3))

    keys = jax.random.split(jax.random.key(seed), draws)
    drawn = [np.asarray(squares(images, variables, key), np.float64) for key in keys]
    energy = np.sum(drawn, axis=0)
    if not energy.max() > 0:
        raise ModelError(f"no pixel changes {at!r} at {(row, column)}: are its units dead?")
    influence = np.sqrt(energy / energy.max())
    centre, sigma, r2 = _gaussian(influence)
    area = int((influence >= _EDGE).sum())
    field = receptive_fields(model, variables, images.shape[1:]).get(at)
    could = 0 if field is None else field.pixels((row, column), images.shape[1:3]).sum()
    share = float(area / could) if could else float("nan")
    return EffectiveField(influence, centre, sigma, r2, area, share)


def _gaussian(
    influence: np.ndarray,
) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Centre, standard deviations and R² of the Gaussian nearest in least squares."""
    rows, columns = (np.arange(side, dtype=np.float64) for side in influence.shape)
    total = influence.sum()
    middle = [
        float((rows * influence.sum(axis=1)).sum() / total),
        float((columns * influence.sum(axis=0)).sum() / total),
    ]
    spread = [
        float(np.sqrt(((rows - middle[0]) ** 2 * influence.sum(axis=1)).sum() / total)),
        float(np.sqrt(((columns - middle[1]) ** 2 * influence.sum(axis=0)).sum() / total)),
    ]

    def surface(_: Any, height: float, y: float, x: float, of_y: float, of_x: float) -> np.ndarray:
        one = np.exp(-(((rows - y) / of_y) ** 2) / 2)
        other = np.exp(-(((columns - x) / of_x) ** 2) / 2)
        return (height * one[:, np.newaxis] * other).ravel()

    start = [1.0, *middle, *(max(each, 0.3) for each in spread)]
    low = [0, -np.inf, -np.inf, 1e-2, 1e-2]
    flat = influence.ravel()
    try:
        found, _ = curve_fit(surface, flat, flat, p0=start, bounds=(low, np.inf))
    except RuntimeError as error:
        raise ModelError(f"no Gaussian fits the influence of the pixels: {error}") from error
    left = ((surface(flat, *found) - flat) ** 2).sum()
    r2 = 1 - left / ((flat - flat.mean()) ** 2).sum()
    _, y, x, of_y, of_x = found.tolist()
    return (y, x), (of_y, of_x), float(r2)
