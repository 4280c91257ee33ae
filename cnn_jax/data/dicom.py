"""DICOM files as pictures, through pydicom (the extra `dicom`).

Stored values become modality values (rescale slope and intercept, or the modality LUT), these the
grey values that the file's first window or VOI LUT shows, in 8 bits; of a file without either, the
image's own range from black to white. MONOCHROME1 is inverted, so that more is always whiter
(DICOM PS3.3, C.7.6.3.1.2, C.11.1, C.11.2).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

DICOM_SUFFIXES = frozenset([".dcm", ".dicom"])

_GREY = ("MONOCHROME1", "MONOCHROME2")
# Colours that pydicom gives as RGB when asked to.
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")


def is_dicom(path: object) -> bool:
    """Whether the name of a file is that of a DICOM file; its contents are not looked at."""
    return isinstance(path, str | os.PathLike) and Path(path).suffix.lower() in DICOM_SUFFIXES


def pydicom_version() -> str:
    """Which pydicom decodes; empty where it is not installed."""
    from importlib import metadata

    try:
        return metadata.version("pydicom")
    except metadata.PackageNotFoundError:
        return ""


def picture(path: str | os.PathLike[str]) -> PillowImage:
    """A DICOM file as a Pillow image of mode L or RGB.

    Raises:
      DataError: pydicom is not installed; the file is none, is damaged, holds several frames or no
        pixels, is compressed in a way that needs more packages, or larger than Pillow's limit.
    """
    from PIL import Image

    with _read(path, header_only=False) as (dataset, pydicom):
        _check(dataset, path)
        if dataset.PhotometricInterpretation in _GREY:
            return Image.fromarray(_shown(dataset, pydicom))
        values = pydicom.pixels.pixel_array(path)  # converted to RGB
        if values.dtype != np.uint8:
            raise DataError(f"{_name(path)} has colours of {values.dtype}: save it as 8 bit")
        return Image.fromarray(values)


def size_of(path: str | os.PathLike[str]) -> tuple[int, int, bool]:
    """Height, width and whether it is grey, from the header.

    Raises:
      DataError: as `picture`, but for what only the pixels show.
    """
    with _read(path, header_only=True) as (dataset, _):
        _check(dataset, path)
        grey = dataset.PhotometricInterpretation in _GREY
        return int(dataset.Rows), int(dataset.Columns), grey


def patients(images: Sequence[Path]) -> np.ndarray | None:
    """A name for the patient of each image, str `[N]`; None unless all files state one.

    It is a digest of `PatientID`, so that the identity does not get into what is written of a run.
    """
    if not images or not all(map(is_dicom, images)):
        return None
    names = []
    for image in images:
        with _read(image, header_only=True) as (dataset, _):
            identity = str(dataset.get("PatientID", "") or "").strip()
        if not identity:
            return None
        names.append("patient " + hashlib.sha256(identity.encode()).hexdigest()[:12])
    return np.array(names, dtype=np.str_)


@contextmanager
def _read(path: str | os.PathLike[str], *, header_only: bool) -> Iterator[tuple[Any, Any]]:
    """The data set of a file, and pydicom; what it raises inside becomes a `DataError`."""
    try:
        import pydicom
        import pydicom.pixels
    except ModuleNotFoundError as error:
        raise DataError(
            f"{_name(path)} is a DICOM file: install what reads it with "
            "pip install 'cnn_jax[dicom]'"
        ) from error
    try:
        yield pydicom.dcmread(path, stop_before_pixels=header_only), pydicom
    except DataError:
        raise
    except Exception as error:  # whatever pydicom and its decoders raise for hostile files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{_name(path)} cannot be read as a DICOM image: {reason}") from error


def _check(dataset: Any, path: str | os.PathLike[str]) -> None:
    from PIL import Image

    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        raise DataError(
            f"{_name(path)} holds {frames} frames: write each as a file, or give the volume as an "
            "array (data.from_arrays)"
        )
    if "Rows" not in dataset or "Columns" not in dataset:
        raise DataError(f"{_name(path)} holds no image (no Rows and Columns)")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and int(dataset.Rows) * int(dataset.Columns) > limit:
        raise DataError(f"{_name(path)} has more than {limit} pixels, Pillow's limit")
    kind = dataset.get("PhotometricInterpretation", "")
    if kind not in (*_GREY, *_COLOUR):
        raise DataError(f"{_name(path)} is of the kind {kind!r}, which is not read: save it as RGB")


def _shown(dataset: Any, pydicom: Any) -> np.ndarray:
    """What a viewer shows of a grey image first, uint8 `[H, W]`."""
    values = pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset).astype(np.float64)
    if "VOILUTSequence" in dataset:
        table = dataset.VOILUTSequence[0].LUTDescriptor
        looked_up = pydicom.pixels.apply_voi_lut(values.astype(np.int64), dataset, prefer_lut=True)
        share = looked_up / (2.0 ** int(table[2]) - 1)
    elif "WindowCenter" in dataset and "WindowWidth" in dataset:
        function = str(dataset.get("VOILUTFunction", "LINEAR") or "LINEAR")
        share = windowed(
            values, _first(dataset.WindowCenter), _first(dataset.WindowWidth), function
        )
    else:
        low, high = values.min(), values.max()
        share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        share = 1 - share
    return np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)


def windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """The share of white, float64 in 0..1, of modality values in a window.

    PS3.3, C.11.2.1.2 and C.11.2.1.3: LINEAR is ((x - (c - 0.5)) / (w - 1) + 0.5), LINEAR_EXACT
    ((x - c) / w + 0.5), both cut at 0 and 1; SIGMOID 1 / (1 + exp(-4 (x - c) / w)).

    Raises:
      ValueError: a width that is none, or another function.
    """
    if width < 1 if function == "LINEAR" else width <= 0:
        raise ValueError(f"a window of width {width} shows nothing")
    if function == "LINEAR":
        if width == 1:
            return (values > centre - 0.5).astype(np.float64)
        return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    raise ValueError(f"a window function {function!r} is not known")


def _first(value: Any) -> float:
    """A number, or the first of several windows."""
    try:
        return float(value)
    except TypeError:
        return float(value[0])


def _name(path: str | os.PathLike[str]) -> str:
    return repr(os.fspath(path))
