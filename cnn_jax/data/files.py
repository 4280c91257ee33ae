"""Finding image files: by name, in folders, and in groups."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from cnn_jax.data.decode import decode_image
from cnn_jax.data.dicom import DICOM_SUFFIXES
from cnn_jax.data.reading import some_of
from cnn_jax.errors import DataError

IMAGE_SUFFIXES = frozenset(
    [
        ".png",
        ".jpg",
        ".jpeg",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".webp",
        ".pgm",
        ".ppm",
        ".pbm",
        ".pnm",
        *DICOM_SUFFIXES,
    ]
)
GROUPS_FILE = "groups.csv"


def list_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The image files among `paths`, in their order: files as given, folders to any depth.

    The files of a folder are sorted and stand in its place. A path that comes twice is listed
    where it comes first.

    Raises:
      DataError: a path does not exist, or a folder has no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            images = [file for file in walk(path) if is_image(file)]
            if not images:
                raise DataError(
                    f"{str(path)!r} has no image files ({', '.join(sorted(IMAGE_SUFFIXES))})"
                )
            found += images
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{str(path)!r} does not exist")
    return list(dict.fromkeys(found))


def unreadable(images: Iterable[Path]) -> dict[Path, str]:
    """The image files that cannot be decoded, and why."""
    reasons = {}
    for image in images:
        try:
            decode_image(image, (1, 1, 3))
        except DataError as error:
            reasons[image] = str(error)
    return reasons


Answer = TypeVar("Answer")


def of_readable(
    images: list[Path], function: Callable[[list[Path]], Answer]
) -> tuple[Answer, list[Path], dict[Path, str]]:
    """What a function answers for image files; if some cannot be read, for the others.

    Returns:
      The answer, the images it is of, and the others with the reason.

    Raises:
      DataError: none can be read, or it is something else that the function refuses.
    """
    try:
        return function(images), images, {}
    except DataError:
        bad = unreadable(images)
        if len(bad) in (0, len(images)):
            raise
    readable = [image for image in images if image not in bad]
    return function(readable), readable, bad


def is_image(path: Path) -> bool:
    """Whether the file's name is that of an image; its contents are not looked at."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder but hidden ones, sorted in each folder, links followed.

    Raises:
      DataError: a folder cannot be listed, or a link leads back to a folder it lies in.
    """
    yield from _walk(folder, above=())


def _walk(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    try:
        resolved = folder.resolve(strict=True)
        entries = sorted(folder.iterdir())
        folders = {entry for entry in entries if entry.is_dir()}
    except (OSError, RuntimeError) as error:
        raise DataError(f"{str(folder)!r} cannot be listed: {error}") from error
    if resolved in above:
        raise DataError(f"{str(folder)!r} is a link back to a folder it lies in; remove the link")
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry in folders:
            yield from _walk(entry, (*above, resolved))
        else:
            yield entry


def read_groups(folder: Path, ids: Sequence[str]) -> np.ndarray | None:
    """str `[N]`: the group of each image by the folder's `groups.csv` (`path,group`), or None.

    A damaged file that is not listed stands alone: whoever reads it stops, or leaves it out.

    Raises:
      DataError: the file is not such a table, or does not list every image.
    """
    path = folder / GROUPS_FILE
    if not path.exists():
        return None
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{str(path)!r} cannot be read: {error}") from error
    if not rows or rows[0] != ["path", "group"] or any(len(row) != 2 for row in rows):
        raise DataError(
            f"{str(path)!r} must have the two columns path,group, named in its first line"
        )
    groups = dict(rows[1:])
    if len(groups) != len(rows) - 1:
        raise DataError(f"{str(path)!r} lists a path more than once")
    missing = [name for name in ids if name not in groups]
    # The first that could be learned from is enough; where nothing fits, none is decoded.
    if len(missing) == len(ids) or any(not _damaged(folder / name) for name in missing):
        raise DataError(f"{str(path)!r} lacks {len(missing)} images: {some_of(missing)}")
    return np.array([groups.get(name, name) for name in ids], dtype=np.str_)


def _damaged(path: Path) -> bool:
    return path.exists() and bool(unreadable([path]))
