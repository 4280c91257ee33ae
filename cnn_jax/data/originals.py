"""The files behind the examples of a data set: their images, and the masks beside them."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from cnn_jax.data.columns import Columns
from cnn_jax.data.decode import Fit
from cnn_jax.data.files import is_image, walk
from cnn_jax.data.load import read
from cnn_jax.data.locate import locate
from cnn_jax.data.masks import BACKGROUND, LESION, masks_beside, read_masks, split_off
from cnn_jax.data.tfds.folder import PREFIX


def original_files(
    spec: str,
    ids: Collection[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    path_column: str | int | None = None,
    label: str | int | None = None,
    split_column: str | int | None = None,
    group_column: str | int | None = None,
) -> dict[str, Path]:
    """Id -> image file, of those examples whose image is a file of its own.

    Nothing is decoded. An id that several parts have is left out. The other arguments are those
    of `load`.

    Raises:
      DataError: the data cannot be found or read.
    """
    columns = Columns(path=path_column, label=label, split=split_column, group=group_column)
    _, reading = read(spec, data_dir, columns)
    found: dict[str, list[Path]] = {}
    for part in reading.parts.values():
        if isinstance(part.images, np.ndarray):
            continue
        for index in np.flatnonzero(np.isin(part.ids, list(ids))).tolist():
            image = part.images[index]
            if isinstance(image, Path):
                found.setdefault(str(part.ids[index]), []).append(image)
    return {id_: paths[0] for id_, paths in found.items() if len(paths) == 1}


def original_masks(
    spec: str,
    ids: Collection[str],
    shape: tuple[int, int],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    fit: Fit = "crop",
) -> dict[str, np.ndarray]:
    """Id -> mask of those examples whose image has one beside it: of data that are classified, too.

    Args:
      spec, data_dir, fit: as of `load`. Only class folders have masks beside their images.
      ids: of the examples.
      shape: (H, W) of the images of the data set.

    Returns:
      Masks uint8 `[H, W]`, brought to the shape as their images are: 1 where something is
      marked, else 0.

    Raises:
      DataError: the data cannot be found; a mask belongs to no image, cannot be read, is of another
        size than its image, or has several values beside black.
    """
    if spec.startswith(PREFIX):
        return {}
    location = locate(spec, data_dir)
    if location.layout != "class folders":
        return {}
    folder = location.path
    images, masks = split_off(folder, [file for file in walk(folder) if is_image(file)])
    beside = dict(zip(images, masks_beside(folder, images, masks), strict=True))
    marked = {id_: folder / id_ for id_ in ids if beside.get(folder / id_)}
    values, _ = read_masks(
        list(marked.values()),
        [beside[image] for image in marked.values()],
        shape,
        fit,
        (BACKGROUND, LESION),
        named=False,
    )
    return dict(zip(marked, values, strict=True))
