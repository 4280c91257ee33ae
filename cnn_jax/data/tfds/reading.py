"""Reading image sets that TensorFlow Datasets (TFDS) prepared as ArrayRecord."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax.data.columns import Columns
from cnn_jax.data.dataset import TargetKind
from cnn_jax.data.decode import read_header
from cnn_jax.data.reading import (
    PART_NAMES,
    Part,
    Reading,
    encode_labels,
    numbered_classes,
    some_of,
)
from cnn_jax.data.tfds.features import Field, Fields, choose_fields
from cnn_jax.data.tfds.folder import TfdsName, parse_name, tfds_root
from cnn_jax.data.tfds.records import PreparedSet, Records
from cnn_jax.errors import DataError

# Beyond this an integer feature is a number of something, not a class.
_LARGEST_CLASS = 65535


def read_tfds(
    spec: str, data_dir: str | os.PathLike[str] | None, columns: Columns
) -> tuple[str, Reading]:
    """The name of a prepared TFDS set, and what it holds.

    Ids are the set's own (a text feature `id`, `file_name`, ... whose values are unique), or
    else the split and the position in it. Groups are those of a text feature `group`.

    Args:
      spec: `tfds:NAME...`, as `folder.parse_name` reads it.
      data_dir: where prepared sets lie; see `folder.tfds_root`.
      columns: `label` and `group` name features.

    Raises:
      DataError: the set is not prepared, not as ArrayRecord, damaged, or has no image or
        label to learn from; says what helps.
    """
    wanted = parse_name(spec)
    if columns.path is not None or columns.split is not None:
        raise DataError(f"{spec!r} is no table: name its split as in tfds:{wanted.name}:train")
    prepared = PreparedSet(wanted, tfds_root(data_dir))
    info, folder = prepared.info, prepared.folder
    fields = choose_fields(info, columns, repr(str(folder)))
    splits, notes = _splits_of_parts(info, wanted, folder)
    if fields.unused:
        notes.append(f"Features left aside: {', '.join(fields.unused)}.")
    names = list(fields.names())
    records = {part: prepared.records(split, fields.image, names) for part, split in splits.items()}
    reading = _reading(records, fields)
    return wanted.name, replace(
        reading,
        notes=(*notes, *reading.notes),
        image_shape=fields.image_shape,
        licence=info.redistribution_info.license,
        citation=info.citation,
    )


def _splits_of_parts(info: Any, wanted: TfdsName, folder: Path) -> tuple[dict[str, str], list[str]]:
    """Part -> split (or split expression) that it is read from, and notes."""
    names = list(info.splits)
    if wanted.split is not None:
        try:
            count = info.splits[wanted.split].num_examples
        except ValueError as error:
            raise DataError(
                f"{str(folder)!r} has no split {wanted.split!r}; its splits are "
                f"{', '.join(names)}, and slices such as {(names or ['train'])[0]}[:10%]"
            ) from error
        if count < 1:
            raise DataError(f"split {wanted.split!r} of {str(folder)!r} holds no example")
        return {"train": wanted.split}, []
    parts: dict[str, str] = {}
    for name in names:
        part = PART_NAMES.get(name.lower())
        if part in parts:
            raise DataError(
                f"{str(folder)!r} has two {part} splits, {parts[part]!r} and {name!r}: choose one "
                f"to be split into parts, such as tfds:{wanted.name}:{names[0]}"
            )
        if part is not None and info.splits[name].num_examples:
            parts[part] = name
    if "train" not in parts:
        raise DataError(
            f"{str(folder)!r} has no split 'train' but {', '.join(names) or 'none at all'}: name "
            f"the one to use, such as tfds:{wanted.name}:{(names or ['SPLIT'])[0]}"
        )
    unused = [name for name in names if name not in parts.values()]
    return parts, [f"Splits left aside: {', '.join(unused)}."] if unused else []


@dataclass(frozen=True, eq=False)
class _Values:
    """The values of each feature in a part, in the order of its records."""

    by_feature: Mapping[str, list[Any]]
    positions: Sequence[str]

    def text(self, feature: str) -> list[str]:
        """A feature as text."""
        return [
            value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)
            for value in self.by_feature[feature]
        ]


def _reading(records: Mapping[str, Records], fields: Fields) -> Reading:
    values = {part: _scan(held, fields) for part, held in records.items()}
    targets: dict[str, dict[str, np.ndarray]] = {part: {} for part in records}
    classes: dict[str, tuple[str, ...]] = {}
    kinds: dict[str, TargetKind] = {}
    notes = []
    for name, field in fields.targets.items():
        without = _without_label(values, field)
        if without and name != "label":
            notes.append(f"Feature {name!r} has gaps ({some_of(without)}): left out.")
            continue
        if without:
            raise DataError(
                f"{len(without)} records have no label {field.feature!r} ({some_of(without)}): "
                "name a split that is labelled, such as tfds:NAME:train"
            )
        arrays, classes[name] = _target(values, field)
        kinds[name] = "multilabel" if field.kind == "multilabel" else "class"
        for part, array in arrays.items():
            targets[part][name] = array
    id_feature = _id_feature(values, fields)
    parts = {
        part: Part(
            images=records[part],
            targets=targets[part],
            ids=np.array(
                held.positions if id_feature is None else held.text(id_feature), dtype=np.str_
            ),
            groups=_groups(held, fields.group),
        )
        for part, held in values.items()
    }
    return Reading(parts, classes, kinds, tuple(notes))


def _scan(records: Records, fields: Fields) -> _Values:
    """Every feature but the image; the image's size is compared with the stated one."""
    by_feature: dict[str, list[Any]] = {name: [] for name in fields.names()}
    for index in range(len(records)):
        image, example = records.read(index)
        if fields.image_shape is not None:
            header = read_header(image)
            if (header.height, header.width) != fields.image_shape[:2]:
                raise DataError(
                    f"{image.name} is {header.height} x {header.width}, but the set states "
                    f"{fields.image_shape[0]} x {fields.image_shape[1]}"
                )
        for name, held in by_feature.items():
            held.append(example[name])
    return _Values(by_feature, records.positions)


def _target(
    values: Mapping[str, _Values], field: Field
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Part -> int32 `[N]` or float32 `[N, K]`, and the names of the classes."""
    if field.kind == "text":
        texts = {part: held.text(field.feature) for part, held in values.items()}
        classes = tuple(sorted({text for part in texts.values() for text in part}))
        return {part: encode_labels(held, classes) for part, held in texts.items()}, classes
    if field.kind == "multilabel":
        return {part: _several(held, field) for part, held in values.items()}, field.classes
    numbers = {part: np.array(held.by_feature[field.feature]) for part, held in values.items()}
    largest = max(int(array.max(initial=0)) for array in numbers.values())
    if largest > _LARGEST_CLASS:
        raise DataError(
            f"feature {field.feature!r} has values up to {largest}: it is no number of a class"
        )
    arrays = {part: array.astype(np.int32) for part, array in numbers.items()}
    return arrays, field.classes or numbered_classes(arrays.values())


def _without_label(values: Mapping[str, _Values], field: Field) -> list[str]:
    """The records whose text is empty or whose number is below 0, which means no label."""
    if field.kind == "multilabel":
        return []
    return [
        position
        for held in values.values()
        for position, value in zip(held.positions, held.by_feature[field.feature], strict=True)
        if (not value if field.kind == "text" else value < 0)
    ]


def _several(values: _Values, field: Field) -> np.ndarray:
    """float32 `[N, K]`: 1 for each class that a record lists."""
    k = len(field.classes)
    rows = np.zeros((len(values.positions), k), dtype=np.float32)
    for row, listed in zip(rows, values.by_feature[field.feature], strict=True):
        numbers = np.asarray(listed, dtype=np.int64)
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < k):
            raise DataError(f"feature {field.feature!r} lists classes outside 0..{k - 1}")
        row[numbers] = 1
    return rows


def _groups(held: _Values, feature: str | None) -> np.ndarray | None:
    """str `[N]`; None without such a feature, or where it is empty throughout the part."""
    groups = [] if feature is None else held.text(feature)
    return np.array(groups, dtype=np.str_) if any(groups) else None


def _id_feature(values: Mapping[str, _Values], fields: Fields) -> str | None:
    """The first feature of ids whose values are given and unique in each part."""
    for feature in fields.ids:
        texts = [held.text(feature) for held in values.values()]
        if all(len(set(text)) == len(text) and "" not in text for text in texts):
            return feature
    return None
