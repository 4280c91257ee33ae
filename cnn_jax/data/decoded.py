"""Images decoded once and kept on disk, for sets that are larger than the memory they may use.

An entry is a folder `decoded/KEY` in the user's cache folder (`environment.user_cache`), made
as `KEY.part` by the process that holds `KEY.lock`, and renamed when it is whole:

    pixels.npy   uint8 [N, H, W, C]
    crc32.npy    uint32 [N], the CRC-32 of each image

KEY follows from the paths, sizes and times of the files, the shape, and the version of Pillow (and
of pydicom, where it decodes): a file that changes, or another size of image, is another entry. The
times are those of the last change of the contents and of the file's record: copying and unpacking
can set the first one, and so make another image of the same size look the same, but not the second.
Entries may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cnn_jax import environment
from cnn_jax.data.dataset import Split
from cnn_jax.data.dicom import is_dicom, pydicom_version
from cnn_jax.data.sources import ImageFiles, for_each

# Left free on the disk for others.
_SPARE = 2**30


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """An `ImageSource` of pixels on disk, each image compared with its CRC-32 when it is read.

    Attributes:
      files: what was decoded; an image whose pixels are damaged is decoded from here.
      folder: the entry; after damage it is made anew by the next `keep_decoded`.
    """

    files: ImageFiles
    folder: Path
    pixels: np.ndarray
    checksums: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        return self.files.shape

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> np.ndarray:
        image = np.array(self.pixels[index])
        if zlib.crc32(image) == self.checksums[index]:
            return image
        with contextlib.suppress(OSError):  # gone already, or of another user
            (self.folder / "crc32.npy").unlink()
        return self.files[index]


def keep_decoded(splits: Mapping[str, Split]) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The splits with their image files decoded on disk, by several threads, where they fit.

    Splits in memory, and images that are no files of their own, stay as they are.

    Returns:
      The splits, and a note on what was kept where, or why images are decoded in each epoch.

    Raises:
      DataError: some images cannot be read; says how many and names the first twenty.
    """
    folder = cache_folder()
    kept, size = dict(splits), 0
    try:
        for name, split in splits.items():
            files = split.images
            key = _key(files) if isinstance(files, ImageFiles) else None
            if not isinstance(files, ImageFiles) or key is None:
                continue
            if folder is None:
                return kept, (_decoded_each_epoch("the user has no cache folder"),)
            kept[name] = replace(split, images=_open_or_decode(folder / key, files))
            size += _size(files)
    except OSError as error:
        return kept, (_decoded_each_epoch(f"{str(folder)!r}: {error.strerror or error}"),)
    if size == 0:
        return kept, ()
    return kept, (f"Images are kept decoded in {str(folder)!r} ({size / 2**30:.1f} GiB).",)


def cache_folder() -> Path | None:
    """Where entries lie; None for a user without a cache folder."""
    cache = environment.user_cache()
    return None if cache is None else cache / "decoded"


def _decoded_each_epoch(reason: str) -> str:
    return f"Images are decoded in each epoch, since they cannot be kept decoded: {reason}."


def _open_or_decode(entry: Path, files: ImageFiles) -> DecodedImages:
    """The entry of some files, made if it is not there or damaged.

    Raises:
      OSError: it is not there and cannot be written.
    """
    found = _open(entry, files)
    if found is not None:
        return found
    from filelock import FileLock

    entry.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(entry.with_name(f"{entry.name}.lock")):
        found = _open(entry, files)  # another process may have made it meanwhile
        return _make(entry, files) if found is None else found


def _make(entry: Path, files: ImageFiles) -> DecodedImages:
    """The entry, made by this process alone."""
    partial = entry.with_name(f"{entry.name}.part")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    free = shutil.disk_usage(entry.parent).free
    if _size(files) + _SPARE > free:
        raise OSError(
            f"{(_size(files) + _SPARE) / 2**30:.1f} GiB are needed, {free / 2**30:.1f} are free"
        )
    try:
        partial.mkdir()
        _decode(partial, files)
        shutil.rmtree(entry, ignore_errors=True)
        partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    made = _open(entry, files)
    if made is None:
        raise OSError("what was written cannot be read again")
    return made


def _open(entry: Path, files: ImageFiles) -> DecodedImages | None:
    """The entry if it is whole."""
    try:
        pixels = np.load(entry / "pixels.npy", mmap_mode="r", allow_pickle=False)
        checksums = np.load(entry / "crc32.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = pixels.shape == (len(files), *files.shape) and pixels.dtype == np.uint8
    if not whole or checksums.shape != (len(files),) or checksums.dtype != np.uint32:
        return None
    return DecodedImages(files, entry, pixels, checksums)


def _decode(folder: Path, files: ImageFiles) -> None:
    path = folder / "pixels.npy"
    pixels = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.uint8, shape=(len(files), *files.shape)
    )
    if hasattr(os, "posix_fallocate"):
        # A disk that fills up while a mapped file is written would end the process.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    checksums = np.empty(len(files), dtype=np.uint32)

    def decode(index: int) -> None:
        image = files[index]
        pixels[index] = image
        checksums[index] = zlib.crc32(image)

    for_each(decode, len(files))
    pixels.flush()
    np.save(folder / "crc32.npy", checksums)


def _size(files: ImageFiles) -> int:
    return len(files) * math.prod(files.shape)


def _key(files: ImageFiles) -> str | None:
    """What an entry is called; None if the images are not files that can be told apart."""
    import PIL

    described = []
    for index in range(len(files)):
        path = files.images[index]
        if not isinstance(path, Path):
            return None
        status = path.stat()
        times = [status.st_mtime_ns, status.st_ctime_ns]
        described.append([os.fspath(path.absolute()), status.st_size, *times])
    settings = [list(files.shape), files.fit, PIL.__version__]
    if any(is_dicom(path) for path, *_ in described):
        settings.append(pydicom_version())
    encoded = json.dumps([settings, described]).encode()
    return hashlib.sha256(encoded).hexdigest()[:32]
