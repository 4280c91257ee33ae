"""What the file of a gallery looks like, and what SQLite's errors mean for it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from cnn_jax.errors import DataError

SCHEMA = 1
_APPLICATION = int.from_bytes(b"cnng")  # says in the file's header whose it is

TABLES = (
    """CREATE TABLE model (
      only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
      digest TEXT NOT NULL, preprocessing TEXT NOT NULL,
      dimension INTEGER NOT NULL CHECK (dimension > 0))""",
    "CREATE TABLE identities (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    """CREATE TABLE images (
      id INTEGER PRIMARY KEY,
      identity INTEGER NOT NULL REFERENCES identities ON DELETE CASCADE,
      source TEXT NOT NULL, quality REAL NOT NULL CHECK (quality > 0), embedding BLOB NOT NULL,
      UNIQUE (identity, source))""",
    """CREATE TABLE threshold (
      only_one INTEGER PRIMARY KEY CHECK (only_one = 1), fitted TEXT NOT NULL)""",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {SCHEMA}",
)

EXPLAINED = {
    sqlite3.SQLITE_BUSY: "another process has held it too long: try again",
    sqlite3.SQLITE_CORRUPT: "it is damaged and was left as it is: take a copy of it",
    sqlite3.SQLITE_NOTADB: "it is damaged and was left as it is: take a copy of it",
    sqlite3.SQLITE_FULL: "the disk is full: what was asked for was not done",
    sqlite3.SQLITE_READONLY: "it cannot be written",
    sqlite3.SQLITE_CANTOPEN: "it, or files beside it, cannot be opened",
}


def check_header(path: Path) -> None:
    """Refuse what is no gallery before SQLite opens it, and so may write beside it."""
    try:
        with open(path, "rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        raise DataError(f"no gallery {str(path)!r}: enrol somebody first") from None
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from error
    application, schema = header[68:72], header[60:64]
    if not header.startswith(b"SQLite format 3\0") or len(header) < 100:
        raise DataError(f"{str(path)!r} is not a gallery, or is damaged: it was left as it is")
    if int.from_bytes(application) != _APPLICATION:
        raise DataError(f"{str(path)!r} is a data base of something else: it was left as it is")
    if int.from_bytes(schema) != SCHEMA:
        raise DataError(
            f"{str(path)!r} has schema {int.from_bytes(schema)}, and this version of cnn_jax reads "
            f"{SCHEMA}: it was left as it is"
        )
