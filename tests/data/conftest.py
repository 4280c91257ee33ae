"""Small image sets written to disk."""

import gzip
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """What is kept for later runs stays with the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


@pytest.fixture
def write_image():
    """Writes a small image of one colour (or grey value) and returns its path.

    Without a value each call has its own, since equal images are kept in one part.
    """
    values = itertools.count()

    def write(path, value=None, size=(6, 5), mode="L"):
        path = Path(path)
        value = next(values) % 256 if value is None else value
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size, value).save(path)
        return path

    return write


@pytest.fixture
def write_idx():
    """Writes a uint8 array as an IDX file by the format's published layout."""

    def write(path, array):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        contents = header + array.tobytes()
        path.write_bytes(gzip.compress(contents) if path.suffix == ".gz" else contents)
        return path

    return write


@pytest.fixture
def rng():
    return np.random.default_rng(0)
