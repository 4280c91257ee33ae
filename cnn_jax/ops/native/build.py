"""Compile the kernels, once for each version of source, oneDNN, jaxlib and compiler.

`python -m cnn_jax.ops.native` does it ahead of their first use and tells where they lie.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import jax

from cnn_jax import environment
from cnn_jax.errors import NativeError

EXTRA = "pip install 'cnn_jax[onednn]'"
_SOURCE = Path(__file__).with_name("convolution.cc")
_FLAGS = ("-std=c++17", "-O3", "-DNDEBUG", "-fPIC", "-shared", "-fopenmp")
_SECONDS = 300  # a compiler that takes longer hangs


def build() -> Path:
    """The compiled kernels: those of the user's cache, or made now (a few seconds).

    Raises:
      NativeError: oneDNN, a C++ compiler or the cache is missing, or the compiler fails.
    """
    headers = _installed("onednn-devel-cpu-gomp", "oneapi/dnnl/dnnl.hpp").parents[2]
    library = _installed("onednn-cpu-gomp", "libdnnl.so.3")
    compiler = _compiler()
    command = [
        *compiler,
        *_FLAGS,
        str(_SOURCE),
        *("-isystem", jax.ffi.include_dir(), "-isystem", str(headers)),
        *(str(library), f"-Wl,-rpath,{library.parent}"),
    ]
    caches = environment.user_cache()
    if caches is None:
        raise NativeError("no folder for compiled kernels: set XDG_CACHE_HOME to one")
    target = caches / "native" / f"onednn-{_digest(command)}.so"
    if not target.exists():
        _compile(command, target)
    return target


def _installed(package: str, name: str) -> Path:
    """A file of an installed package, wherever its installer has put it."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise NativeError(f"{package} is not installed: {EXTRA}") from None
    for file in files:
        path = Path(str(file.locate())).resolve()
        if path.as_posix().endswith(f"/{name}") and path.is_file():
            return path
    raise NativeError(f"{package} is installed without {name}: install it again: {EXTRA}")


def _compiler() -> list[str]:
    """The C++ compiler as a command: that of `CXX`, else g++ or clang++."""
    if named := os.environ.get("CXX"):
        return shlex.split(named)
    for name in ("g++", "clang++"):
        if path := shutil.which(name):
            return [path]
    raise NativeError("no C++ compiler: install g++ or clang++, or name one in CXX")


def _digest(command: list[str]) -> str:
    """Of all that the compiled file depends on."""
    digest = hashlib.sha256()
    for part in _parts(command):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]


def _parts(command: list[str]) -> Iterator[bytes]:
    for word in command:
        yield word.encode()
    for file in sorted([*_SOURCE.parent.glob("*.h"), _SOURCE]):
        yield file.read_bytes()
    for package in ("onednn-cpu-gomp", "onednn-devel-cpu-gomp", "jaxlib"):
        yield metadata.version(package).encode()
    yield _run([command[0], "--version"]).encode()


def _compile(command: list[str], target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all, also where two processes compile at once.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as folder:
            made = Path(folder) / target.name
            _run([*command, "-o", str(made)])
            os.replace(made, target)
    except OSError as error:
        raise NativeError(f"{str(target)!r} cannot be written: {error.strerror}") from error


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NativeError(f"the C++ compiler {command[0]!r} does not run: {error}") from error
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), "no message")
        raise NativeError(f"the C++ compiler {command[0]!r} failed: {first.strip()}")
    return done.stdout
