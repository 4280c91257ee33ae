"""The pairs of images that a verification protocol names, in the layout of LFW.

A `pairs.txt` (Huang et al. 2007, Labeled Faces in the Wild, sec. 3) begins with the number of
folds and of pairs, or with the number of pairs alone, of one fold:

    10 300

Then come, for each fold, so many pairs of one person, `name i j`, and so many of two people,
`name i other j`. They mean the images `name_000i` and `name_000j`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from cnn_jax.data.reading import counted, some_of
from cnn_jax.errors import DataError


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of images, in the order of the file, which is the protocol's.

    Attributes:
      indices: int64 `[P, 2]`, positions of the two images among the ids they were looked up in.
      same: bool `[P]`, whether both show one person.
      fold: int64 `[P]`, from 0; the pairs of a fold follow each other.
    """

    indices: np.ndarray
    same: np.ndarray
    fold: np.ndarray

    def __len__(self) -> int:
        return len(self.same)


def read_pairs(path: str | os.PathLike[str], ids: Sequence[str] | np.ndarray) -> Pairs:
    """The pairs of a file like LFW's `pairs.txt`, as positions in `ids`.

    Fields are separated by tabs, or by blanks where a line has no tab; blank lines at the end
    are no pairs. An image is found by its file name without the ending, in whatever folder:
    `Zico/Zico_0002.png` is image 2 of Zico.

    Args:
      path: the file.
      ids: of the images, as in `Split.ids`; only those that pairs name have to be unique by file
        name.

    Raises:
      DataError: the file cannot be read or is no list of pairs (with the number of the line), or
        an image is missing or stands for several.
    """
    path = Path(path)
    lines = _lines(path)
    folds, count = _header(path, lines[0] if lines else "")
    wanted = 2 * folds * count
    if len(lines) - 1 != wanted:
        raise DataError(
            f"{str(path)!r} has {counted(len(lines) - 1, 'pair', 'pairs')}, but its first line "
            f"means {wanted:,}: {counted(folds, 'fold', 'folds')} of {count} pairs of one person "
            f"and {count} of two"
        )
    named = []
    same = np.tile(np.repeat([True, False], count), folds)
    for number, (line, of_one) in enumerate(zip(lines[1:], same.tolist(), strict=True), start=2):
        named.append(_pair(line, of_one, f"line {number} of {str(path)!r}"))
    return Pairs(
        indices=_found(path, named, ids),
        same=same,
        fold=np.repeat(np.arange(folds), 2 * count),
    )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} cannot be read: {error}") from error


def _header(path: Path, line: str) -> tuple[int, int]:
    """Number of folds, and of pairs of each sort in a fold."""
    numbers = [_positive(field) for field in line.split()]
    if len(numbers) not in (1, 2) or None in numbers:
        raise DataError(
            f"line 1 of {str(path)!r} must be the number of folds and of pairs, such as '10 300', "
            f"or of pairs alone, not {line[:40]!r}"
        )
    *folds, count = (number for number in numbers if number is not None)
    return (folds[0] if folds else 1), count


def _pair(line: str, same: bool, where: str) -> tuple[str, str]:
    """The names of both images, such as `Zico_0002`."""
    fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
    layout = "name i j, a pair of one person" if same else "name i other j, a pair of two people"
    if len(fields) != (3 if same else 4) or not all(fields):
        raise DataError(f"{where} must be {layout}, not {line[:60]!r}")
    first, i, second, j = (fields[0], fields[1], fields[0], fields[2]) if same else fields
    numbers = _positive(i), _positive(j)
    if numbers[0] is None or numbers[1] is None:
        raise DataError(f"{where} must be {layout}, with numbers from 1, not {line[:60]!r}")
    if same and numbers[0] == numbers[1]:
        raise DataError(f"{where} pairs an image with itself: {line[:60]!r}")
    if not same and first == second:
        raise DataError(f"{where} must be a pair of two people, not {line[:60]!r}")
    return f"{first}_{numbers[0]:04d}", f"{second}_{numbers[1]:04d}"


def _positive(text: str) -> int | None:
    """A number of at least 1 in ASCII digits, or None."""
    return int(text) if text.isascii() and text.isdigit() and int(text) else None


def _found(
    path: Path, named: Sequence[tuple[str, str]], ids: Sequence[str] | np.ndarray
) -> np.ndarray:
    """int64 `[P, 2]`: where the images of the pairs are among `ids`."""
    place: dict[str, int] = {}
    several = set()
    for position, name in enumerate(ids):
        stem = PurePosixPath(str(name)).stem
        if place.setdefault(stem, position) != position:
            several.add(stem)
    wanted = list(dict.fromkeys(name for pair in named for name in pair))
    missing = [name for name in wanted if name not in place]
    if missing:
        line = 2 + next(k for k, pair in enumerate(named) if missing[0] in pair)
        raise DataError(
            f"{counted(len(missing), 'image', 'images')} of {str(path)!r} cannot be found among "
            f"{len(ids):,}: {some_of(missing)} (first in line {line})"
        )
    double = [name for name in wanted if name in several]
    if double:
        raise DataError(
            f"{some_of(double)} of {str(path)!r} may be more than one image: their file names "
            "have to be unique"
        )
    return np.array([[place[a], place[b]] for a, b in named], np.int64)
