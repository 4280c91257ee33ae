"""MNIST-format IDX files, as of MNIST, Fashion-MNIST, KMNIST and EMNIST, gzipped or not.

The format (LeCun, "The MNIST database"): two zero bytes, a byte for the type (8 is uint8),
a byte for the number of axes, the sizes as big-endian uint32, then the values in C order.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cnn_jax.data.reading import PARTS, Part, Reading, numbered_classes, numbered_ids
from cnn_jax.errors import DataError

_NAME = re.compile(
    r"(?:.*[-_])?(?P<part>train|t10k|test|val|validation)[-_](?P<what>images|labels)"
    r"[-.]idx[1-4]-ubyte(?:\.gz)?"
)
_PARTS = {
    "train": "train",
    "t10k": "test",
    "test": "test",
    "val": "validation",
    "validation": "validation",
}
_UINT8 = 8
_CHUNK = 1 << 20


def find_idx_files(folder: Path) -> dict[tuple[str, str], Path]:
    """(part, `images` or `labels`) -> file; of a file and its .gz, the file.

    Raises:
      DataError: two files for the same role.
    """
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match is None or not path.is_file():
            continue
        role = (_PARTS[match["part"]], match["what"])
        if role in found and found[role].name + ".gz" != path.name:
            raise DataError(
                f"{str(folder)!r} has two files for the {role[0]} {role[1]}: "
                f"{found[role].name!r} and {path.name!r}; keep one set in a folder"
            )
        found.setdefault(role, path)
    return found


def read_idx_folder(folder: Path) -> Reading:
    """The parts of an IDX folder; classes are named by their numbers.

    Raises:
      DataError: a file is missing or damaged, or images and labels do not fit together.
    """
    files = find_idx_files(folder)
    parts = {}
    for part in PARTS:
        if (part, "images") not in files and (part, "labels") not in files:
            continue
        for what in ("images", "labels"):
            if (part, what) not in files:
                raise DataError(f"{str(folder)!r} has no file for the {part} {what}")
        parts[part] = _read_part(part, files[part, "images"], files[part, "labels"])
    return Reading(
        parts=parts,
        classes={"label": numbered_classes(part.targets["label"] for part in parts.values())},
    )


def read_idx(path: Path) -> np.ndarray:
    """uint8 array of an IDX file.

    Nothing larger than the file's own contents is allocated, whatever its header claims.

    Raises:
      DataError: not IDX, not uint8, truncated, or with bytes after its end.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            shape = _read_header(path, file)
            values = _read_at_most(file, math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{str(path)!r} is damaged or cannot be read: {error}") from error
    if len(values) != math.prod(shape):
        problem = "is truncated" if len(values) < math.prod(shape) else "has bytes after its end"
        raise DataError(
            f"{str(path)!r} {problem}: its header promises {list(shape)} uint8; download it again"
        )
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _read_part(part: str, image_path: Path, label_path: Path) -> Part:
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.ndim not in (3, 4):
        raise DataError(f"{str(image_path)!r} has {images.ndim} axes, not 3 or 4")
    if labels.ndim != 1 or len(labels) != len(images):
        raise DataError(
            f"{str(label_path)!r} holds labels of shape {list(labels.shape)} "
            f"for {len(images)} images"
        )
    return Part(
        images=images if images.ndim == 4 else images[..., None],
        targets={"label": labels.astype(np.int32)},
        ids=numbered_ids(part, len(images)),
    )


def _read_header(path: Path, file: BinaryIO | gzip.GzipFile) -> tuple[int, ...]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(f"{str(path)!r} is not an IDX file: it begins with {magic!r}")
    if magic[2] != _UINT8:
        raise DataError(f"{str(path)!r} has IDX type {magic[2]:#04x}; only uint8 (0x08) is read")
    axes = magic[3]
    sizes = file.read(4 * axes)
    if axes == 0 or len(sizes) < 4 * axes:
        raise DataError(f"{str(path)!r} ends within its header of {axes} axes")
    shape = struct.unpack(f">{axes}I", sizes)
    if 0 in shape:
        raise DataError(f"{str(path)!r} is empty: its header says {list(shape)}")
    return shape


def _read_at_most(file: BinaryIO | gzip.GzipFile, count: int) -> bytearray:
    # Piece by piece: file.read(count) would allocate what a damaged header claims.
    values = bytearray()
    while len(values) < count:
        chunk = file.read(min(_CHUNK, count - len(values)))
        if not chunk:
            break
        values += chunk
    return values
