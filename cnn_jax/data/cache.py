"""What was computed from a data set once, kept for the next time.

A file `audit/KIND-DIGEST.npz` in the user's cache folder (`environment.user_cache`):
`$XDG_CACHE_HOME/cnn_jax`, or else `~/.cache/cnn_jax`. It may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from cnn_jax import environment
from cnn_jax.data.npz import read_npz
from cnn_jax.errors import DataError
from cnn_jax.whole_files import whole_file

Arrays = Mapping[str, np.ndarray]

_CHECK = "sha256"


def load_or_compute(kind: str, digest: str, compute: Callable[[], Arrays]) -> Arrays:
    """The arrays kept under (kind, digest), or else those that `compute` gives.

    A damaged file is not trusted: its arrays are computed again. A folder that cannot be
    written only means that nothing is kept.

    Args:
      kind: what the arrays are, with a version where its computation has changed.
      digest: of everything that the arrays follow from.
      compute: arrays by name, without Python objects.
    """
    folder = environment.user_cache()
    if folder is None:
        return compute()
    path = folder / "audit" / f"{kind}-{digest}.npz"
    kept = _read(path)
    if kept is not None:
        return kept
    arrays = compute()
    with contextlib.suppress(OSError):
        _write(path, arrays)
    return arrays


def _read(path: Path) -> Arrays | None:
    try:
        arrays = read_npz(path)
    except DataError:  # absent or damaged
        return None
    check = arrays.pop(_CHECK, None)
    return arrays if check is not None and str(check) == _checksum(arrays) else None


def _write(path: Path, arrays: Arrays) -> None:
    # Where two processes meet, the checksum tells a reader what is whole.
    with whole_file(path) as file:
        np.savez(file, **{**arrays, _CHECK: np.array(_checksum(arrays))})  # type: ignore[arg-type]


def _checksum(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
