"""What detectors take, checked where it comes in."""

from __future__ import annotations

from typing import Any

import numpy as np

from cnn_jax.anomaly.neighbours import blocks
from cnn_jax.errors import DataError


def check_features(features: Any, what: str, channels: int | None = None) -> np.ndarray:
    """Features float32 or float64 `[N, D]`; float16, bfloat16 and integers become float32.

    Args:
      features: an array of NumPy or jax.
      what: of which images, for the error, such as `the normal images`.
      channels: D, where it must be a certain one.

    Raises:
      DataError: another shape, no rows or channels, or a number that is not finite.
    """
    return _checked(features, what, channels, ("N images", "D channels"))


def check_maps(maps: Any, what: str, shape: tuple[int, int, int] | None = None) -> np.ndarray:
    """Maps of features, float32 or float64 `[N, h, w, D]`; as `check_features`.

    Args:
      maps: an array of NumPy or jax.
      what: of which images, for the error.
      shape: h, w and D, where they must be certain ones.

    Raises:
      DataError: another shape, an empty one, or a number that is not finite.
    """
    axes = ("N images", "h rows", "w columns", "D channels")
    found = _checked(maps, what, None, axes)
    if shape is not None and found.shape[1:] != shape:
        raise DataError(
            f"maps of {what} are {list(found.shape)}, and the detector was fitted on maps "
            f"[N, {', '.join(map(str, shape))}]: take them from the same layers at the same size"
        )
    return found


def _checked(values: Any, what: str, channels: int | None, axes: tuple[str, ...]) -> np.ndarray:
    found = np.asarray(values)
    if found.dtype not in (np.float32, np.float64):
        found = found.astype(np.float32)
    if found.ndim != len(axes) or 0 in found.shape:
        raise DataError(
            f"features of {what} are {list(found.shape)}, not [{', '.join(axes)}], none of them 0"
        )
    if channels is not None and found.shape[-1] != channels:
        raise DataError(
            f"features of {what} have {found.shape[-1]} channels, and the detector was fitted on "
            f"{channels}: take them from the same layer of the same model"
        )
    if not all(np.isfinite(found[rows]).all() for rows in blocks(len(found), found[0].size)):
        bad = int((~np.isfinite(found).reshape(len(found), -1).all(axis=1)).sum())
        raise DataError(
            f"features of {bad} of {len(found)} of {what} are not finite: the model diverged, or "
            "its images are not scaled as it was trained"
        )
    return found
