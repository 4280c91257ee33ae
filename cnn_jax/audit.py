"""The audit of a data set: counts of its copies, and a page with pictures of them."""

from __future__ import annotations

import itertools
import os

from cnn_jax.data import (
    Dataset,
    Duplicates,
    Example,
    NearDuplicates,
    find_duplicates,
    find_near_duplicates,
)
from cnn_jax.data.reading import counted
from cnn_jax.report.audit import AuditPage, Pair, Shown, write
from cnn_jax.report.pictures import viewable

SHOWN_PAIRS = 60
_FROM_ONE_GROUP = 3  # pairs of equal images: many copies of one picture teach nothing more


def counts(dataset: Dataset, equal: Duplicates, near: NearDuplicates) -> list[tuple[str, ...]]:
    """Rows (where, equal images, near-copies): between parts, within them, and in all."""
    rows = []
    parts = list(dataset.splits)
    for part, other in itertools.combinations(reversed(parts), 2):
        pair = (len(found.between(part, other)) for found in (equal, near.groups))
        rows.append((f"{part} also in {other}", *(f"{n:,}" for n in pair)))
    for part in parts:
        pair = (found.within(part) for found in (equal, near.groups))
        rows.append((f"within {part}", *(f"{n:,}" for n in pair)))
    both = (equal, near.groups)
    rows.append(("groups", *(f"{len(found.groups):,}" for found in both)))
    rows.append(("images in the largest", *(f"{_largest(found):,}" for found in both)))
    conflicts = (len(found.conflicting(parts)) for found in both)
    rows.append(("groups with different labels", *(f"{n:,}" for n in conflicts)))
    return rows


def audit(dataset: Dataset, path: str | os.PathLike[str]) -> list[tuple[str, ...]]:
    """Search copies and near-copies, write the page to `path`, and return the counts.

    Raises:
      DataError: more images than near-copies are searched among.
    """
    equal, near = find_duplicates(dataset), find_near_duplicates(dataset)
    rows = counts(dataset, equal, near)
    pairs = _pairs(equal, near)
    shown = [
        Pair(_shown(dataset, first), _shown(dataset, second), correlation)
        for first, second, correlation in pairs[:SHOWN_PAIRS]
    ]
    write(
        AuditPage(dataset.name, [(a, b, c) for a, b, c in rows], shown, len(pairs), dataset.notes),
        path,
    )
    return rows


def summary(dataset: Dataset, hint: str = "") -> str:
    """One line on the equal images of a data set, with a hint at its end if there are any."""
    found = find_duplicates(dataset)
    if not found.groups:
        return "equal images: none"
    leaked = len(found.between("test", "train", "validation"))
    copies = len(found.between("validation", "train"))
    images = sum(len(group) for group in found.groups)
    return (
        f"equal images: {images:,} in {counted(len(found.groups), 'group', 'groups')}; "
        f"{counted(leaked, 'test image is', 'test images are')} also in train or validation, "
        f"{counted(copies, 'validation image', 'validation images')} in train{hint}"
    )


def _largest(found: Duplicates) -> int:
    return max((len(group) for group in found.groups), default=0)


def _pairs(equal: Duplicates, near: NearDuplicates) -> list[tuple[Example, Example, float | None]]:
    """Between parts first, then with different labels, then by correlation."""
    pairs: list[tuple[Example, Example, float | None]] = [
        (first, second, None)
        for group in equal.groups
        for first, second in itertools.islice(itertools.combinations(group, 2), _FROM_ONE_GROUP)
    ]
    pairs += [(pair.first, pair.second, pair.correlation) for pair in near.pairs]
    return sorted(
        pairs,
        key=lambda pair: (
            pair[0].part == pair[1].part,
            pair[0].label == pair[1].label,
            -1.0 if pair[2] is None else -pair[2],
        ),
    )


def _shown(dataset: Dataset, example: Example) -> Shown:
    image = dataset.splits[example.part].read_images([example.index])[0]
    return Shown(viewable(image), example.part, example.id, example.label)
