"""The digest that tells whether two data sets hold the same examples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn_jax.data.dataset import ImageSource, SourceView, Split
from cnn_jax.data.decoded import DecodedImages
from cnn_jax.data.sources import ImageFiles, JoinedSource


def dataset_digest(splits: Mapping[str, Split]) -> str:
    """sha256 (hex) of the names of the splits and of what they hold but for groups, in order.

    Images in memory enter as pixels. Images that are read from files when needed enter as
    the bytes of the files together with how they are decoded, since decoding them all would
    cost an epoch; the same set therefore has another digest when it is held in memory.
    """
    digest = hashlib.sha256()
    for name, split in splits.items():
        _add_text(digest, ["split", name, split.ids.tolist()])
        if isinstance(split.images, np.ndarray):
            _add_array(digest, split.images)
        else:
            for index in range(len(split)):
                _add_source_image(digest, split.images, index)
        for target in sorted(split.targets):
            _add_text(digest, ["target", target])
            _add_array(digest, split.targets[target])
        if split.masks is not None:
            _add_text(digest, ["masks"])
            _add_array(digest, split.masks)
    return digest.hexdigest()


def source_digest(source: ImageSource) -> str:
    """sha256 (hex) of the images of a source, in order; files enter as in `dataset_digest`."""
    digest = hashlib.sha256()
    for index in range(len(source)):
        _add_source_image(digest, source, index)
    return digest.hexdigest()


def _add_text(digest: Any, values: list[object]) -> None:
    encoded = json.dumps(values).encode()
    digest.update(f"{len(encoded)}:".encode())
    digest.update(encoded)


def _add_array(digest: Any, array: np.ndarray) -> None:
    _add_text(digest, [array.dtype.str, list(array.shape)])
    if array.size:
        digest.update(np.ascontiguousarray(array).data)


def _add_source_image(digest: Any, source: ImageSource, index: int) -> None:
    if isinstance(source, SourceView):
        _add_source_image(digest, source.source, int(source.indices[index]))
    elif isinstance(source, DecodedImages):
        _add_source_image(digest, source.files, index)
    elif isinstance(source, JoinedSource):
        _add_source_image(digest, *source.locate(index))
    elif isinstance(source, ImageFiles):
        encoded = source.read_bytes(index)
        _add_text(digest, ["file", list(source.shape), source.fit, len(encoded)])
        digest.update(encoded)
    else:
        _add_array(digest, source[index])
