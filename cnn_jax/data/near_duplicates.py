"""Near-copies: images that show the same picture, resized, recompressed or brightened.

Two images are near-copies when both of these hold:

- The detail agrees: thumbnails of 16 x 16, whose frequencies are weighted by the square root
  of the frequency, correlate by 0.9 or more. The power of natural images falls with
  frequency (Field 1987, "Relations between the statistics of natural images"), so without a
  weight any two images that are bright in the same half would correlate.
- The picture agrees: at no more than 32 x 32, allowing for a shift of one pixel, they
  correlate by 0.97 or more. More pixels would compare the noise of compression.

Both thresholds were chosen once, for precision, on five sets with known groups: of the pairs
of images that come into one group, 88 to 100 % are in one known group; of the known pairs, 50
to 96 % are found. Crops, mirror images and larger shifts are not. Simple drawings that merely
look alike, such as digits, are found too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from cnn_jax.data import cache
from cnn_jax.data.dataset import Dataset, Split
from cnn_jax.data.digest import dataset_digest
from cnn_jax.data.duplicates import Duplicates, Example, example_at, pixel_keys
from cnn_jax.errors import DataError

DETAIL_THRESHOLD = 0.9
PICTURE_THRESHOLD = 0.97
LARGEST_SEARCH = 500_000  # images; every pair is compared

_DETAIL_SIDE = 16
_PICTURE_SIDE = 32
_SHIFT = 1
_NEAREST = 8  # candidates of an image, so that sets of look-alikes stay bounded
_BLOCK = 1024


@dataclass(frozen=True)
class NearPair:
    """Two examples that are near-copies but not equal, and how well they correlate."""

    first: Example
    second: Example
    correlation: float


@dataclass(frozen=True)
class NearDuplicates:
    """Near-copies of a data set.

    Attributes:
      pairs: most alike first; of equal images only the first is compared with others, and
        of very many that are alike each with the eight nearest that come later.
      groups: the sets of examples that pairs and equal pixels connect. Chains are possible:
        the ends of a large one may look different.
    """

    pairs: tuple[NearPair, ...]
    groups: Duplicates


def find_near_duplicates(dataset: Dataset) -> NearDuplicates:
    """The near-copies within and between all parts; kept by the data's digest (`data.cache`).

    Takes half a minute for 60,000 small images on two cores, four times as long for twice as
    many, and 6 kB of memory an image.

    Raises:
      DataError: more than 500,000 images.
    """
    places = [(part, i) for part, split in dataset.splits.items() for i in range(len(split))]
    first, second, correlation = near_pairs(dataset.splits)
    pairs = tuple(
        NearPair(example_at(dataset, *places[i]), example_at(dataset, *places[j]), float(r))
        for i, j, r in zip(first, second, correlation, strict=True)
    )
    labels = near_labels(dataset.splits)
    members: dict[int, list[Example]] = {}
    for position in np.flatnonzero(labels >= 0):
        members.setdefault(labels[position], []).append(example_at(dataset, *places[position]))
    groups = sorted(members.values(), key=len, reverse=True)
    return NearDuplicates(pairs, Duplicates(tuple(map(tuple, groups))))


def near_labels(splits: Mapping[str, Split]) -> np.ndarray:
    """int `[N]` over the parts in order: equal for connected near-copies, -1 for all others."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first, second, _ = near_pairs(splits)
    keys = np.concatenate([pixel_keys(split) for split in splits.values()])
    _, unique, code = np.unique(keys, return_index=True, return_inverse=True)
    graph = coo_matrix(
        (np.ones(len(first), bool), (code[first], code[second])), shape=(len(unique),) * 2
    )
    _, component = connected_components(graph, directed=False)
    in_pair = np.isin(component, component[code[first]])
    return np.where(in_pair, component, -1)[code]


def near_pairs(splits: Mapping[str, Split]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (over the parts in order) of both images of each pair, and their correlation."""
    count = sum(len(split) for split in splits.values())
    if count > LARGEST_SEARCH:
        raise DataError(
            f"near-copies are searched among {LARGEST_SEARCH:,} images or fewer, not {count:,}: "
            "audit a part of them"
        )
    found = cache.load_or_compute("near-pairs-1", dataset_digest(splits), lambda: _search(splits))
    return found["first"], found["second"], found["correlation"]


def _search(splits: Mapping[str, Split]) -> dict[str, np.ndarray]:
    keys = np.concatenate([pixel_keys(split) for split in splits.values()])
    _, unique = np.unique(keys, return_index=True)
    unique.sort()
    pictures = np.concatenate([_thumbnails(split) for split in splits.values()])[unique]
    i, j = _candidates(_details(pictures))
    correlation = _shifted_correlation(pictures, i, j)
    order = np.lexsort((j, i, -correlation))
    order = order[correlation[order] >= PICTURE_THRESHOLD]
    return {
        "first": unique[i[order]],
        "second": unique[j[order]],
        "correlation": correlation[order],
    }


def _thumbnails(split: Split) -> np.ndarray:
    """float32 `[N, h, w]`: grey means over areas, at most 32 x 32; depth is averaged, too."""
    height, width = (min(side, _PICTURE_SIDE) for side in split.image_shape[-3:-1])

    def reduce(start: int) -> np.ndarray:
        images = split.read_images(np.arange(start, min(start + _BLOCK // 8, len(split))))
        inner = (*range(1, images.ndim - 3), images.ndim - 1)
        return area_means(images.mean(axis=inner, dtype=np.float32), height, width)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        blocks = list(threads.map(reduce, range(0, len(split), _BLOCK // 8)))
    return np.concatenate([np.empty((0, height, width), np.float32), *blocks])


def area_means(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """float32 `[N, height, width]`: means over rectangles that tile images `[N, H, W]`."""
    for axis, size in ((1, height), (2, width)):
        starts = np.arange(size) * images.shape[axis] // size
        sizes = np.diff(starts, append=images.shape[axis]).astype(np.float32)
        shape = [1, 1, 1]
        shape[axis] = size
        images = np.add.reduceat(images, starts, axis=axis) / sizes.reshape(shape)
    return images


def _details(pictures: np.ndarray) -> np.ndarray:
    """float32 `[N, 256]`: frequencies of the small thumbnails, weighted, of unit length."""
    from scipy.fft import dctn

    height, width = (min(side, _DETAIL_SIDE) for side in pictures.shape[1:])
    spectrum = dctn(area_means(pictures, height, width), axes=(1, 2), norm="ortho")
    weight = np.sqrt(np.hypot(np.arange(height)[:, None], np.arange(width)[None, :]))
    return _unit((spectrum * weight.astype(np.float32)).reshape(len(pictures), -1))


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length; those without any contrast become zero and correlate with none."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(length > 1e-6 * rows.shape[1], rows / np.maximum(length, 1e-30), 0)


def _candidates(details: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions i < j of pairs whose details agree, from the nearest of each image."""
    found = [_nearest(details, start) for start in range(0, len(details), _BLOCK)]
    pairs = np.concatenate([np.empty((0, 2), np.int64), *found])
    return pairs[:, 0], pairs[:, 1]


def _nearest(details: np.ndarray, start: int) -> np.ndarray:
    """int `[P, 2]`: for each row of a block, the nearest later ones above the threshold."""
    similarity = details[start : start + _BLOCK] @ details[start:].T
    row, column = np.nonzero(similarity >= DETAIL_THRESHOLD)
    later = column > row
    row, column = row[later], column[later]
    order = np.lexsort((column, -similarity[row, column], row))
    row, column = row[order], column[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    near = rank < _NEAREST
    return start + np.stack([row[near], column[near]], axis=1)


def _shifted_correlation(pictures: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """float32 `[P]`: the largest correlation of each pair over shifts of the second image."""
    height, width = pictures.shape[1:]
    inner = (min(_SHIFT, (height - 1) // 2), min(_SHIFT, (width - 1) // 2))
    result = np.full(len(i), -1, np.float32)
    for start in range(0, len(i), _BLOCK):
        some = slice(start, start + _BLOCK)
        first = next(_windows(pictures[i[some]], inner, (0, 0)))
        for second in _windows(pictures[j[some]], inner, inner):
            result[some] = np.maximum(result[some], np.einsum("pk,pk->p", first, second))
    return result


def _windows(
    images: np.ndarray, margin: tuple[int, int], shift: tuple[int, int]
) -> Iterator[np.ndarray]:
    """The images without their margin, mean-free and of unit length, at every shift."""
    height, width = images.shape[1] - 2 * margin[0], images.shape[2] - 2 * margin[1]
    for top in range(margin[0] - shift[0], margin[0] + shift[0] + 1):
        for left in range(margin[1] - shift[1], margin[1] + shift[1] + 1):
            window = images[:, top : top + height, left : left + width].reshape(len(images), -1)
            yield _unit(window - window.mean(axis=1, keepdims=True))
