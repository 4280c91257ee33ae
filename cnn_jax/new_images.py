"""New images as a network takes them: an array as it is, files and pictures brought to its size."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax import data, environment
from cnn_jax.errors import DataError
from cnn_jax.training.devices import Placement, numerics
from cnn_jax.training.evaluate import EvalStep, predict_examples
from cnn_jax.training.feed import Feed

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

    from cnn_jax.recipe import Recipe

    Picture = str | os.PathLike[str] | np.ndarray | PillowImage
    Images = np.ndarray | Sequence[Picture]

_TAKEN = "an array [N, H, W, C], or a list of paths, of uint8 arrays [H, W, C] or of Pillow images"


@dataclass(frozen=True)
class _Pictures:
    """Files or pictures, brought to size when they are asked for: they may exceed memory."""

    pictures: tuple[str | PillowImage, ...]
    shape: tuple[int, int, int]
    fit: data.Fit

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return data.decode_image(self.pictures[index], self.shape, self.fit)


def source_of(
    images: Images, image_shape: tuple[int, ...], fit: data.Fit
) -> tuple[np.ndarray | data.ImageSource, list[str]]:
    """Images of the network's shape, and an id for each: its path, or its position.

    Args:
      images: see `Classifier.predict`.
      image_shape: (H, W, C), or (D, H, W, C) for volumes, where only an array is taken.
      fit: how pictures of another size are brought to it.

    Raises:
      DataError: no images, or not of a kind or shape that is taken.
    """
    if isinstance(images, np.ndarray):
        array = _checked(images, image_shape)
        return array, [str(i) for i in range(len(array))]
    if isinstance(images, str | os.PathLike):
        raise DataError("predict takes a list of paths or an array, not one path")
    if not isinstance(images, Sequence):
        raise DataError(f"predict takes {_TAKEN}, not {type(images).__name__}")
    if not images:
        raise DataError("no images to predict")
    if len(image_shape) != 3:
        raise DataError("this model takes volumes: give them as one array, not as a list")
    paths = [os.fspath(image) for image in images if isinstance(image, str | os.PathLike)]
    if paths and len(paths) != len(images):
        raise DataError("the images to predict are partly paths: give all as paths, or none")
    # The same file twice is two questions, but ids are unique.
    if len(set(paths)) != len(paths):
        raise DataError("a file is named twice among the images to predict")
    ids = paths or [str(i) for i in range(len(images))]
    pictures: Sequence[str | PillowImage] = paths or list(map(_picture, images, itertools.count()))
    height, width, channels = image_shape
    return _Pictures(tuple(pictures), (height, width, channels), fit), ids


def sizes_of(images: Images) -> list[tuple[int, int]]:
    """(H, W) of each picture of a list, upright; nothing of an array, whose images have one size.

    Raises:
      DataError: a file is no image.
    """
    if isinstance(images, np.ndarray):
        return []
    sizes = []
    for number, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            header = data.read_header(image)
            sizes.append((header.height, header.width))
        else:
            picture = _picture(image, number)
            sizes.append((picture.height, picture.width))
    return sizes


def answers_for(
    images: Images,
    image_shape: tuple[int, ...],
    recipe: Recipe,
    placement: Placement,
    eval_step: EvalStep,
    variables: Any,
) -> tuple[tuple[str, ...], np.ndarray]:
    """Ids, and what a network's task keeps of each image.

    Args:
      images: see `Classifier.predict`.
      image_shape: that images are brought to.
      recipe: of the run.
      placement: devices.
      eval_step: the network, compiled.
      variables: its parameters and other collections, on the devices.

    Raises:
      DataError: as `source_of`, or a file that cannot be decoded.
    """
    source, ids = source_of(images, image_shape, recipe.data.fit)
    split = data.Split(source, {}, np.asarray(ids, dtype=np.str_))
    # Powers of two: however many images come, few programs are compiled.
    batch_size = min(recipe.train.eval_batch_size, 1 << (len(split) - 1).bit_length())
    feed = Feed(split, batch_size, placement, memory_limit=recipe.train.memory_limit)
    environment.enable_compile_cache()
    with numerics(recipe.train.precision):
        return tuple(ids), predict_examples(eval_step, variables, feed)


def _picture(image: Picture, position: int) -> PillowImage:
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, np.ndarray):
        raise DataError(
            f"image {position} is of the type {type(image).__name__}; predict takes {_TAKEN}"
        )
    shape = image.shape
    in_colour = len(shape) == 3 and shape[2] in (1, 3)
    if image.dtype != np.uint8 or not (in_colour or len(shape) == 2) or not image.size:
        raise DataError(
            f"image {position} is {image.dtype} {list(shape)}: give uint8 [H, W, 3], [H, W, 1] or "
            "[H, W], or images of the network's size as one array [N, H, W, C]"
        )
    return Image.fromarray(image[..., 0] if shape[2:] == (1,) else image)


def _checked(images: np.ndarray, image_shape: tuple[int, ...]) -> np.ndarray:
    if _is_one_image(images, image_shape):
        raise DataError(
            f"an array {list(images.shape)} is one image: give a batch, images[None], or a list "
            "of images of any size"
        )
    if not len(images):
        raise DataError("no images to predict")
    array = images[..., None] if images.ndim == len(image_shape) else images
    if array.shape[1:] != image_shape:
        advice = "; give paths, or a list of uint8 images, to have them resized"
        raise DataError(
            f"images are {list(images.shape[1:])}, but the model was trained on "
            f"{list(image_shape)}{advice if len(image_shape) == 3 else ''}"
        )
    if array.dtype not in (np.uint8, np.float32):
        raise DataError(f"images must be uint8, or float32 in 0..1, not {array.dtype}")
    if array.dtype == np.float32 and not (array.min() >= 0 and array.max() <= 1):
        raise DataError("float32 images must be in 0..1; give uint8 for 0..255")
    return array


def _is_one_image(images: np.ndarray, image_shape: tuple[int, ...]) -> bool:
    """Whether the first axis is missing; grey images may come without their last one."""
    if images.ndim == len(image_shape):
        return images.shape == image_shape or image_shape[-1] != 1
    return images.ndim < len(image_shape)
