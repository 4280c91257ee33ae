"""Which features of a TFDS set are image, label, further targets, id and group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cnn_jax.data.columns import Columns
from cnn_jax.data.reading import main_target_first
from cnn_jax.data.tfds.folder import import_tfds
from cnn_jax.errors import DataError

FieldKind = Literal["class", "multilabel", "text", "integer"]

# Text features that are ids where their values are unique, by the names TFDS gives them.
_ID_NAMES = ("id", "file_name", "filename", "image/filename")
_GROUP_NAME = "group"


@dataclass(frozen=True)
class Field:
    """A feature that can be a target.

    Attributes:
      feature: its name in the records.
      kind: `class` (ClassLabel), `multilabel` (Sequence of ClassLabel), `text`, `integer`.
      classes: names of the classes; empty for text and integers, whose values decide.
    """

    feature: str
    kind: FieldKind
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fields:
    """What the features of a set mean to us.

    Attributes:
      image: name of the image feature.
      image_shape: (H, W, C) of every image, or None where it varies.
      targets: target name -> feature; the main one is `label` and comes first.
      ids: text features that may be ids, best first.
      group: the feature of groups, or None.
      unused: names of the features that are left aside.
    """

    image: str
    image_shape: tuple[int, int, int] | None
    targets: Mapping[str, Field]
    ids: tuple[str, ...]
    group: str | None
    unused: tuple[str, ...]

    def names(self) -> Iterator[str]:
        """The features that are read, but for the image."""
        yield from (field.feature for field in self.targets.values())
        yield from self.ids
        if self.group is not None:
            yield self.group


def choose_fields(info: Any, columns: Columns, where: str) -> Fields:
    """The meaning of the features in a `tfds.core.DatasetInfo`.

    The label is the one asked for; else that of the supervised keys; else the feature called
    `label`; else the only one that can be. Every other ClassLabel is a further target.

    Raises:
      DataError: no image, or several; no label, or several; or what was asked for is absent.
    """
    nested = isinstance(info.features, import_tfds().features.FeaturesDict)
    features = dict(info.features.items()) if nested else {}
    keys = _supervised(info)
    image = _image(features, keys, where)
    candidates = {
        name: field for name, value in features.items() if (field := _field(name, value, where))
    }
    main = _main(candidates, columns.label, keys, where)
    targets = {"label": candidates[main]}
    for name, field in candidates.items():
        if name != main and field.kind in ("class", "multilabel"):
            # A feature called `label` that is not the main target may not take its name.
            targets["other label" if name == "label" else name] = field
    group = _group(candidates, columns.group, where)
    read = {field.feature for field in targets.values()} | {image, group}
    ids = tuple(n for n in _ID_NAMES if n not in read and _is_text(candidates, n))
    return Fields(
        image=image,
        image_shape=_image_shape(features[image]),
        targets=targets,
        ids=ids,
        group=group,
        unused=tuple(sorted(set(features) - read - set(ids))),
    )


def _supervised(info: Any) -> list[str]:
    """The names among the supervised keys, in whichever order the set gives them."""
    return [key for key in info.supervised_keys or () if isinstance(key, str)]


def _image(features: Mapping[str, Any], keys: list[str], where: str) -> str:
    core = import_tfds().features
    images = [
        name
        for name, feature in features.items()
        if isinstance(feature, core.Image) and not isinstance(feature, core.LabeledImage)
    ]
    if not images:
        raise DataError(
            f"{where} has no image feature at its top level; its features are "
            f"{', '.join(map(repr, features)) or 'not named'}"
        )
    named = [name for name in images if name in keys]
    if len(images) > 1 and len(named) != 1:
        raise DataError(
            f"{where} has several image features and does not say which is the input: "
            f"{', '.join(map(repr, images))}"
        )
    image = named[0] if named else images[0]
    dtype = np.dtype(features[image].np_dtype)
    if dtype.kind != "u":
        raise DataError(f"images {image!r} of {where} are {dtype}: only uint8 and uint16 are read")
    return image


def _image_shape(feature: Any) -> tuple[int, int, int] | None:
    shape = tuple(feature.shape)
    return shape if None not in shape and shape[2] in (1, 3) else None


def _field(name: str, feature: Any, where: str) -> Field | None:
    core = import_tfds().features
    if isinstance(feature, core.ClassLabel) and feature.num_classes:
        return Field(name, "class", _class_names(name, feature, where))
    if isinstance(feature, core.Sequence) and isinstance(feature.feature, core.ClassLabel):
        return Field(name, "multilabel", _class_names(name, feature.feature, where))
    if isinstance(feature, core.Text):
        return Field(name, "text")
    is_scalar = isinstance(feature, core.Tensor) and feature.shape == ()
    if is_scalar and np.dtype(feature.np_dtype).kind in "iub":
        return Field(name, "integer")
    return None


def _class_names(name: str, label: Any, where: str) -> tuple[str, ...]:
    names = tuple(label.names)
    if len(names) != label.num_classes:  # TFDS passes over this in silence
        raise DataError(
            f"{where} has {label.num_classes} classes of {name!r} but {len(names)} names for them "
            f"in '{name}.labels.txt': prepare or write the set again"
        )
    return names


def _main(
    candidates: Mapping[str, Field], asked: str | int | None, keys: list[str], where: str
) -> str:
    if asked is not None:
        return main_target_first(list(candidates), asked, where)[0]
    for name in (*keys, "label"):
        if name in candidates:
            return name
    labels = [n for n, field in candidates.items() if field.kind in ("class", "multilabel")]
    if len(labels) != 1:
        raise DataError(
            f"{where} does not say which feature is the label: choose one with --data.label, of "
            f"{', '.join(map(repr, labels or candidates)) or 'which there is none'}"
        )
    return labels[0]


def _group(candidates: Mapping[str, Field], asked: str | int | None, where: str) -> str | None:
    if asked is None:
        return _GROUP_NAME if _is_text(candidates, _GROUP_NAME) else None
    if asked not in candidates:
        raise DataError(f"{where} has no feature {asked!r} of text or numbers to group by")
    return str(asked)


def _is_text(candidates: Mapping[str, Field], name: str) -> bool:
    return name in candidates and candidates[name].kind == "text"
