"""From stored pixels to what a network sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.data import Dataset


@dataclass(frozen=True)
class Preprocess:
    """uint8 to float32 in 0..1, then zero mean and unit deviation per channel.

    Attributes:
      mean, std: per channel, of the training images in 0..1.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """From what `dataclasses.asdict` made of one, as JSON keeps it.

        Raises:
          KeyError, TypeError: it is damaged.
        """
        return cls(tuple(values["mean"]), tuple(values["std"]))

    @staticmethod
    def to_unit(image: jax.Array) -> jax.Array:
        """uint8 0..255 to float32 0..1; float32 images are in 0..1 already."""
        return image.astype(jnp.float32) / 255 if image.dtype == jnp.uint8 else image

    def normalise(self, image: jax.Array) -> jax.Array:
        """(image - mean) / std; float32 `[..., C]`."""
        broadcast = (1,) * (image.ndim - 1) + (-1,)
        mean = jnp.asarray(self.mean, jnp.float32).reshape(broadcast)
        std = jnp.asarray(self.std, jnp.float32).reshape(broadcast)
        return (image - mean) / std

    def __call__(self, image: jax.Array) -> jax.Array:
        """Both, for evaluation; training augments in between."""
        return self.normalise(self.to_unit(image))


def fit_preprocess(dataset: Dataset, *, most: int = 20_000) -> Preprocess:
    """Mean and deviation per channel of the training part, and of no other.

    Args:
      dataset: with a part `train`.
      most: examples looked at, evenly spaced; enough for three digits.

    A channel that never varies keeps deviation 1, so that nothing is divided by zero.
    """
    split = dataset.splits["train"]
    n = len(split)
    chosen = np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))
    total = np.zeros(split.image_shape[-1])
    square = np.zeros_like(total)
    count = 0
    for part in np.array_split(chosen, max(1, len(chosen) // 1000)):
        images = split.read_images(part)
        pixels = images.reshape(-1, images.shape[-1]).astype(np.float64)
        pixels /= 255 if images.dtype == np.uint8 else 1
        total += pixels.sum(axis=0)
        square += (pixels**2).sum(axis=0)
        count += len(pixels)
    mean = total / count
    std = np.sqrt(np.maximum(square / count - mean**2, 0))
    std = np.where(std < 1e-6, 1.0, std)
    return Preprocess(tuple(mean.round(6).tolist()), tuple(std.round(6).tolist()))
