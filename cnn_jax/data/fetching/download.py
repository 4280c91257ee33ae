"""`download`: a data set that has a public home."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from cnn_jax import environment
from cnn_jax.data.fetching.homes import HOMES, Home
from cnn_jax.data.fetching.partial import cannot_write
from cnn_jax.data.fetching.progress import Progress
from cnn_jax.data.fetching.transfer import Patience, fetch, has_checksum
from cnn_jax.data.known import KNOWN, known_set, plain_name
from cnn_jax.errors import DataError

_LARGEST_MEMBER = 2**28
# What an archive and its contents take on disk, compared with the archive.
_UNPACKED = 2.2


def find_home(name: str) -> tuple[str, Home] | None:
    """The public home of a set by any of its names, and the name it goes by; None if none."""
    known = known_set(name)
    own = {plain_name(key): key for key in HOMES}.get(plain_name(known[0] if known else name))
    return None if own is None else (own, HOMES[own])


def download(
    name: str,
    destination: str | os.PathLike[str],
    *,
    quiet: bool = False,
    patience: Patience | None = None,
) -> Path:
    """The folder or file of a data set below `destination`, downloaded if it is not there.

    What has arrived is kept in `.NAME.part` until everything is there and its checksums are
    right; an interrupted download goes on from it. Nothing that is there is overwritten, and
    a set that is there in its other form (binary CIFAR) is not downloaded.

    Args:
      name: one of `HOMES`, without regard to case and separators.
      destination: the folder to put it in, made if need be.
      quiet: whether to write no progress to stderr.
      patience: when to try again and when elsewhere.

    Raises:
      DataError: an unknown name, the digits (which need no download), no address that
        delivers, a full disk, something else in its place, or another process that is
        downloading the same.
    """
    if plain_name(name) == "digits":
        raise DataError("digits come with cnn_jax: nothing to download")
    found = find_home(name)
    if found is None:
        near = difflib.get_close_matches(name, list(HOMES), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{name!r} has no public home that is known{hint} ({', '.join(HOMES)})")
    own, home = found
    folder = Path(destination).expanduser()
    result = folder / home.result
    others = [folder / alias for alias in KNOWN[own].folders if alias != home.result]
    for other in others:
        if other.is_dir():
            return other
    try:
        with _made(folder), _locked(folder, own):
            if result.exists():
                _check_present(result, home)
            else:
                with _made(folder / f".{own}.part") as work:
                    _check_space(folder, work, home)
                    _fill(work, result, home, quiet, patience or Patience())
    except OSError as error:
        raise cannot_write(folder, error) from error
    return result


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """A folder that is there; those made for it go again if nothing came into them."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # something came into it, or it has its final name
            for path in missing:
                path.rmdir()


@contextlib.contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """No other process of this user downloads the same set to the same folder.

    Raises:
      DataError: another process does.
    """
    from filelock import FileLock, Timeout

    path = lock_of(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout as error:
        raise DataError(
            f"another process is downloading {name!r} to {str(folder)!r}: wait for it"
        ) from error


def lock_of(folder: Path, name: str) -> Path:
    """The lock file of a set and a folder; in the cache, since it must outlive the download.

    A lock file that is removed parts the processes that wait for it.
    """
    place = hashlib.sha256(f"{folder.absolute()}/{name}".encode("utf-8", "surrogateescape"))
    locks = environment.user_cache() or Path(tempfile.gettempdir()) / "cnn_jax"
    return locks / "locks" / f"{place.hexdigest()[:32]}.lock"


def _fill(work: Path, result: Path, home: Home, quiet: bool, patience: Patience) -> None:
    """Fetch the files into `work`, and give what they make up its name."""
    progress = Progress(None if quiet else sys.stderr)
    for file in home.files:
        path = work / file.name
        if not (path.exists() and has_checksum(path, file)):
            fetch(file, work, progress, patience)
    if home.members:
        os.replace(_unpack(work / home.files[0].name, work / "unpacked", home.members), result)
        shutil.rmtree(work)
    elif home.result == home.files[0].name:
        os.replace(work / home.result, result)
        shutil.rmtree(work)
    else:
        os.replace(work, result)


def _unpack(archive: Path, folder: Path, members: tuple[str, ...]) -> Path:
    """The members of a .tar.gz, written under the last parts of their own known names.

    Nothing else in the archive is looked at: no name, link or owner of it reaches the disk.

    Raises:
      DataError: a member is missing, no plain file or unreasonably large.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        with tarfile.open(archive, "r:gz") as opened:
            for member in opened:
                source = opened.extractfile(member) if member.isfile() else None
                if member.name not in members or source is None:
                    continue
                if member.size > _LARGEST_MEMBER:
                    raise DataError(f"{member.name!r} in {str(archive)!r} is {member.size} bytes")
                with (folder / Path(member.name).name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{str(archive)!r} cannot be unpacked: {error}; remove it") from error
    missing = [name for name in members if not (folder / Path(name).name).exists()]
    if missing:
        raise DataError(f"{str(archive)!r} has no file {missing[0]!r}; remove it")
    return folder


def _check_present(result: Path, home: Home) -> None:
    """What is there already must be whole; files of an archive are checked when read."""
    names = [Path(member).name for member in home.members] or [file.name for file in home.files]
    single = home.result == names[0]
    missing = [] if single else [name for name in names if not (result / name).is_file()]
    if not home.members:
        missing += [
            file.name
            for file in home.files
            if file.name not in missing
            and not has_checksum(result if single else result / file.name, file)
        ]
    if missing:
        raise DataError(
            f"{str(result)!r} is there, but {', '.join(map(repr, missing))} is missing or not the "
            "official file: move it away to download it, or load it as it is"
        )


def _check_space(folder: Path, work: Path, home: Home) -> None:
    """Refuse before the first byte what the disk cannot hold."""
    have = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    needed = sum(file.size for file in home.files) * (_UNPACKED if home.members else 1.0) - have
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{str(folder)!r} has {free / 1e6:.0f} MB free, but {needed / 1e6:.0f} MB are needed: "
            "free some space or choose another --data-dir"
        )
