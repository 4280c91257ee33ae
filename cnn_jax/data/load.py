"""`load`: a data set by name or path, with train, validation and test parts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import cast, get_args

from cnn_jax.data.assemble import Options, assemble
from cnn_jax.data.cifar import read_cifar10, read_cifar100
from cnn_jax.data.columns import Columns
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.decode import Fit
from cnn_jax.data.digits import read_digits
from cnn_jax.data.folder import read_class_folders
from cnn_jax.data.idx import read_idx_folder
from cnn_jax.data.known import KNOWN
from cnn_jax.data.locate import Location, locate
from cnn_jax.data.npz import read_medmnist
from cnn_jax.data.published import Published, read_published
from cnn_jax.data.reading import Reading
from cnn_jax.data.table import read_part_tables, read_table
from cnn_jax.data.tfds.folder import PREFIX
from cnn_jax.data.tfds.reading import read_tfds
from cnn_jax.data.unreadable import Unreadable
from cnn_jax.errors import DataError


def load(
    spec: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    fit: Fit = "crop",
    label: str | int | None = None,
    path_column: str | int | None = None,
    split_column: str | int | None = None,
    group_column: str | int | None = None,
    validation: float = 0.1,
    split_seed: int = 0,
    memory_limit: int = 4 * 2**30,
    group_near_duplicates: bool = False,
    masks: bool = False,
    regions: Sequence[str] = (),
    unreadable: Unreadable = "stop",
) -> Dataset:
    """A data set with the splits `train`, `validation` and `test`, in that order.

    Layouts: the digits of the package; IDX files (MNIST and its relatives); CIFAR-10 and
    CIFAR-100 files, binary or Python version; MedMNIST `.npz`; GTSRB, Oxford-IIIT Pet and
    CUB-200-2011 as their authors distribute them; a folder per class, with or without a folder
    per part above; a table of paths and labels, or one table per part; sets that TensorFlow
    Datasets prepared as ArrayRecord.

    Args:
      spec: a name such as `digits`, `mnist`, `cifar10`, `pneumoniamnist`, or the path of a
        file or folder; or `tfds:NAME[/CONFIG][:VERSION][:SPLIT]`, such as `tfds:mnist` or
        `tfds:mnist:train[:10%]` (a split asked for is taken as the train part).
      data_dir: where names are looked for; the working folder by default, and for `tfds:`
        sets $TFDS_DATA_DIR or ~/tensorflow_datasets.
      image_size: side of the square that images are brought to. By default arrays keep their
        size; files keep a size they share up to 224, or else get the median short side.
      channels: 1 or 3; by default arrays keep theirs, files get 1 if all are grey.
      fit: how another aspect ratio is met: `crop`, `pad` (black) or `stretch`.
      label: the main target, by name or 0-based position: a column of a table, or `coarse`
        of CIFAR-100, `species` of Oxford-IIIT Pet, or a feature of TFDS. Other label columns
        are kept as further targets.
      path_column, split_column, group_column: columns of a table; found by usual names.
      validation: fraction of train carved off when a test but no validation part is given
        (never more than 5,000 images). Without a test part, data is split 70/15/15.
      split_seed: seed of the splits that are made.
      memory_limit: bytes up to which files are decoded into memory; beyond, they are decoded
        once to the user's cache folder, or, where that has no room, each time they are needed.
      group_near_duplicates: keep near-copies (see `near_duplicates`) in one part where parts
        are made, as equal images always are, and give them a group in parts that exist.
      masks: also read the segmentation masks that lie beside the images of class folders.
      regions: names of what the values 1, 2, ... of the masks mean; without them masks are black
        and one other value, whichever it is, which is the region `lesion`.
      unreadable: what is done about files that are damaged or no images: `stop` names them and
        raises; `leave-out` goes on without them, and without files of several pictures, such as
        animations, of which otherwise the first counts; `Dataset.unread` names them.

    Raises:
      DataError: the data cannot be found or read, or does not fit together.
    """
    options = Options(
        image_size=image_size,
        channels=channels,
        fit=fit,
        validation=validation,
        split_seed=split_seed,
        memory_limit=memory_limit,
        group_near_duplicates=group_near_duplicates,
        unreadable=unreadable,
    )
    columns = Columns(path=path_column, label=label, split=split_column, group=group_column)
    name, reading = read(spec, data_dir, columns, masks=masks, regions=regions)
    dataset = assemble(reading, options, name)
    if name not in KNOWN:
        return dataset
    known = KNOWN[name]
    # A column of groups that the caller names tells apart what the files of the source do not.
    notes = known.notes(name) if group_column is None else ()
    return dataset.replace(
        licence=dataset.licence or known.licence,
        citation=dataset.citation or known.citation,
        notes=(*dataset.notes, *notes),
    )


def read(
    spec: str,
    data_dir: str | os.PathLike[str] | None,
    columns: Columns,
    *,
    masks: bool = False,
    regions: Sequence[str] = (),
) -> tuple[str, Reading]:
    """The name of a data set and what is on disk of it, before parts are made.

    Raises:
      DataError: the data cannot be found or read.
    """
    if regions and not masks:
        raise DataError("data.regions names what masks show: set data.masks, too")
    if spec.startswith(PREFIX):
        _check_no_masks(spec, masks)
        return read_tfds(spec, data_dir, columns)
    location = locate(spec, data_dir)
    if location.layout == "class folders" and masks:
        _check_no_columns(location, columns)
        return location.name, read_class_folders(location.path, masks=True, regions=regions)
    _check_no_masks(location.name, masks)
    return location.name, _read(location, columns)


def _check_no_masks(name: str, masks: bool) -> None:
    if masks:
        raise DataError(
            f"masks are read beside the images of folders, and {name!r} is none: lay its files "
            "out in folders, or give arrays (from_arrays, masks=)"
        )


def _check_no_columns(location: Location, columns: Columns) -> None:
    if columns.path is not None or columns.split is not None or columns.group is not None:
        raise DataError(f"{location.name!r} is no table: it has no columns to choose from")


def _read(location: Location, columns: Columns) -> Reading:
    path = location.path
    if location.layout == "table":
        return read_table(path, columns)
    if location.layout == "part tables":
        return read_part_tables(path, columns)
    _check_no_columns(location, columns)
    if location.layout == "cifar100":
        return read_cifar100(path, columns.label)
    if location.layout in get_args(Published):
        return read_published(path, cast(Published, location.layout), columns.label)
    if columns.label not in (None, "label"):
        raise DataError(f"{location.name!r} has one target, no other called {columns.label!r}")
    if location.layout == "digits":
        return read_digits()
    if location.layout == "cifar10":
        return read_cifar10(path)
    if location.layout == "class folders":
        return read_class_folders(path)
    reading = read_idx_folder(path) if location.layout == "idx" else read_medmnist(path)
    return _with_known_names(reading, location.name)


def _with_known_names(reading: Reading, name: str) -> Reading:
    """The names of a known set's classes, which IDX and MedMNIST files do not hold."""
    names = KNOWN[name].classes if name in KNOWN else ()
    if len(names) < len(reading.classes["label"]):
        return reading
    return Reading(reading.parts, {"label": names}, reading.kinds, reading.notes)
