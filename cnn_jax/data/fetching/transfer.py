"""One file over HTTP: resumed, checked, from the first address that delivers it.

What has arrived lies in `NAME.part` until its checksum is right; then it gets its name. A
transfer goes on where the last one ended, also from another address: all are to hold the same
bytes, and the checksum tells if they did not.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from io import FileIO
from pathlib import Path
from typing import Any

from cnn_jax.data.fetching.homes import RemoteFile
from cnn_jax.data.fetching.partial import (
    discard,
    note_of,
    opened,
    read_note,
    size_of,
    write,
    write_note,
)
from cnn_jax.data.fetching.progress import Progress
from cnn_jax.data.reading import counted
from cnn_jax.errors import DataError

_CHUNK = 1 << 16
_LOCAL = ("localhost", "127.0.0.1", "::1")
# Times the size that a file should have, after which an address is given up.
_MOST = 2


@dataclass(frozen=True)
class Patience:
    """When to try again and when to try elsewhere.

    Attributes:
      timeout: seconds without any byte after which a connection is given up.
      slow: bytes a second below which another address is tried first.
      dead: bytes a second below which an address is given up for good.
      window: seconds over which the speed is measured.
      retries: how often a broken transfer is taken up again at one address.
      pause: seconds before that; doubled each time.
    """

    timeout: float = 30.0
    slow: float = 200_000.0
    dead: float = 2_000.0
    window: float = 20.0
    retries: int = 3
    pause: float = 1.0


class _TryElsewhereError(Exception):
    """This address will not deliver the file."""


class _NoNameError(_TryElsewhereError):
    """The name of this address's host cannot be resolved."""


class _SlowError(Exception):
    """This address delivers, but slowly."""


class _BrokenError(Exception):
    """The transfer ended early; it may go on."""


def fetch(file: RemoteFile, folder: Path, progress: Progress, patience: Patience) -> Path:
    """`folder/NAME` with the right checksum.

    Raises:
      DataError: no address delivered it (says why each did not, and what to do by hand), or it
        cannot be written.
    """
    path, part = folder / file.name, folder / f"{file.name}.part"
    reasons: dict[str, str] = {}
    slow, unresolved = [], []
    for address in file.addresses:
        try:
            return _fetch_from(address, file, part, path, progress, patience, patience.slow)
        except _SlowError as error:
            slow.append(address)
            reasons[address] = str(error)
        except _TryElsewhereError as error:
            reasons[address] = str(error)
            if isinstance(error, _NoNameError):
                unresolved.append(address)
    if len(unresolved) == len(file.addresses):
        raise DataError(
            f"no network? none of {counted(len(unresolved), 'address', 'addresses')} of "
            f"{file.name!r} answered ({reasons[unresolved[-1]]}): connect and give the command "
            f"again, or put the file into {str(folder)!r} yourself, from {unresolved[0]} "
            f"(MD5 {file.md5})"
        )
    for address in slow:
        try:
            return _fetch_from(address, file, part, path, progress, patience, patience.dead)
        except (_SlowError, _TryElsewhereError) as error:
            reasons[address] = str(error)
    tried = "; ".join(f"{address}: {reason}" for address, reason in reasons.items())
    raise DataError(
        f"{file.name!r} could not be downloaded ({tried}). Try again later, which goes on from "
        f"what has arrived, or put the file into {str(folder)!r} yourself (MD5 {file.md5}) and "
        "give the command again"
    )


def has_checksum(path: Path, file: RemoteFile) -> bool:
    """Whether the file at `path` is the one described."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, _md5).hexdigest() == file.md5


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def _fetch_from(
    address: str,
    file: RemoteFile,
    part: Path,
    path: Path,
    progress: Progress,
    patience: Patience,
    slowest: float,
) -> Path:
    """The file from one address, which gets as many attempts as `patience` says."""
    broken = 0
    while True:
        resumed = size_of(part) > 0
        try:
            _transfer(address, file, part, progress, patience, slowest)
        except _BrokenError as error:
            broken += 1
            if broken > patience.retries:
                raise _TryElsewhereError(f"{error}, {broken} times") from error
            time.sleep(patience.pause * 2 ** (broken - 1))
            continue
        if has_checksum(part, file):
            os.replace(part, path)
            note_of(part).unlink(missing_ok=True)
            return path
        discard(part)
        # What was resumed may have been begun from other contents: once more from the start.
        if not resumed:
            raise _TryElsewhereError("what it sends has another checksum")


def _transfer(
    address: str,
    file: RemoteFile,
    part: Path,
    progress: Progress,
    patience: Patience,
    slowest: float,
) -> None:
    """Complete `part` from an address.

    Raises:
      _TryElsewhereError, _SlowError, _BrokenError: it did not.
    """
    have = size_of(part)
    progress.trying(file.name, urllib.parse.urlsplit(address).hostname or address)
    try:
        with _open(_request(address, part, have), patience.timeout) as response:
            start, total = _extent(response, have)
            if start == 0:
                discard(part)
                write_note(part, address, response)
            expected = file.size if total is None else total
            progress.begin(file.name, start, expected)
            with opened(part) as output:
                arrived = _copy(response, output, start, file, progress, patience, slowest)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            _after_416(error, part, have)
            return
        message = f"it answers {error.code} {' '.join(str(error.reason).split())}"
        raise (_BrokenError if error.code >= 500 else _TryElsewhereError)(message) from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, socket.gaierror):
            raise _NoNameError(reason.strerror or "no such host") from error
        text = " ".join(str(reason).split()) or type(error).__name__
        raise _BrokenError(f"the connection failed: {text}") from error
    if total is not None and arrived != total:
        raise _BrokenError(f"it ended after {arrived} of {total} bytes")


def _copy(
    response: Any,
    output: FileIO,
    start: int,
    file: RemoteFile,
    progress: Progress,
    patience: Patience,
    slowest: float,
) -> int:
    """Copy what arrives; returns how many bytes the file then has."""
    arrived = measured = start
    since = time.monotonic()
    while chunk := response.read1(_CHUNK):
        write(output, chunk)
        arrived += len(chunk)
        progress.update(arrived)
        if arrived > _MOST * file.size:
            raise _TryElsewhereError(f"it sends more than {_MOST} times {file.size} bytes")
        passed = time.monotonic() - since
        if passed >= patience.window:
            speed = (arrived - measured) / passed
            if speed < slowest:
                raise _SlowError(f"it sends {speed / 1000:.1f} kB/s")
            since, measured = time.monotonic(), arrived
    return arrived


def _extent(response: Any, have: int) -> tuple[int, int | None]:
    """Where in the file a response begins, and how large the file is if it is said."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise _TryElsewhereError(f"it sends the file encoded as {encoding!r}")
    length = response.headers.get("Content-Length")
    if response.status != HTTPStatus.PARTIAL_CONTENT:
        return 0, int(length) if re.fullmatch(r"\d{1,18}", length or "") else None
    match = re.fullmatch(
        r"bytes (\d{1,18})-\d+/(\d{1,18})", response.headers.get("Content-Range", "")
    )
    if match is None or int(match[1]) != have:
        raise _TryElsewhereError("it sends another part of the file than was asked for")
    return have, int(match[2])


def _after_416(error: urllib.error.HTTPError, part: Path, have: int) -> None:
    """Nothing is left to send: `part` is complete, or too long and of no use."""
    if error.headers.get("Content-Range") != f"bytes */{have}":
        discard(part)
        raise _BrokenError("its file has become shorter") from error


def _request(address: str, part: Path, have: int) -> urllib.request.Request:
    _check_scheme(address, address)
    headers = {"User-Agent": "cnn_jax", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        validator = read_note(part).get(address)
        if validator:
            headers["If-Range"] = validator
    return urllib.request.Request(address, headers=headers)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Few redirects, and none that leaves https."""

    max_redirections = 5
    max_repeats = 2

    def redirect_request(  # type: ignore[override]
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """The request that follows a redirect."""
        _check_scheme(newurl, req.full_url)
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any
    ) -> Any:
        """What the address answers to which a redirect leads."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError as error:
            fp.close()
            raise _TryElsewhereError(f"it leads to what is no address: {error}") from error

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _open(request: urllib.request.Request, timeout: float) -> Any:
    return urllib.request.build_opener(_Redirects).open(request, timeout=timeout)


def _check_scheme(address: str, origin: str) -> None:
    """https only; http is for servers on this machine that a caller names."""
    parts, before = urllib.parse.urlsplit(address), urllib.parse.urlsplit(origin)
    local = parts.hostname in _LOCAL and before.hostname in _LOCAL
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise _TryElsewhereError(f"it leads to {address[:200]!r}, which is not https")
