"""What has arrived of a file: `NAME.part`, and a note `NAME.part.json` on where it came from."""

from __future__ import annotations

import errno
import json
from io import FileIO
from pathlib import Path
from typing import Any

from cnn_jax.errors import DataError


def note_of(part: Path) -> Path:
    """The file that remembers where a part came from."""
    return part.with_name(f"{part.name}.json")


def write_note(part: Path, address: str, response: Any) -> None:
    """Remember by what the server at an address tells whether its file has changed."""
    etag = response.headers.get("ETag", "")
    strong = etag if etag.startswith('"') else ""
    validator = strong or response.headers.get("Last-Modified", "")
    with opened(note_of(part), "wb") as note:
        write(note, json.dumps({address: validator}).encode())


def read_note(part: Path) -> dict[str, str]:
    """Address -> its validator (ETag or date); empty where nothing is remembered."""
    try:
        note = json.loads(note_of(part).read_bytes())
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in note.items() if isinstance(v, str)} if isinstance(note, dict) else {}


def size_of(part: Path) -> int:
    """Bytes that have arrived."""
    return part.stat().st_size if part.exists() else 0


def discard(part: Path) -> None:
    """Remove what has arrived and its note."""
    part.unlink(missing_ok=True)
    note_of(part).unlink(missing_ok=True)


def opened(path: Path, mode: str = "ab") -> FileIO:
    """A file to write to.

    Raises:
      DataError: it cannot be written.
    """
    # Unbuffered: what a full disk refuses must not come up again when the file is closed.
    try:
        return FileIO(path, mode)
    except OSError as error:
        raise cannot_write(path, error) from error


def write(output: FileIO, chunk: bytes) -> None:
    """Write all of some bytes.

    Raises:
      DataError: the disk is full.
    """
    try:
        while chunk:
            chunk = chunk[output.write(chunk) :]
    except OSError as error:
        raise cannot_write(Path(output.name), error) from error


def cannot_write(path: Path, error: OSError) -> DataError:
    """The error of a disk that is full or a place that may not be written."""
    advice = "free some space" if error.errno == errno.ENOSPC else "choose another --data-dir"
    return DataError(f"{str(path)!r} cannot be written: {error.strerror}; {advice}")
