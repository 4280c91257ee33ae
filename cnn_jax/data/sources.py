"""Encoded images: which shape they get, reading them one by one or all into memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from cnn_jax.data.dataset import ImageSource, Split
from cnn_jax.data.decode import (
    EncodedImage,
    Fit,
    ImageHeader,
    decode_image,
    name_of,
    read_header,
    resize_image,
)
from cnn_jax.data.reading import ImageList, counted
from cnn_jax.errors import DataError

LARGEST_DEFAULT_SIDE = 224

# What the note says of files with 16 bits a value.
DEEP = "image files have 16 bits a value"

# Images that a thread works through at a time: a task for each would cost memory of its own.
_BLOCK = 32

# Damaged files that an error names: all of them in most sets, and a line that can be read.
_NAMED = 20

_SMALLEST = (1, 1, 3)  # what an image is decoded to where only errors matter

_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """An `ImageSource` that decodes an image each time it is asked for.

    Attributes:
      images: N image files, or images within larger files.
      shape: (H, W, C) to which each is brought.
      fit: how, as in `decode_image`.
    """

    images: ImageList
    shape: tuple[int, int, int]
    fit: Fit

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int, /) -> np.ndarray:
        return decode_image(self.images[index], self.shape, self.fit)

    def read_bytes(self, index: int) -> bytes:
        """The encoded image at `index` as it is on disk."""
        image = self.images[index]
        if isinstance(image, EncodedImage):
            return image.contents
        try:
            return image.read_bytes()
        except OSError as error:
            raise DataError(f"{str(image)!r} cannot be read: {error}") from error


@dataclass(frozen=True, eq=False)
class JoinedSource:
    """Several sources of one shape, one after the other."""

    sources: Sequence[ImageSource]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        return self.sources[0].shape

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def __getitem__(self, index: int, /) -> np.ndarray:
        source, inner = self.locate(index)
        return source[inner]

    def locate(self, index: int) -> tuple[ImageSource, int]:
        """The source that holds image `index`, and the image's position in it."""
        for source in self.sources:
            if index < len(source):
                return source, index
            index -= len(source)
        raise IndexError(f"no image {index} in {len(self)}")


def read_into_memory(split: Split) -> Split:
    """The split with its images as one uint8 array, decoded by several threads.

    Raises:
      DataError: some images cannot be read; says how many and names the first twenty.
    """
    if isinstance(split.images, np.ndarray):
        return split
    source = split.images
    pixels = np.empty((len(source), *source.shape), dtype=np.uint8)

    def decode(index: int) -> None:
        pixels[index] = source[index]

    for_each(decode, len(source))
    return replace(split, images=pixels)


def check_images(lists: Sequence[ImageList]) -> None:
    """Decode every image once and keep none of them.

    Raises:
      DataError: some cannot be read; names those of all lists together.
    """
    images = [(images, index) for images in lists for index in range(len(images))]

    def decode(number: int) -> None:
        some, index = images[number]
        decode_image(some[index], _SMALLEST)

    for_each(decode, len(images))


def find_unreadable(images: ImageList) -> dict[int, str]:
    """Position -> why, of images that cannot be decoded, or are several, as animations are.

    Each is decoded once and not kept.
    """

    def decode(index: int) -> None:
        if read_header(images[index]).animated:
            raise DataError(f"{name_of(images[index])} has several pictures: save each as a file")
        decode_image(images[index], _SMALLEST)

    return _attempt_each(decode, len(images))[1]


def choose_shape(
    lists: Sequence[ImageList], image_size: int | None, channels: int | None
) -> tuple[tuple[int, int, int], tuple[str, ...]]:
    """The shape (H, W, C) that encoded images are brought to, and notes that say why.

    Without `channels`, 1 if every file has a grey mode, otherwise 3. Without `image_size`,
    the size the files share if its long side is at most 224, otherwise a square of the
    median short side, at most 224.

    Raises:
      DataError: some files are not images; says how many and names the first twenty.
    """
    headers = [header for images in lists for header in _read_headers(images)]
    notes = []
    if channels is None:
        channels = 1 if all(header.grey for header in headers) else 3
        grey = sum(header.grey for header in headers)
        stored = counted(channels, "channel", "channels")
        notes.append(f"{stored}: {grey} of {len(headers)} image files are grey.")
    if image_size is None:
        (height, width), reason = _choose_size(headers)
        notes.append(f"Images are {height} x {width}: {reason}.")
    else:
        height = width = image_size
    deep = sum(header.deep for header in headers)
    if deep:
        notes.append(f"{deep} of {len(headers)} {DEEP}: 65535 becomes 255.")
    animated = sum(header.animated for header in headers)
    if animated:
        files = counted(animated, "animated file", "animated files")
        notes.append(f"{files}: only the first frame is used.")
    return (height, width, channels), tuple(notes)


def conform_arrays(
    images: np.ndarray, image_size: int | None, channels: int | None, fit: Fit
) -> np.ndarray:
    """uint8 images `[N, H, W, C]` brought to another size or number of channels.

    Raises:
      DataError: another shape is asked of volumes, of float images, or of images that have
        neither 1 nor 3 channels.
    """
    if image_size is None and channels in (None, images.shape[-1]):
        return images
    from PIL import Image

    size = images.shape[1:3] if image_size is None else (image_size, image_size)
    wanted = (*size, images.shape[-1] if channels is None else channels)
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3):
        raise DataError(
            f"images of shape {list(images.shape[1:])} and type {images.dtype} keep their shape: "
            "leave image_size and channels unset"
        )
    result = np.empty((len(images), *wanted), dtype=np.uint8)
    for index, image in enumerate(images):
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        result[index] = resize_image(picture.convert("L" if wanted[2] == 1 else "RGB"), size, fit)
    return result


def _choose_size(headers: Sequence[ImageHeader]) -> tuple[tuple[int, int], str]:
    sizes = Counter((header.height, header.width) for header in headers)
    if len(sizes) == 1 and max(next(iter(sizes))) <= LARGEST_DEFAULT_SIDE:
        return next(iter(sizes)), "all files have this size"
    median = int(np.median([min(header.height, header.width) for header in headers]))
    side = min(median, LARGEST_DEFAULT_SIDE)
    reason = f"the files' median short side is {median}, at most {LARGEST_DEFAULT_SIDE} is chosen"
    return (side, side), reason


def _read_headers(images: ImageList) -> list[ImageHeader]:
    return for_each(lambda index: read_header(images[index]), len(images))


def for_each(function: Callable[[int], _Result], count: int) -> list[_Result]:
    """`function` of 0..count-1 by several threads, in order.

    Raises:
      DataError: it raised this for some; says how many and names the first twenty.
    """
    results, failed = _attempt_each(function, count)
    if failed:
        files = counted(len(failed), "damaged image file", "damaged image files")
        shown = "; ".join(sorted(failed.values())[:_NAMED])
        more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        raise DataError(
            f"{files} must be replaced or removed (or left out, by --data.unreadable leave-out): "
            f"{shown}{more}"
        )
    return results


def _attempt_each(
    function: Callable[[int], _Result], count: int
) -> tuple[list[_Result], dict[int, str]]:
    """What `function` gives of 0..count-1 in order, and what it said of those for which it raised.

    By several threads.
    """
    failed: dict[int, str] = {}

    def attempt(start: int) -> list[_Result]:
        results = []
        for index in range(start, min(start + _BLOCK, count)):
            try:
                results.append(function(index))
            except DataError as error:
                failed[index] = str(error)
        return results

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        blocks = list(threads.map(attempt, range(0, count, _BLOCK)))
    return [result for block in blocks for result in block], dict(sorted(failed.items()))
