"""The last steps for every data set: splits, decoding, checks, digest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from cnn_jax.data.dataset import Dataset, Split
from cnn_jax.data.decode import Fit, check_fit
from cnn_jax.data.decoded import keep_decoded
from cnn_jax.data.digest import dataset_digest
from cnn_jax.data.groups import keep_copies_together, keep_near_copies_together
from cnn_jax.data.masks import read_masks
from cnn_jax.data.reading import PARTS, ImageList, Part, Reading, counted, some_of
from cnn_jax.data.sources import (
    DEEP,
    ImageFiles,
    check_images,
    choose_shape,
    conform_arrays,
    read_into_memory,
)
from cnn_jax.data.splits import LEAK, complete_splits, leak_notes
from cnn_jax.data.unreadable import Unreadable, without_unreadable
from cnn_jax.errors import DataError

# Of 255: files of 12 bits in 16 reach 15.
_DARK = 64


@dataclass(frozen=True)
class Options:
    """How what was read becomes a data set; the fields are those of `load`."""

    image_size: int | None = None
    channels: int | None = None
    fit: Fit = "crop"
    validation: float = 0.1
    split_seed: int = 0
    memory_limit: int = 4 * 2**30
    group_near_duplicates: bool = False
    unreadable: Unreadable = "stop"

    def __post_init__(self) -> None:
        check_fit(self.fit)
        if self.unreadable not in get_args(Unreadable):
            raise DataError(
                f"unreadable must be one of {', '.join(get_args(Unreadable))}, "
                f"not {self.unreadable!r}"
            )
        if self.image_size is not None and self.image_size < 1:
            raise DataError(f"image_size must be at least 1, not {self.image_size}")
        if self.channels not in (None, 1, 3):
            raise DataError(f"channels must be 1 or 3, not {self.channels}")


def assemble(reading: Reading, options: Options, name: str) -> Dataset:
    """The data set of what a reader found.

    Raises:
      DataError: fewer than two classes, parts that cannot be made, or damaged images.
    """
    left_out: dict[str, str] = {}
    if options.unreadable == "leave-out":
        reading, left_out = without_unreadable(reading)
    try:
        given, pixel_notes = _decoded(reading, options)
    except DataError:
        # What stopped at a header, or in the first part, does not know of damage further on.
        check_images(_encoded(reading))
        raise
    copy_notes: tuple[str, ...] = ()
    as_given = given
    if options.group_near_duplicates:
        given, copy_notes = keep_near_copies_together(given)
    elif "train" in given and len(given) < len(PARTS):
        given["train"], copy_notes = keep_copies_together(given["train"])
    splits, split_notes = complete_splits(
        given, validation=options.validation, seed=options.split_seed
    )
    if options.group_near_duplicates:
        others = [note for note in split_notes if not note.startswith(LEAK)]
        split_notes = (*leak_notes(as_given, given), *others)
    class_notes = _check_classes(name, splits, reading)
    return Dataset(
        name=name,
        splits=splits,
        classes=reading.classes,
        kinds=reading.kinds,
        digest=dataset_digest(splits),
        licence=reading.licence,
        citation=reading.citation,
        notes=(
            *reading.notes,
            *_left_out(left_out),
            *pixel_notes,
            *copy_notes,
            *split_notes,
            *class_notes,
        ),
        regions=reading.regions,
        unread=left_out,
    )


def _left_out(unread: Mapping[str, str]) -> tuple[str, ...]:
    if not unread:
        return ()
    return (f"Files left out as they cannot be read: {len(unread)} ({some_of(list(unread))}).",)


def _decoded(reading: Reading, options: Options) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The parts with their images in memory, or else on disk, where they fit."""
    given, notes = _with_pixels(reading, options)
    size = sum(len(split) * math.prod(split.image_shape) for split in given.values())
    if size <= options.memory_limit:
        read = {part: read_into_memory(split) for part, split in given.items()}
        return read, (*notes, *_dark(read, notes))
    given, cache_notes = keep_decoded(given)
    return given, (*notes, *cache_notes)


def _dark(splits: Mapping[str, Split], notes: Sequence[str]) -> tuple[str, ...]:
    """A note where files of 16 bits use so few of them that little is left in 8."""
    if not any(DEEP in note for note in notes):
        return ()
    brightest = max(int(split.images.max()) for split in splits.values())  # type: ignore[union-attr]
    if brightest >= _DARK:
        return ()
    return (
        f"The brightest pixel of all is {brightest} of 255: these files use few of their 16 bits, "
        "such as 12. Stretch their values to 0..65535 first, or contrast is lost.",
    )


def _encoded(reading: Reading) -> list[ImageList]:
    images_of = [part.images for part in reading.parts.values()]
    return [images for images in images_of if not isinstance(images, np.ndarray)]


def _with_pixels(reading: Reading, options: Options) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The parts as splits whose images all have one shape; files are not yet decoded."""
    encoded = _encoded(reading)
    notes: tuple[str, ...] = ()
    if reading.image_shape is not None:
        height, width, channels = reading.image_shape
        size = options.image_size
        shape = (size or height, size or width, options.channels or channels)
    elif encoded:
        shape, notes = choose_shape(encoded, options.image_size, options.channels)
    splits = {}
    for name, part in reading.parts.items():
        images: np.ndarray | ImageFiles
        if isinstance(part.images, np.ndarray):
            images = conform_arrays(part.images, options.image_size, options.channels, options.fit)
        else:
            images = ImageFiles(part.images, shape, options.fit)
        masks, mask_notes = _masks(name, part, images, options, reading)
        splits[name] = Split(images, part.targets, part.ids, part.groups, masks)
        notes = (*notes, *mask_notes)
    return splits, notes


def _masks(
    name: str, part: Part, images: np.ndarray | ImageFiles, options: Options, reading: Reading
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The masks of a part in memory, and a note on what was lost outside of the crop."""
    if part.masks is None or isinstance(part.masks, np.ndarray):
        return part.masks, ()
    assert isinstance(images, ImageFiles)  # mask files lie beside image files
    masks, lost = read_masks(
        images.images,
        part.masks,
        images.shape[:2],
        options.fit,
        reading.regions,
        named=reading.named_regions,
    )
    if not lost:
        return masks, ()
    size = f"{images.shape[0]}×{images.shape[1]}"
    found = counted(lost, f"{name} mask", f"{name} masks")
    return masks, (
        f"{found} lost a part outside of the crop to {size}: it counts as background, in every "
        "figure, too. data.fit pad or stretch shows the whole of each image.",
    )


def _check_classes(name: str, splits: Mapping[str, Split], reading: Reading) -> tuple[str, ...]:
    """Refuse data of one class; note the classes that a part has no image of.

    Where masks are learned the classes only stratify the parts.
    """
    if reading.kinds["label"] != "class" or reading.regions:
        return ()
    classes = reading.classes["label"]
    labels = np.concatenate([split.targets["label"] for split in splits.values()])
    if len(np.unique(labels)) < 2:
        raise DataError(
            f"all {len(labels)} images of {name!r} are of one class: at least two are needed"
        )
    notes = []
    for part, split in splits.items():
        present = set(split.targets["label"].tolist())
        if absent := [name for k, name in enumerate(classes) if k not in present]:
            notes.append(
                f"{len(absent)} of {len(classes)} classes have no {part} image: {some_of(absent)}."
            )
    return tuple(notes)
