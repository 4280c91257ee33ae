"""Writing a data set as an ArrayRecord set of TensorFlow Datasets (TFDS).

Records keep the order of the data set, and images are PNG, so that nothing is lost:
`load("tfds:NAME")` gives the same arrays, ids and groups.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax.data.dataset import Dataset, Split
from cnn_jax.data.reading import some_of
from cnn_jax.data.tfds.folder import import_tfds
from cnn_jax.errors import DataError
from cnn_jax.whole_files import whole_folder

VERSION = "1.0.0"

# Pixels in a shard: files of a size that copies well, few of them.
_SHARD_BYTES = 2**28

_OWN_FEATURES = ("image", "id", "group")


def write_tfds(dataset: Dataset, data_dir: str | os.PathLike[str]) -> Path:
    """Write a data set to `data_dir/NAME/1.0.0` and return that folder.

    NAME is the data set's in lower case, with `_` for what is no letter or digit. The features
    are `image`, the targets by name (ClassLabel; multi-label as Sequence of ClassLabel), `id`,
    and `group` (empty throughout a split that has none). Images are read one at a time. The
    folder appears when all is written, or not at all.

    Raises:
      DataError: the set exists already, cannot be written (a full disk), or holds what TFDS
        cannot: floating-point images, volumes, soft labels, names with line breaks.
    """
    folder = tfds_place(dataset, data_dir)
    name = folder.parent.name
    try:
        with whole_folder(folder) as partial:
            _write(dataset, name, str(partial))
    # ArrayRecord raises RuntimeError where the system refuses to write.
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"cannot write {str(folder)!r}; nothing is left there: {reason}") from error
    return folder


def tfds_place(dataset: Dataset, data_dir: str | os.PathLike[str]) -> Path:
    """The folder that `write_tfds` would write, when nothing stands against it.

    Raises:
      DataError: the set exists already, or holds what TFDS cannot.
    """
    if dataset.regions:
        raise DataError(
            f"the masks of {dataset.name!r} would be lost: sets of TFDS are written for classes"
        )
    _check(dataset)
    folder = Path(data_dir).expanduser().absolute() / tfds_name(dataset.name) / VERSION
    if folder.exists():
        raise DataError(f"{str(folder)!r} exists and is not overwritten: choose another folder")
    return folder


def tfds_name(name: str) -> str:
    """A name in the form that TFDS gives its sets, such as `my_photos_2`."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return plain if plain[:1].isalpha() else f"set_{plain}".rstrip("_")


def _write(dataset: Dataset, name: str, folder: str) -> None:
    tfds = import_tfds()
    info = tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(
            name=name, version=tfds.core.Version(VERSION), data_dir=folder, module_name=""
        ),
        description=_description(dataset),
        features=_features(dataset),
        supervised_keys=("image", "label"),
        disable_shuffling=True,
        citation=dataset.citation,
        license=dataset.licence,
    )
    writer = tfds.core.SequentialWriter(
        ds_info=info,
        max_examples_per_shard=max(1, _SHARD_BYTES // math.prod(dataset.image_shape)),
        file_format="array_record",
    )
    splits = {part: split for part, split in dataset.splits.items() if len(split)}
    writer.initialize_splits(list(splits))
    for part, split in splits.items():
        writer.add_examples({part: _examples(dataset, split)})
    writer.close_all()


def _features(dataset: Dataset) -> Any:
    core = import_tfds().features
    features = {"image": core.Image(shape=dataset.image_shape, encoding_format="png")}
    for target, classes in dataset.classes.items():
        label = core.ClassLabel(names=list(classes))
        several = dataset.kinds[target] == "multilabel"
        features[target] = core.Sequence(label) if several else label
    features["id"] = core.Text()
    if _has_groups(dataset):
        features["group"] = core.Text()
    return core.FeaturesDict(features)


def _examples(dataset: Dataset, split: Split) -> Iterator[dict[str, Any]]:
    grouped = _has_groups(dataset)
    for index in range(len(split)):
        example: dict[str, Any] = {
            "image": _png(split.images[index]),
            "id": str(split.ids[index]),
        }
        if grouped:
            example["group"] = "" if split.groups is None else str(split.groups[index])
        for name, target in split.targets.items():
            value = target[index]
            example[name] = np.flatnonzero(value).tolist() if target.ndim == 2 else int(value)
        yield example


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(encoded, "PNG")
    return encoded.getvalue()


def _description(dataset: Dataset) -> str:
    counts = ", ".join(f"{len(split)} {part}" for part, split in dataset.splits.items())
    shape = " x ".join(map(str, dataset.image_shape))
    return f"{dataset.name}: {counts} images of {shape}, as cnn_jax reads and splits them."


def _has_groups(dataset: Dataset) -> bool:
    return any(split.groups is not None for split in dataset.splits.values())


def _check(dataset: Dataset) -> None:
    """Refuse what would not come back as it is."""
    shape = dataset.image_shape
    first = next(iter(dataset.splits.values())).images
    if len(shape) != 3 or shape[2] not in (1, 3) or getattr(first, "dtype", np.uint8) != np.uint8:
        raise DataError(
            f"images of {dataset.name!r} are {getattr(first, 'dtype', 'uint8')} {list(shape)}: "
            "only uint8 images [H, W, 1] or [H, W, 3] are written as TFDS"
        )
    for target, classes in dataset.classes.items():
        where = f"target {target!r} of {dataset.name!r}"
        if target in _OWN_FEATURES or "/" in target or not target.strip():
            raise DataError(f"{where} cannot be a feature of TFDS of that name: rename it")
        if dataset.kinds[target] == "soft":
            raise DataError(f"{where} has soft labels, for which TFDS has no feature")
        bad = [c for c in classes if c != c.strip() or not c or "\n" in c or "\r" in c]
        if bad or len(set(classes)) < len(classes):
            raise DataError(
                f"{where} has classes whose names are empty, repeated, or have spaces at an end "
                f"or line breaks ({some_of(bad)}), which TFDS would change: rename them"
            )
    for part, split in dataset.splits.items():
        for target, values in split.targets.items():
            if values.ndim == 2 and not np.isin(values, (0, 1)).all():
                raise DataError(f"{target!r} in {part!r} has labels other than 0 and 1")
    _check_text(dataset)


def _check_text(dataset: Dataset) -> None:
    """Names of files may hold bytes that are no text; TFDS stores UTF-8."""
    texts = [name for classes in dataset.classes.values() for name in classes]
    for split in dataset.splits.values():
        texts += [*split.ids.tolist(), *([] if split.groups is None else split.groups.tolist())]
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{text.encode('utf-8', 'backslashreplace').decode()!r} is no Unicode text, which "
                "TFDS needs: rename the file, class or group"
            ) from error
