"""The official binary files of CIFAR-10 and CIFAR-100 (Krizhevsky 2009).

A record is one label byte (CIFAR-100: the coarse label, then the fine one) followed by 3,072
bytes: the red, green and blue planes of a 32 x 32 image, each row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cnn_jax.data.reading import Part, Reading, main_target_first, numbered_ids
from cnn_jax.errors import DataError

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE

CIFAR10_FILES = {
    "train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
    "test": ("test_batch.bin",),
}
CIFAR100_FILES = {"train": ("train.bin",), "test": ("test.bin",)}


def read_cifar10(folder: Path) -> Reading:
    """CIFAR-10: 10 classes, named by `batches.meta.txt` where it is present.

    Raises:
      DataError: a batch is missing, is not a whole number of records, or has a label over 9.
    """
    classes = {"label": _class_names(folder / "batches.meta.txt", 10)}
    return Reading(parts=_read_parts(folder, CIFAR10_FILES, classes), classes=classes)


def read_cifar100(folder: Path, label: str | int | None = None) -> Reading:
    """CIFAR-100: `label` is the fine label (100 classes) and `coarse` the other (20 classes).

    With `label="coarse"` the coarse one becomes `label` and the other is called `fine`.

    Raises:
      DataError: as `read_cifar10`, or another label is asked for.
    """
    main, _ = main_target_first(["fine", "coarse"], label, "cifar100")
    columns = {
        "coarse": _class_names(folder / "coarse_label_names.txt", 20),
        "fine": _class_names(folder / "fine_label_names.txt", 100),
    }
    classes = {"label" if name == main else name: names for name, names in columns.items()}
    return Reading(
        parts=_read_parts(folder, CIFAR100_FILES, classes),
        classes=classes,
        kinds=dict.fromkeys(classes, "class"),
    )


def _read_parts(
    folder: Path, files: Mapping[str, tuple[str, ...]], classes: Mapping[str, tuple[str, ...]]
) -> dict[str, Part]:
    """The parts; the label bytes of a record are the targets in the order of `classes`."""
    parts = {}
    for part, names in files.items():
        records = np.concatenate([_read_records(folder / name, classes) for name in names])
        planes = records[:, len(classes) :].reshape(-1, 3, _SIDE, _SIDE)
        parts[part] = Part(
            images=np.ascontiguousarray(planes.transpose(0, 2, 3, 1)),
            targets={name: records[:, k].astype(np.int32) for k, name in enumerate(classes)},
            ids=numbered_ids(part, len(records)),
        )
    return parts


def _read_records(path: Path, classes: Mapping[str, tuple[str, ...]]) -> np.ndarray:
    length = len(classes) + _PIXELS
    try:
        values = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    if len(values) == 0 or len(values) % length:
        raise DataError(
            f"{str(path)!r} is truncated or damaged: {len(values)} bytes are not a whole number "
            f"of records of {length} bytes; download it again"
        )
    records = values.reshape(-1, length)
    for k, (name, names) in enumerate(classes.items()):
        bad = np.flatnonzero(records[:, k] >= len(names))
        if len(bad):
            raise DataError(
                f"{str(path)!r} is damaged: record {bad[0]} has {name} {records[bad[0], k]}, "
                f"outside 0..{len(names) - 1}"
            )
    return records


def _class_names(path: Path, count: int) -> tuple[str, ...]:
    if not path.exists():
        return tuple(str(k) for k in range(count))
    try:
        names = tuple(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} cannot be read as class names: {error}") from error
    if len(names) != count:
        raise DataError(f"{str(path)!r} has {len(names)} class names, not {count}")
    return names
