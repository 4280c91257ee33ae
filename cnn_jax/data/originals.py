"""The image files behind the examples of a data set."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from cnn_jax.data.columns import Columns
from cnn_jax.data.load import read


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
