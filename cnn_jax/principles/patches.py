"""What a unit answers to: the patches of real images that move it most (Zeiler & Fergus 2014)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.principles.receptive_field import receptive_fields

_TOGETHER = 128  # images that go through the network at once


@dataclass(frozen=True, eq=False)
class TopPatches:
    """Where one unit is highest, each time in another image, highest first.

    Attributes:
      unit: channel of the layer.
      images: int `[K]`, which of the images.
      values: float32 `[K]`.
      boxes: int `[K, 4]`: the pixels that the unit sees there, rows from `[:, 0]` until before
        `[:, 1]` and columns from `[:, 2]` until before `[:, 3]`; they may reach over the border.
    """

    unit: int
    images: np.ndarray
    values: np.ndarray
    boxes: np.ndarray


def top_patches(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Any,
    at: str,
    *,
    units: Sequence[int] | None = None,
    count: int = 9,
) -> list[TopPatches]:
    """The patches that a layer's units answer to most.

    Args:
      model, variables: as in evaluation, `model.apply(variables, image, train=False)`.
      images: float `[N, H, W, C]`, normalised.
      at: path as `nn.tap` has it, of maps `[B, h, w, C]` or of features `[B, C]`, which see all.
      units: channels; None for all.
      count: patches of each, at most N.

    Raises:
      ModelError: no images, an unknown path, another output, a unit that there is not, or no
        patches wanted.
    """
    values, positions = _highest(model, variables, images, at)
    of_layer = range(values.shape[1])
    wanted = list(of_layer) if units is None else list(units)
    if count < 1 or any(unit not in of_layer for unit in wanted):
        raise ModelError(
            f"{at!r} has the units 0 to {len(of_layer) - 1}, and one patch at least must be "
            f"wanted: not {count} of units {wanted}"
        )
    height, width = np.shape(images)[1:3]
    field = receptive_fields(model, variables, np.shape(images)[1:]).get(at)
    whole = np.array([0, height, 0, width])
    found = []
    for unit in wanted:
        best = np.argsort(-values[:, unit], kind="stable")[:count]
        boxes = np.tile(whole, (len(best), 1))
        if positions is not None and field is not None:
            first = np.array(field.start) + np.array(field.stride) * positions[best, unit]
            last = first + np.array(field.size)
            boxes = np.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], axis=1)
        found.append(TopPatches(unit, best, values[best, unit], boxes))
    return found


def cut(image: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """The pixels of `[H, W, C]` in a box (top, bottom, left, right); 0 where it is over the border.

    A box that holds the image's whole height, or width, is cut to it.
    """
    sides = []
    for (low, high), side in zip((box[:2], box[2:]), image.shape[:2], strict=True):
        sides.append((0, side) if low <= 0 and high >= side else (int(low), int(high)))
    (top, bottom), (left, right) = sides
    patch = np.zeros((bottom - top, right - left, image.shape[2]), image.dtype)
    rows = slice(max(top, 0), max(min(bottom, image.shape[0]), 0))
    columns = slice(max(left, 0), max(min(right, image.shape[1]), 0))
    inside = image[rows, columns]
    y, x = rows.start - top, columns.start - left
    patch[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return patch


def _highest(
    model: nn.Module, variables: Mapping[str, Any], images: Any, at: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """The highest value of each unit in each image `[N, C]`, and where: `[N, C, 2]`, or None."""
    if np.ndim(images) != 4 or not len(images):
        raise ModelError(f"patches are of images [N, H, W, C], not of {list(np.shape(images))}")

    @jax.jit
    def highest(variables: Any, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        features = nn.tap(model, variables, x, at=(at,), train=False)[1][at]
        if getattr(features, "ndim", 0) == 2:
            return features, None
        if getattr(features, "ndim", 0) != 4:
            raise ModelError(f"{at!r} gives no features [B, h, w, C] or [B, C]")
        flat = features.reshape(len(x), -1, features.shape[-1])
        where = flat.argmax(axis=1)
        return flat.max(axis=1), jnp.stack(jnp.divmod(where, features.shape[2]), axis=-1)

    found = [
        jax.tree.map(np.asarray, highest(variables, jnp.asarray(images[i : i + _TOGETHER])))
        for i in range(0, len(images), _TOGETHER)
    ]
    values = np.concatenate([each[0] for each in found])
    if found[0][1] is None:
        return values, None
    return values, np.concatenate([each[1] for each in found])
