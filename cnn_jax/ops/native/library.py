"""The compiled kernels in this process: loaded once, and known to XLA by a name."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from dataclasses import dataclass

import jax

from cnn_jax import environment
from cnn_jax.errors import NativeError
from cnn_jax.ops.native.build import build
from cnn_jax.ops.native.problem import Problem

VARIABLE = "CNN_JAX_ONEDNN"

_lock = threading.Lock()
_NAME_BYTES = 256


@dataclass(frozen=True)
class Kernels:
    """The loaded kernels.

    Attributes:
      target: their name for `jax.ffi.ffi_call`. It holds the digest of their source, so that
        a program from the persistent compile cache never meets kernels of another source.
    """

    target: str
    library: ctypes.CDLL

    def implementation(self, problem: Problem) -> str | None:
        """oneDNN's name for the kernel that computes a problem; None if it has none."""
        words = problem.words()
        name = ctypes.create_string_buffer(_NAME_BYTES)
        status = self.library.cnn_jax_onednn_implementation(
            (ctypes.c_int64 * len(words))(*words),
            ctypes.c_int64(len(words)),
            ctypes.c_int64(environment.usable_cores()),
            name,
            ctypes.c_int64(_NAME_BYTES),
        )
        return None if status else name.value.decode()


def kernels() -> Kernels:
    """The kernels, built at their first use.

    Raises:
      NativeError: they cannot be built or loaded here; the message says why.
    """
    with _lock:
        found = _load()
    if isinstance(found, str):
        raise NativeError(found)
    return found


def unavailable() -> str | None:
    """Why the kernels cannot be used here, in one line; None if they can."""
    try:
        kernels()
    except NativeError as error:
        return str(error)
    return None


@functools.cache
def _load() -> Kernels | str:
    if os.environ.get(VARIABLE, "").lower() == "off":
        return f"switched off by ${VARIABLE}"
    try:
        path = build()
    except NativeError as error:
        return str(error)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"the compiled kernels cannot be loaded: {error}"
    target = f"cnn_jax_{path.stem.replace('-', '_')}"
    jax.ffi.register_ffi_target(
        target, jax.ffi.pycapsule(library.cnn_jax_onednn_convolve), platform="cpu"
    )
    return Kernels(target, library)
