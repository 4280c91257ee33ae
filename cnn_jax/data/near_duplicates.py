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

Figures near a threshold are computed in float64: rounding differs between machines, and what is
found decides which part an image goes to.
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
LONGEST_CHAIN = 100  # images that pairs connect beyond which they are no copies of one picture

_DETAIL_SIDE = 16
_PICTURE_SIDE = 32
_SHIFT = 1
_NEAREST = 8  # candidates of an image, so that sets of look-alikes stay bounded
_BLOCK = 1024
_ROUNDING = 1e-5  # more than a product of unit vectors in float32 is ever off by


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
        the ends of a large one may look different (see `near_groups`).
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
    found = near_pairs(dataset.splits)
    pairs = tuple(
        NearPair(example_at(dataset, *places[i]), example_at(dataset, *places[j]), float(r))
        for i, j, r in zip(*found, strict=True)
    )
    labels = _connected(dataset.splits, found[0], found[1])[0]
    members: dict[int, list[Example]] = {}
    for position in np.flatnonzero(labels >= 0):
        members.setdefault(labels[position], []).append(example_at(dataset, *places[position]))
    groups = sorted(members.values(), key=len, reverse=True)
    return NearDuplicates(pairs, Duplicates(tuple(map(tuple, groups))))


def near_groups(splits: Mapping[str, Split]) -> tuple[np.ndarray, int]:
    """The groups of near-copies that no split should part.

    They are the sets of images that pairs connect. More than `LONGEST_CHAIN` connected images
    look alike rather than show one picture (a set of digits, or of one product), and would take
    a large share of the data to one part. They are cut: the image with the most near-copies
    and these become a group, then the same among those that are left.

    Returns:
      int `[N]` over the parts in order: equal within a group, -1 for images without one; and
      the number of pairs that were cut.
    """
    first, second, _ = near_pairs(splits)
    labels, code = _connected(splits, first, second)
    representatives = np.unique(code, return_index=True)[1]  # one of each set of equal images
    sizes = np.bincount(labels[representatives] + 1)[1:]
    chained = sizes[labels[first]] > LONGEST_CHAIN
    group = np.full(len(representatives), -1)
    group[code] = labels
    _cut_chains(group, code[first[chained]], code[second[chained]])
    labels = group[code]
    cut = (labels[first] != labels[second]) | (labels[first] < 0)
    return labels, int(cut.sum())


def _cut_chains(group: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """Give the images of the pairs new groups, each of one image and its near-copies."""
    neighbours: dict[int, list[int]] = {}
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        neighbours.setdefault(i, []).append(j)
        neighbours.setdefault(j, []).append(i)
    group[list(neighbours)] = -1
    for label, i in enumerate(
        sorted(neighbours, key=lambda i: (-len(neighbours[i]), i)), start=group.max(initial=-1) + 1
    ):
        members = [j for j in (i, *neighbours[i]) if group[j] < 0]
        if group[i] < 0 and len(members) > 1:
            group[members] = label


def _connected(
    splits: Mapping[str, Split], first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """int `[N]` twice: what pairs connect (-1 for images in no pair), and equal images."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    keys = np.concatenate([pixel_keys(split) for split in splits.values()])
    _, unique, code = np.unique(keys, return_index=True, return_inverse=True)
    graph = coo_matrix(
        (np.ones(len(first), bool), (code[first], code[second])), shape=(len(unique),) * 2
    )
    _, component = connected_components(graph, directed=False)
    in_pair = np.isin(component, component[code[first]])
    return np.where(in_pair, component, -1)[code], code


def near_pairs(splits: Mapping[str, Split]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions (over the parts in order) of both images of each pair, and their correlation."""
    count = sum(len(split) for split in splits.values())
    if count > LARGEST_SEARCH:
        raise DataError(
            f"near-copies are searched among {LARGEST_SEARCH:,} images or fewer, not {count:,}: "
            "audit a part of them"
        )
    found = cache.load_or_compute("near-pairs-2", dataset_digest(splits), lambda: _search(splits))
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
        grey = images.mean(axis=inner, dtype=np.float64)
        return area_means(grey, height, width).astype(np.float32)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as threads:
        blocks = list(threads.map(reduce, range(0, len(split), _BLOCK // 8)))
    return np.concatenate([np.empty((0, height, width), np.float32), *blocks])


def area_means(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """float64 `[N, height, width]`: means over rectangles that tile images `[N, H, W]`."""
    for axis, size in ((1, height), (2, width)):
        starts = np.arange(size) * images.shape[axis] // size
        sizes = np.diff(starts, append=images.shape[axis])
        shape = [1, 1, 1]
        shape[axis] = size
        images = np.add.reduceat(images, starts, axis=axis, dtype=np.float64) / sizes.reshape(shape)
    return images


def _details(pictures: np.ndarray) -> np.ndarray:
    """float32 `[N, 256]`: frequencies of the small thumbnails, weighted, of unit length."""
    from scipy.fft import dctn

    height, width = (min(side, _DETAIL_SIDE) for side in pictures.shape[1:])
    weight = np.sqrt(np.hypot(np.arange(height)[:, None], np.arange(width)[None, :]))
    details = np.empty((len(pictures), height * width), np.float32)
    for start in range(0, len(pictures), _BLOCK):
        small = area_means(pictures[start : start + _BLOCK], height, width)
        spectrum = weight * dctn(small, axes=(1, 2), norm="ortho")
        details[start : start + _BLOCK] = _unit(spectrum.reshape(len(small), -1))
    return details


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
    rows = details[start : start + _BLOCK]
    similarity = rows @ details[start:].T
    similarity[:, : len(rows)][np.tri(len(rows), dtype=bool)] = -1  # itself, and earlier ones
    agree = similarity >= DETAIL_THRESHOLD - _ROUNDING
    crowded = np.flatnonzero(np.count_nonzero(agree, axis=1) > _NEAREST)
    if len(crowded):
        many = similarity[crowded]
        nearest = np.partition(many, -_NEAREST, axis=1)[:, -_NEAREST, None]
        agree[crowded] &= many >= nearest - _ROUNDING
    row, column = np.nonzero(agree)
    exact = _products(rows, row, details[start:], column)
    sure = exact >= DETAIL_THRESHOLD
    row, column, exact = row[sure], column[sure], exact[sure]
    order = np.lexsort((column, -exact, row))
    row, column = row[order], column[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    near = rank < _NEAREST
    return start + np.stack([row[near], column[near]], axis=1)


def _products(a: np.ndarray, i: np.ndarray, b: np.ndarray, j: np.ndarray) -> np.ndarray:
    """float64 `[P]`: the scalar product of row `i` of `a` and row `j` of `b`, for each pair."""
    result = np.empty(len(i))
    for start in range(0, len(i), _BLOCK):
        some = slice(start, start + _BLOCK)
        result[some] = np.einsum("pk,pk->p", a[i[some]].astype(np.float64), b[j[some]])
    return result


def _shifted_correlation(pictures: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """float64 `[P]`: the largest correlation of each pair over shifts of the second image."""
    height, width = pictures.shape[1:]
    inner = (min(_SHIFT, (height - 1) // 2), min(_SHIFT, (width - 1) // 2))
    result = np.full(len(i), -1.0)
    for start in range(0, len(i), _BLOCK):
        some = slice(start, start + _BLOCK)
        first = next(_windows(pictures[i[some]].astype(np.float64), inner, (0, 0)))
        for second in _windows(pictures[j[some]].astype(np.float64), inner, inner):
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
