"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file open for writing, which takes the place of `path` when the block ends well.

    Otherwise what was at `path` stays, and nothing else is left, unless the process was
    killed: the next to write the file then clears it away. Missing folders are made. One
    process at a time may write a file.

    Raises:
      OSError: it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
        temporary.replace(path)
    except BaseException:  # also Ctrl-C: nothing half-written is left
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder to fill, which gets its name when the block ends well.

    Otherwise nothing is left of it. Folders above are made.

    Args:
      path: must not exist, or be an empty folder.

    Raises:
      OSError: it cannot be written, or something is at `path` by then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.incomplete-{secrets.token_hex(4)}")
    try:
        partial.mkdir()
        yield partial
        if path.exists():
            path.rmdir()
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file as UTF-8; names of files in it may hold bytes that are none.

    Raises:
      OSError: it cannot be written.
    """
    with whole_file(path) as file:
        # Bytes of file names that are no UTF-8 come back as they were.
        file.write(text.encode("utf-8", errors="surrogateescape"))
