"""Equal images: which examples of a data set have the same decoded pixels."""

from __future__ import annotations

import functools
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cnn_jax.data import cache
from cnn_jax.data.dataset import Dataset, ImageSource, SourceView, Split
from cnn_jax.data.decoded import DecodedImages
from cnn_jax.data.digest import source_digest
from cnn_jax.data.sources import ImageFiles, JoinedSource, for_each

_KEY_BYTES = 16  # two different images share a key with a probability below 1e-26 per 1e6 images
_KEY_DTYPE = np.dtype(f"S{2 * _KEY_BYTES}")
_CHUNK = 1024  # images a task of a thread: tasks cost more than the hash of one small image


@dataclass(frozen=True)
class Example:
    """One example: its part, its position there, its id, and its label in words."""

    part: str
    index: int
    id: str
    label: str


@dataclass(frozen=True)
class Duplicates:
    """Groups of two or more examples that are copies of each other, largest first.

    Two labels differ when their words do: the class, the list of classes, or the shares of
    the classes to two decimals.
    """

    groups: tuple[tuple[Example, ...], ...]

    def between(self, part: str, *others: str) -> list[Example]:
        """The examples of `part` with a copy in one of the other parts, in their order."""
        found = [
            example
            for group in self.groups
            if any(copy.part in others for copy in group)
            for example in group
            if example.part == part
        ]
        return sorted(found, key=lambda example: example.index)

    def within(self, part: str) -> int:
        """The number of examples of `part` with another copy in the same part."""
        counts = [sum(example.part == part for example in group) for group in self.groups]
        return sum(count for count in counts if count > 1)

    def conflicting(self, parts: Iterable[str]) -> list[tuple[Example, ...]]:
        """The groups whose examples in `parts` have different labels."""
        chosen = [tuple(e for e in group if e.part in set(parts)) for group in self.groups]
        return [group for group in chosen if len({example.label for example in group}) > 1]


def find_duplicates(dataset: Dataset) -> Duplicates:
    """The examples of all parts whose decoded pixels are equal.

    Images in memory are hashed at each call (60,000 of CIFAR-10 take a quarter of a second);
    the keys of images that are read from files are kept (`data.cache`).
    """
    positions: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    for part, split in dataset.splits.items():
        for index, key in enumerate(pixel_keys(split).tolist()):
            positions[key].append((part, index))
    groups = [found for found in positions.values() if len(found) > 1]
    groups.sort(key=len, reverse=True)
    return Duplicates(
        tuple(tuple(example_at(dataset, *place) for place in group) for group in groups)
    )


def example_at(dataset: Dataset, part: str, index: int) -> Example:
    """The example at a position of a part."""
    split = dataset.splits[part]
    label = _label_words(split.targets["label"][index], dataset)
    return Example(part, index, str(split.ids[index]), label)


def pixel_keys(split: Split) -> np.ndarray:
    """S32 `[N]`: BLAKE2b (16 bytes, in hex) of the shape, type and pixels of each image.

    Images that do not lie in memory are read once, a few at a time.
    """
    if isinstance(split.images, np.ndarray):
        return _array_keys(split.images)
    return _source_keys(split.images)


def _array_keys(images: np.ndarray) -> np.ndarray:
    def keys(start: int) -> list[bytes]:
        return [_key(image) for image in images[start : start + _CHUNK]]

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        found = [key for some in threads.map(keys, range(0, len(images), _CHUNK)) for key in some]
    return np.array(found, dtype=_KEY_DTYPE)


def _source_keys(source: ImageSource) -> np.ndarray:
    if isinstance(source, SourceView):
        return _source_keys(source.source)[source.indices]
    if isinstance(source, JoinedSource):
        return np.concatenate([_source_keys(part) for part in source.sources])
    if isinstance(source, ImageFiles | DecodedImages):
        return _file_keys(source)
    return _read_keys(source)


@functools.lru_cache(maxsize=8)  # the parts of a data set often are views of the same files
def _file_keys(source: ImageFiles | DecodedImages) -> np.ndarray:
    """Decoding all files costs an epoch; their bytes tell whether that was done before."""
    import PIL

    kept = cache.load_or_compute(
        # Another version of Pillow may decode a JPEG to other pixels.
        f"pixel-keys-{PIL.__version__}",
        source_digest(source),
        lambda: {"keys": _read_keys(source)},
    )
    return kept["keys"]


def _read_keys(source: ImageSource) -> np.ndarray:
    keys = for_each(lambda index: _key(source[index]), len(source))
    return np.array(keys, dtype=_KEY_DTYPE)


def _key(image: np.ndarray) -> bytes:
    pixels = np.ascontiguousarray(image)
    if pixels.dtype.kind == "f":
        pixels = pixels + pixels.dtype.type(0)  # minus zero becomes zero, which it equals
    header = f"{pixels.dtype.str}{pixels.shape}".encode()
    return hashlib.blake2b(header + pixels.tobytes(), digest_size=_KEY_BYTES).hexdigest().encode()


def _label_words(target: np.ndarray, dataset: Dataset) -> str:
    classes = dataset.classes["label"]
    if target.ndim == 0:
        return classes[int(target)]
    present = np.flatnonzero(target)
    if dataset.kinds["label"] == "multilabel":
        return ", ".join(classes[k] for k in present) or "none"
    return ", ".join(f"{classes[k]} {target[k]:.2f}" for k in present)
