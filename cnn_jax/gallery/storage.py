"""The file of a gallery: one SQLite data base, from which what is removed is gone.

It is written ahead (WAL), so that a process that is killed leaves all of a transaction or nothing,
and readers never wait for a writer. WAL needs memory shared among the processes: the file must lie
on a disk of this machine, not on a network share.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_jax.errors import DataError
from cnn_jax.gallery.file_format import EXPLAINED, TABLES, check_header
from cnn_jax.gallery.templates import templates_of

_WAIT = 30.0  # seconds, for another process to end its transaction
# Embeddings of a source that are as near as this are of one picture, embedded on two machines.
_SAME = 1 - 1e-4


@dataclass(frozen=True)
class EmbeddingModel:
    """What makes the embeddings of a gallery.

    Attributes:
      digest: of the network and of how images become its input; templates of another are refused.
      dimension: numbers in an embedding.
      preprocessing: how images become the network's input, in words or JSON.
    """

    digest: str
    dimension: int
    preprocessing: str = ""


@dataclass(frozen=True, eq=False)
class Enrolled:
    """All that is enrolled, at one moment.

    Attributes:
      names: P names, in the order in which they were first enrolled.
      first: int64 `[P]`, the first image of each.
      units: float32 `[N, D]`, of unit length; an identity's images one after the other.
      quality: float64 `[N]`.
      version: changes when another process changes the file.
    """

    names: tuple[str, ...]
    first: np.ndarray
    units: np.ndarray
    quality: np.ndarray
    version: int


class Storage:
    """An open file. One thread uses it at a time, the one that opened it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._explained():
            self._connection = sqlite3.connect(path, timeout=_WAIT, isolation_level=None)
        try:
            with self._explained():
                self._run("PRAGMA secure_delete = ON")
                self._run("PRAGMA foreign_keys = ON")
                self._run("PRAGMA temp_store = MEMORY")  # no copy of templates in another folder
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, path: Path) -> Storage:
        """A gallery that is there.

        Raises:
          DataError: there is none, it is damaged, or of another schema.
        """
        check_header(path)
        found = cls(path)
        try:
            with found._explained():
                # A mark in the file, which is made once in its life.
                if not found._insist("PRAGMA journal_mode = WAL"):
                    raise DataError(f"{str(path)!r}: {EXPLAINED[sqlite3.SQLITE_BUSY]}")
                _ = found.model
        except BaseException:
            found.close()
            raise
        return found

    @classmethod
    def create(cls, path: Path, model: EmbeddingModel) -> Storage:
        """A new gallery; or the one that is there by now.

        Raises:
          DataError: a file that is no gallery is in its place, or it cannot be written.
        """
        if path.exists() and path.stat().st_size:
            return cls.open(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot make {str(path.parent)!r}: {error.strerror}") from error
        made = cls(path)
        try:
            with made._transaction():
                if not made._one("SELECT count(*) FROM sqlite_master")[0]:
                    for statement in TABLES:
                        made._run(statement)
                    made._run(
                        "INSERT INTO model VALUES (1, ?, ?, ?)",
                        (model.digest, model.preprocessing, model.dimension),
                    )
        finally:
            made.close()
        return cls.open(path)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def model(self) -> EmbeddingModel:
        """What its embeddings are made by."""
        with self._explained():
            found = self._one("SELECT digest, dimension, preprocessing FROM model")
        return EmbeddingModel(*found)

    @property
    def version(self) -> int:
        """Changes when another process, or another connection, has changed the file."""
        with self._explained():
            return int(self._one("PRAGMA data_version")[0])

    def counts(self) -> dict[str, int]:
        """Name -> number of images."""
        with self._explained():
            return dict(
                self._run(
                    "SELECT name, count(*) FROM identities JOIN images "
                    "ON identity = identities.id GROUP BY identity ORDER BY identity"
                )
            )

    def sources(self, name: str) -> tuple[str, ...]:
        """The sources of an identity's images; none of one that is not enrolled."""
        with self._explained():
            rows = self._run(
                "SELECT source FROM images JOIN identities ON identity = identities.id "
                "WHERE name = ? ORDER BY images.id",
                (name,),
            )
            return tuple(source for (source,) in rows)

    def read(self) -> Enrolled:
        """All templates.

        Raises:
          DataError: an embedding is damaged.
        """
        dimension = self.model.dimension
        with self._explained(), self._transaction("BEGIN"):
            # The first read fixes the moment of which all the others are.
            identities = dict(self._run("SELECT id, name FROM identities ORDER BY id").fetchall())
            version = self.version
            rows = self._run(
                "SELECT identity, quality, embedding FROM images ORDER BY identity, id"
            ).fetchall()
        owners = np.array([row[0] for row in rows], np.int64)
        owned, first = np.unique(owners, return_index=True)
        units = self._units([row[2] for row in rows], dimension)
        if owned.tolist() != list(identities):
            raise self._damaged()
        return Enrolled(
            names=tuple(identities.values()),
            first=first,
            units=units,
            quality=np.array([row[1] for row in rows], np.float64),
            version=version,
        )

    def add(
        self,
        names: Sequence[str],
        units: np.ndarray,
        quality: np.ndarray,
        sources: Sequence[str],
    ) -> int:
        """Add images, all of them or none; returns how many are new.

        Raises:
          DataError: a source is enrolled with another embedding, the images of an identity
            cancel out, or the file cannot be written.
        """
        with self._transaction():
            distinct = dict.fromkeys(names)
            self._connection.executemany(
                "INSERT OR IGNORE INTO identities (name) VALUES (?)", ((n,) for n in distinct)
            )
            owner = {
                n: self._one("SELECT id FROM identities WHERE name = ?", n)[0] for n in distinct
            }
            new = [
                row
                for row, (name, source) in enumerate(zip(names, sources, strict=True))
                if self._is_new(owner[name], name, source, units[row])
            ]
            contents = np.ascontiguousarray(units, "<f4")
            self._connection.executemany(
                "INSERT INTO images (identity, source, quality, embedding) VALUES (?, ?, ?, ?)",
                (
                    (owner[names[row]], sources[row], float(quality[row]), contents[row].tobytes())
                    for row in new
                ),
            )
            self._check_direction(owner[name] for name in dict.fromkeys(names[r] for r in new))
        return len(new)

    def _is_new(self, owner: int, name: str, source: str, unit: np.ndarray) -> bool:
        found = self._run(
            "SELECT embedding FROM images WHERE identity = ? AND source = ?", (owner, source)
        ).fetchone()
        if found is None:
            return True
        if float(self._units([found[0]], len(unit))[0] @ unit) < _SAME:
            raise DataError(
                f"{source!r} of {name!r} is enrolled already, and is another picture: remove it "
                "first, or give this one another name; nothing was changed"
            )
        return False

    def remove(self, wanted: Mapping[str, Sequence[str] | None]) -> None:
        """Remove identities, or some images of each; with its last image an identity goes too.

        Args:
          wanted: name -> sources of its images, None for all.

        Raises:
          DataError: one is not enrolled, or has no such image; or the images that are left cancel
            out. Nothing is then removed.
        """
        with self._transaction():
            for name, sources in wanted.items():
                found = self._run("SELECT id FROM identities WHERE name = ?", (name,)).fetchone()
                if found is None:
                    raise DataError(
                        f"{name!r} is not enrolled in {str(self.path)!r}: nothing was removed"
                    )
                if sources is None:
                    self._run("DELETE FROM identities WHERE id = ?", found)
                    continue
                for source in sources:
                    deleted = self._run(
                        "DELETE FROM images WHERE identity = ? AND source = ?", (*found, source)
                    )
                    if deleted.rowcount == 0:
                        raise DataError(f"{name!r} has no image {source!r}: nothing was removed")
                self._run(
                    "DELETE FROM identities WHERE id = ? AND id NOT IN "
                    "(SELECT identity FROM images)",
                    found,
                )
                self._check_direction(found)

    def erase(self) -> None:
        """Overwrite what was removed: the file is written anew, the log emptied.

        Raises:
          DataError: another process is in the way; what was removed stays so, but its bytes may
            still be found on disk.
        """
        try:
            with self._explained():
                self._run("VACUUM")
                done = self._insist("PRAGMA wal_checkpoint(TRUNCATE)")
            reason = "" if done else "another process is reading"
        except DataError as error:
            reason = str(error)
        if reason:
            raise DataError(
                f"what was removed is out of the gallery, but its bytes may still lie in "
                f"{str(self.path)!r} or beside it ({reason}): erase again"
            )

    @property
    def threshold(self) -> str | None:
        """The fitted threshold as JSON, or None."""
        with self._explained():
            found = self._run("SELECT fitted FROM threshold").fetchone()
        return None if found is None else str(found[0])

    def write_threshold(self, fitted: str) -> None:
        """Replace the fitted threshold."""
        with self._transaction():
            self._run("INSERT OR REPLACE INTO threshold VALUES (1, ?)", (fitted,))

    def _check_direction(self, owners: Iterable[int]) -> None:
        """Refuse a state in which the images of an identity have no mean direction."""
        dimension = self.model.dimension
        for owner in owners:
            rows = self._run(
                "SELECT quality, embedding FROM images WHERE identity = ?", (owner,)
            ).fetchall()
            if len(rows) < 2:
                continue
            units = self._units([row[1] for row in rows], dimension)
            quality = np.array([row[0] for row in rows])
            if not templates_of(units, quality, np.zeros(1, np.int64)).any():
                name = self._one("SELECT name FROM identities WHERE id = ?", owner)[0]
                raise DataError(
                    f"the images of {name!r} point in opposite directions, so that they have no "
                    "mean: they cannot be of one identity; nothing was changed"
                )

    def _units(self, contents: Sequence[bytes], dimension: int) -> np.ndarray:
        """float32 `[N, D]` of stored embeddings.

        SQLite keeps no checksums: what a bad disk made of a number is found by the length, unless
        it is too small to matter.
        """
        if any(len(content) != 4 * dimension for content in contents):
            raise self._damaged()
        units = np.frombuffer(b"".join(contents), "<f4").reshape(-1, dimension).astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.einsum("nd,nd->n", units, units)
        if not (np.abs(lengths - 1) < 1e-3).all():
            raise self._damaged()
        return units

    def _damaged(self) -> DataError:
        return DataError(f"{str(self.path)!r}: {EXPLAINED[sqlite3.SQLITE_CORRUPT]}")

    def _run(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def _one(self, statement: str, *values: object) -> tuple:
        return tuple(self._run(statement, values).fetchone())

    @contextlib.contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        with self._explained():
            self._run(begin)
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has rolled it back already
                    self._run("ROLLBACK")
                raise

    def _insist(self, statement: str) -> bool:
        """Run what SQLite does not wait for locks in by itself; whether it was done in time."""
        give_up = time.monotonic() + _WAIT
        while True:
            try:
                if self._one(statement)[0] != 1:  # a checkpoint that was hindered says 1
                    return True
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            if time.monotonic() > give_up:
                return False
            time.sleep(0.01)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            said = EXPLAINED.get(code, str(error))
            raise DataError(f"{str(self.path)!r}: {said}") from error
