"""What `unpickle` calls in place of the NumPy functions that a pickle of arrays names.

Each checks what it is given, refuses all that is not an array of numbers, and makes nothing
larger than the bytes it was given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from cnn_jax.errors import DataError

Constructor = Callable[..., object]

_MOST_AXES = 64  # NumPy's own limit
_NUMERIC = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")


@dataclass(frozen=True)
class Name:
    """A name of the table, on the stack until it is called."""

    module: str
    name: str
    construct: Constructor


@dataclass(eq=False)
class Unfinished:
    """An object that a later BUILD instruction gives its state."""

    finish: Callable[[Any], object]
    memo_keys: list[int] = field(default_factory=list)


def _only_named(*_: object) -> NoReturn:
    raise DataError("it calls numpy.ndarray, which may only be named")


def _array(kind: Any, shape: Any, _typecode: Any) -> Unfinished:
    """`numpy.core.multiarray._reconstruct`: an array without its state."""
    if type(kind) is not Name or (kind.module, kind.name) != ("numpy", "ndarray"):
        raise DataError("it makes an array of a type that is not numpy.ndarray")
    if shape != (0,):
        raise DataError("it makes an array with memory that it does not fill")
    return Unfinished(_array_of_state)


def _array_of_state(state: Any) -> np.ndarray:
    *version, shape, dtype, is_fortran, values = state
    if version not in ([], [1]):
        raise ValueError("an array has a state of unknown version")
    return _array_of_bytes(values, dtype, shape, "F" if is_fortran else "C")


def _array_of_bytes(values: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """An array over bytes (str is Latin-1), which must be exactly as many as it needs."""
    if type(values) is list:
        raise DataError("an array holds Python objects; save it again as a numeric array")
    if not isinstance(dtype, np.dtype) or order not in ("C", "F") or type(shape) is not tuple:
        raise ValueError("an array has no dtype, shape or order")
    if len(shape) > _MOST_AXES or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"an array has {len(shape)} axes, or sizes that are no sizes")
    raw = values.encode("latin1") if isinstance(values, str) else values
    if type(raw) not in (bytes, bytearray) or len(raw) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} has not the bytes it promises")
    return np.frombuffer(raw, dtype).reshape(shape, order=order)


def _dtype(code: Any, align: Any = False, copy: Any = False) -> Unfinished:
    """`numpy.dtype`: its byte order comes with its state."""
    if type(code) is not str or not _NUMERIC.fullmatch(code) or align not in (0, 1):
        # What is not text may be of any size when it is written out.
        shown = repr(code[:100]) if type(code) is str else f"of {type(code).__name__}"
        raise DataError(f"an array has dtype {shown}; only numeric ones are read")

    def finish(state: Any) -> np.dtype:
        _, byte_order, *rest = state
        if byte_order not in ("|", "<", ">", "=") or rest[:5] != [None, None, None, -1, -1]:
            raise DataError("an array has a dtype with fields or parts; only numeric ones are read")
        return np.dtype(code).newbyteorder("=" if byte_order == "|" else byte_order)

    return Unfinished(finish)


def _scalar(dtype: Any, values: Any) -> object:
    return _array_of_bytes(values, dtype, (), "C")[()]


def _encode(text: Any, encoding: Any) -> bytes:
    """`_codecs.encode`, by which protocols 0 to 2 write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise DataError("it encodes text other than Latin-1 bytes")
    return text.encode("latin1")


def _empty_bytes(*arguments: object) -> bytes:
    if arguments:
        raise DataError("it calls bytes with arguments")
    return b""


def _empty_dict(*arguments: object) -> dict[Any, Any]:
    if arguments:
        raise DataError("it calls OrderedDict with arguments")
    return {}


# NumPy 2 renamed `numpy.core`.
_CORES = ("numpy.core", "numpy._core")
CONSTRUCTORS: Mapping[tuple[str, str], Constructor] = {
    **{(f"{core}.multiarray", "_reconstruct"): _array for core in _CORES},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _array_of_bytes for core in _CORES},
    ("numpy", "ndarray"): _only_named,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): _empty_dict,
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytes"): _empty_bytes,
}
