"""Fitted detectors as arrays by name, to be kept in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from cnn_jax.anomaly.distances import Mahalanobis, Neighbours, Reconstruction
from cnn_jax.anomaly.patches import Padim, PatchCore
from cnn_jax.errors import DataError

Fitted = Mahalanobis | Neighbours | Reconstruction | Padim | PatchCore

T = TypeVar("T", bound=Fitted)


def arrays_of(fitted: Fitted) -> dict[str, np.ndarray]:
    """Every attribute as an array in C order, numbers as arrays without axes; not what is None."""
    values = {field.name: getattr(fitted, field.name) for field in fields(fitted)}
    return {
        name: np.asarray(value, order="C") for name, value in values.items() if value is not None
    }


def of_arrays(kind: type[T], arrays: Mapping[str, np.ndarray]) -> T:
    """The detector that `arrays_of` was given; its scores are the same, bit for bit.

    Args:
      kind: its type.
      arrays: as `arrays_of` gave them, in C order.

    Raises:
      DataError: one is missing.
    """
    found: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in arrays:
            array = arrays[field.name]
            # Annotations are text here: numbers and tuples of them were no arrays.
            found[field.name] = array if field.type == "np.ndarray" else _plain(array)
        elif "None" in str(field.type):
            found[field.name] = None
        else:
            raise DataError(f"a fitted {kind.__name__} has {field.name!r}, and it is not there")
    return kind(**found)


def _plain(array: np.ndarray) -> object:
    """A number, or a tuple of them."""
    return array.item() if array.ndim == 0 else tuple(array.tolist())
