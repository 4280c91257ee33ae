"""What was measured to be fastest: tables of convolutions, keyed by machine and jax's version.

One comes with the library, one is the user's, written by `cnn-jax bench tune` into the cache;
the user's goes first. A table is a JSON object: machine -> convolution -> algorithm.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import jax

from cnn_jax import environment
from cnn_jax.ops.geometry import Convolution
from cnn_jax.whole_files import write_whole

Table = Mapping[str, Mapping[str, str]]


def measured(conv: Convolution) -> str | None:
    """The fastest algorithm for a convolution on this machine, if it was measured."""
    here = machine()
    for path in (user_table(), _SHIPPED):
        if path is not None and (name := read(path).get(here, {}).get(key(conv))):
            return name
    return None


def key(conv: Convolution) -> str:
    """A convolution in words: all that its time depends on."""

    def times(numbers: object) -> str:
        return "x".join(str(number) for number in numbers)  # type: ignore[attr-defined]

    layouts = (times(spec) for spec in (conv.lhs_spec, conv.rhs_spec, conv.out_spec))
    padding = times(f"{low}_{high}" for low, high in conv.padding)
    return (
        f"{conv.dtype}->{conv.out_dtype} {times(conv.lhs_shape)} * {times(conv.rhs_shape)} "
        f"strides {times(conv.strides)} padding {padding} dilation {times(conv.lhs_dilation)} "
        f"{times(conv.rhs_dilation)} groups {conv.feature_groups} {conv.batch_groups} "
        f"layout {' '.join(layouts)}"
    )


@functools.cache
def machine() -> str:
    """Processor, number of cores and jax's version, which all move the times."""
    version = ".".join(jax.__version__.split(".")[:2])
    return f"{environment.processor()}, {environment.usable_cores()} cores, jax {version}"


def user_table() -> Path | None:
    """Where `cnn-jax bench tune` keeps what it measured; None without a cache."""
    caches = environment.user_cache()
    return None if caches is None else caches / "convolutions.json"


def read(path: Path) -> Table:
    """A table; empty where there is none, and with a warning where it is damaged."""
    try:
        status = path.stat()
    except OSError:
        return {}
    return _read(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=8)
def _read(path: Path, modified: int, size: int) -> Table:
    try:
        table = json.loads(path.read_text())
        sound = isinstance(table, dict) and all(
            isinstance(entries, dict) and all(isinstance(name, str) for name in entries.values())
            for entries in table.values()
        )
    except (OSError, ValueError, RecursionError):  # the last where brackets go too deep
        sound = False
    if not sound:
        warnings.warn(
            f"{str(path)!r} is not a table of measured convolutions: it is not used; delete it",
            stacklevel=2,
        )
        return {}
    return table


def add(path: Path, entries: Mapping[str, str]) -> None:
    """Write what was measured on this machine into a table, beside what it holds.

    Args:
      entries: algorithms by `key`.

    Raises:
      OSError: it cannot be written.
    """
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):  # another may be measuring, too
        table = {name: dict(known) for name, known in read(path).items()}
        table.setdefault(machine(), {}).update(entries)
        write_whole(path, json.dumps(table, indent=1, sort_keys=True) + "\n")


_SHIPPED = Path(__file__).with_name("measured.json")
