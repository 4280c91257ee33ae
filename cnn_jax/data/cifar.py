"""The official files of CIFAR-10 and CIFAR-100 (Krizhevsky 2009), binary or Python version.

A record is one label byte (CIFAR-100: the coarse label, then the fine one) followed by 3,072
bytes: the red, green and blue planes of a 32 x 32 image, each row by row. The Python version
holds the same images in the same order as pickles, which `unpickle` reads without running them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cnn_jax.data.reading import Part, Reading, main_target_first, numbered_ids
from cnn_jax.errors import DataError
from cnn_jax.unpickle import unpickle

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE

_Files = Mapping[str, tuple[str, ...]]

_BINARY10 = {
    "train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
    "test": ("test_batch.bin",),
}
_BINARY100 = {"train": ("train.bin",), "test": ("test.bin",)}
_PICKLED10 = {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)}
_PICKLED100 = {"train": ("train",), "test": ("test",), "names": ("meta",)}


def find_cifar(folder: Path) -> list[Literal["cifar10", "cifar100"]]:
    """Which of the two sets have files in a folder."""
    found: list[Literal["cifar10", "cifar100"]] = []
    if _some_exist(folder, _BINARY10) or _some_exist(folder, _PICKLED10):
        found.append("cifar10")
    # `train`, `test` and `meta` are no telling names: all three must be there, as files.
    pickled = all((folder / name).is_file() for names in _PICKLED100.values() for name in names)
    if _some_exist(folder, _BINARY100) or pickled:
        found.append("cifar100")
    return found


def read_cifar10(folder: Path) -> Reading:
    """CIFAR-10: 10 classes, named by `batches.meta.txt` or `batches.meta` where it is present.

    Raises:
      DataError: a batch is missing, damaged or hostile, or has a label over 9.
    """
    if _some_exist(folder, _BINARY10):
        files, names = _BINARY10, _class_names(folder / "batches.meta.txt", 10)
    else:
        files, names = _PICKLED10, _pickled_names(folder / "batches.meta", "label_names", 10)
    classes = {"label": names}
    return Reading(parts=_read_parts(folder, files, classes), classes=classes)


def read_cifar100(folder: Path, label: str | int | None = None) -> Reading:
    """CIFAR-100: `label` is the fine label (100 classes) and `coarse` the other (20 classes).

    With `label="coarse"` the coarse one becomes `label` and the other is called `fine`.

    Raises:
      DataError: as `read_cifar10`, or another label is asked for.
    """
    main, _ = main_target_first(["fine", "coarse"], label, "cifar100")
    columns = {}
    for name, count in (("coarse", 20), ("fine", 100)):
        if _some_exist(folder, _BINARY100):
            columns[name] = _class_names(folder / f"{name}_label_names.txt", count)
        else:
            columns[name] = _pickled_names(folder / "meta", f"{name}_label_names", count)
    files = _BINARY100 if _some_exist(folder, _BINARY100) else _PICKLED100
    classes = {"label" if name == main else name: names for name, names in columns.items()}
    return Reading(
        parts=_read_parts(folder, files, classes),
        classes=classes,
        kinds=dict.fromkeys(classes, "class"),
    )


def _some_exist(folder: Path, files: _Files) -> bool:
    return any((folder / name).is_file() for part in ("train", "test") for name in files[part])


def _read_parts(
    folder: Path, files: _Files, classes: Mapping[str, tuple[str, ...]]
) -> dict[str, Part]:
    """The parts; the label bytes of a record are the targets in the order of `classes`."""
    parts = {}
    for part in ("train", "test"):
        records = np.concatenate([_read_records(folder / name, classes) for name in files[part]])
        planes = records[:, len(classes) :].reshape(-1, 3, _SIDE, _SIDE)
        parts[part] = Part(
            images=np.ascontiguousarray(planes.transpose(0, 2, 3, 1)),
            targets={name: records[:, k].astype(np.int32) for k, name in enumerate(classes)},
            ids=numbered_ids(part, len(records)),
        )
    return parts


def _read_records(path: Path, classes: Mapping[str, tuple[str, ...]]) -> np.ndarray:
    """uint8 `[N, number of targets + 3072]`."""
    binary = path.suffix == ".bin"
    records = (
        _binary_records(path, len(classes)) if binary else _pickled_records(path, len(classes))
    )
    for k, (name, names) in enumerate(classes.items()):
        bad = np.flatnonzero(records[:, k] >= len(names))
        if len(bad):
            raise DataError(
                f"{str(path)!r} is damaged: record {bad[0]} has {name} {records[bad[0], k]}, "
                f"outside 0..{len(names) - 1}"
            )
    return records


def _binary_records(path: Path, targets: int) -> np.ndarray:
    length = targets + _PIXELS
    try:
        values = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    if len(values) == 0 or len(values) % length:
        raise DataError(
            f"{str(path)!r} is truncated or damaged: {len(values)} bytes are not a whole number "
            f"of records of {length} bytes; download it again"
        )
    return values.reshape(-1, length)


def _pickled_records(path: Path, targets: int) -> np.ndarray:
    batch = _unpickle_dict(path)
    images = batch.get("data")
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.ndim != 2
        or images.shape[1] != _PIXELS
        or len(images) == 0
    ):
        raise DataError(f"{str(path)!r} is no batch of CIFAR: it has no uint8 [N, 3072] 'data'")
    keys = ("labels",) if targets == 1 else ("coarse_labels", "fine_labels")
    columns = [_label_bytes(path, key, batch.get(key), len(images)) for key in keys]
    return np.concatenate([*columns, images], axis=1)


def _label_bytes(path: Path, key: str, labels: Any, count: int) -> np.ndarray:
    """uint8 `[N, 1]` of a list of integers."""
    if not isinstance(labels, list) or len(labels) != count:
        raise DataError(f"{str(path)!r} is no batch of CIFAR: {key!r} is no list of {count} labels")
    if any(type(label) is not int or not 0 <= label <= 255 for label in labels):
        raise DataError(f"{str(path)!r} is damaged: {key!r} has values that are no labels")
    return np.array(labels, dtype=np.uint8)[:, None]


def _pickled_names(path: Path, key: str, count: int) -> tuple[str, ...]:
    if not path.exists():
        return tuple(str(k) for k in range(count))
    names = _unpickle_dict(path).get(key)
    if not isinstance(names, list) or len(names) != count:
        raise DataError(f"{str(path)!r} is damaged: {key!r} is no list of {count} class names")
    return tuple(name.decode("latin1") if isinstance(name, bytes) else str(name) for name in names)


def _unpickle_dict(path: Path) -> dict[object, Any]:
    """A pickled dict; keys that were saved as bytes become text."""
    value = unpickle(path)
    if not isinstance(value, dict):
        raise DataError(f"{str(path)!r} is no file of CIFAR: it holds {type(value).__name__}")
    return {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in value.items()}


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
