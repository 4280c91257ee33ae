"""MedMNIST `.npz` files (Yang et al. 2023): `{train,val,test}_{images,labels}`."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from cnn_jax.data.dataset import TargetKind
from cnn_jax.data.reading import PART_NAMES, Part, Reading, numbered_classes, numbered_ids, some_of
from cnn_jax.errors import DataError

# The most that deflate can compress: a member that claims more is damaged or hostile.
_LARGEST_RATIO = 1032

_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_medmnist(path: Path) -> Reading:
    """The parts of a MedMNIST file.

    Images are uint8 `[N, H, W]`, `[N, H, W, 3]`, or volumes `[N, D, H, W]`, which become
    `[N, D, H, W, 1]`. Labels `[N, 1]` or `[N]` are classes; binary `[N, K]` with K > 1 are
    multi-label.

    Raises:
      DataError: the file is damaged, holds Python objects, or its arrays are not these.
    """
    arrays = read_npz(path)
    parts, labels = {}, {}
    for prefix in ("train", "val", "test"):
        if f"{prefix}_images" not in arrays:
            continue
        if f"{prefix}_labels" not in arrays:
            raise DataError(f"{str(path)!r} has '{prefix}_images' but no '{prefix}_labels'")
        images = _channels_last(path, prefix, arrays[f"{prefix}_images"])
        part = PART_NAMES[prefix]
        labels[part] = _labels(path, prefix, arrays[f"{prefix}_labels"], len(images))
        ids = numbered_ids(part, len(images))
        parts[part] = Part(images=images, targets={"label": labels[part]}, ids=ids)
    if "train" not in parts:
        raise DataError(f"{str(path)!r} has no 'train_images'; it holds {some_of(sorted(arrays))}")
    widths = {array.shape[1:] for array in labels.values()}
    if len(widths) > 1:
        raise DataError(f"{str(path)!r} has labels of different widths in its parts")
    kind: TargetKind = "multilabel" if widths != {()} else "class"
    columns = labels["train"].shape[1] if kind == "multilabel" else 0
    classes = tuple(map(str, range(columns))) if columns else numbered_classes(labels.values())
    return Reading(parts=parts, classes={"label": classes}, kinds={"label": kind})


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Every array of an `.npz` file, without pickles.

    A member's header is compared with its size before anything is allocated.

    Raises:
      DataError: the file is damaged or holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                member.filename.removesuffix(".npy"): _read_member(path, archive, member)
                for member in archive.infolist()
            }
    except DataError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{str(path)!r} is damaged or not an .npz file: {reason}") from error


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    where = f"{member.filename!r} in {str(path)!r}"
    if member.file_size > _LARGEST_RATIO * (member.compress_size + 1):
        raise DataError(f"{where} claims to unpack to {member.file_size} bytes: it is damaged")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise DataError(f"{where} has .npy version {version}, which is not read")
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            raise DataError(
                f"{where} holds Python objects, which are never unpickled; save it again as "
                "a numeric array"
            )
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > member.file_size:
            raise DataError(f"{where} is damaged: its header promises {list(shape)} of {dtype}")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _channels_last(path: Path, prefix: str, images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim not in (3, 4, 5) or 0 in images.shape:
        raise DataError(
            f"'{prefix}_images' in {str(path)!r} is {images.dtype} {list(images.shape)}, "
            "not uint8 [N, H, W], [N, H, W, 3] or [N, D, H, W]"
        )
    has_channels = images.ndim == 5 or (images.ndim == 4 and images.shape[-1] in (1, 3))
    return images if has_channels else images[..., None]


def _labels(path: Path, prefix: str, labels: np.ndarray, count: int) -> np.ndarray:
    """int32 `[N]`, or float32 `[N, K]` for multi-label."""
    where = f"'{prefix}_labels' in {str(path)!r}"
    if labels.dtype.kind not in "iu" or labels.ndim not in (1, 2) or len(labels) != count:
        raise DataError(
            f"{where} is {labels.dtype} {list(labels.shape)}, not integers for {count} images"
        )
    if labels.ndim == 2 and labels.shape[1] == 0:
        raise DataError(f"{where} has no column")
    if labels.ndim == 1 or labels.shape[1] == 1:
        if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
            raise DataError(f"{where} has labels outside 0..{np.iinfo(np.int32).max}")
        return labels.reshape(-1).astype(np.int32)
    if not np.isin(labels, (0, 1)).all():
        raise DataError(f"{where} has {labels.shape[1]} columns, which must be 0 or 1")
    return labels.astype(np.float32)
