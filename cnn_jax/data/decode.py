"""From an image file to uint8 pixels of a given shape.

Grey, RGB, palette and 1-bit images are read as they are; transparency is composited over
white; 16-bit grey is scaled by 1/257, so that 65535 becomes 255; the orientation that EXIF
states is applied; of an animation the first frame is taken. DICOM files: see `dicom`.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from cnn_jax.data.dicom import is_dicom, picture, size_of
from cnn_jax.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

Fit = Literal["crop", "pad", "stretch"]
FITS: tuple[Fit, ...] = ("crop", "pad", "stretch")

_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N")
_ORIENTATION = 0x0112
_ROTATED_BY_90_DEGREES = (5, 6, 7, 8)

# What Pillow's readers are known to raise for damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    NotImplementedError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class EncodedImage:
    """The contents of an image file that is part of a larger file, and what errors call it."""

    name: str
    contents: bytes


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says.

    Its size once upright, whether it is grey, animated, and of 16 bits a value.
    """

    height: int
    width: int
    grey: bool
    animated: bool
    deep: bool


def decode_image(
    image: str | os.PathLike[str] | bytes | EncodedImage | PillowImage,
    image_shape: tuple[int, ...],
    fit: Fit = "crop",
) -> np.ndarray:
    """uint8 `[H, W, C]`: an image file (or its bytes), decoded and brought to `image_shape`.

    Args:
      image: path of a file, the contents of one, or a Pillow image.
      image_shape: (H, W, C) with C = 1 (luma, ITU-R 601-2) or 3 (RGB).
      fit: `crop` resizes until the image covers the shape and takes the centre, `pad` until
        it fits inside and adds black bars, `stretch` ignores the aspect ratio. Resizing is
        bilinear with antialiasing.

    Raises:
      DataError: not an image, damaged, truncated, or larger than Pillow's limit against
        decompression bombs; an unknown fit, or a shape that is not (H, W, 1 or 3).
    """
    if len(image_shape) != 3 or min(image_shape) < 1 or image_shape[2] not in (1, 3):
        raise DataError(
            f"image files are decoded to [H, W, 1] or [H, W, 3], not {list(image_shape)}"
        )
    height, width, channels = image_shape
    with opened_image(image) as opened:
        picture = to_mode(upright(opened), channels, name_of(image))
        return resize_image(picture, (height, width), fit)


def read_header(
    image: str | os.PathLike[str] | bytes | EncodedImage, most_pixels: int | None = None
) -> ImageHeader:
    """The header of an image file, without decoding its pixels.

    Args:
      image: path of a file, or the contents of one.
      most_pixels: as of `opened_image`.

    Raises:
      DataError: not an image, or larger than Pillow's limit.
    """
    if is_dicom(image):
        height, width, grey = size_of(image)  # type: ignore[arg-type]
        return ImageHeader(height, width, grey, animated=False, deep=False)
    with opened_image(image, most_pixels) as opened:
        width, height = opened.size
        if _orientation(opened) in _ROTATED_BY_90_DEGREES:
            width, height = height, width
        return ImageHeader(
            height=height,
            width=width,
            grey=opened.mode in _GREY_MODES,
            animated=bool(getattr(opened, "is_animated", False)),
            deep=opened.mode.startswith("I"),
        )


def resize_image(image: PillowImage, size: tuple[int, int], fit: Fit) -> np.ndarray:
    """uint8 `[H, W, C]`: a Pillow image of mode L or RGB at `size` = (H, W)."""
    height, width = size
    if image.size != (width, height):
        image = _resized(image, height, width, fit)
    pixels = np.array(image, dtype=np.uint8)
    return pixels.reshape(height, width, -1)


def resize_values(values: np.ndarray, size: tuple[int, int], fit: Fit) -> tuple[np.ndarray, int]:
    """Values uint8 `[h, w]` brought to `size` as images are, and how many pieces were lost.

    Each pixel gets the value with the largest share of it; shares are interpolated as the pixels
    of images are. A connected piece of a value other than 0 that would so vanish, because it is
    smaller than a pixel, keeps the pixel of which it has most: what is to be found must not become
    nothing. Of two in one pixel the one of the higher value stays; else only what lies outside of
    a crop is lost.
    """
    from PIL import Image

    height, width = size
    if values.shape == (height, width):
        return values.astype(np.uint8), 0

    def share(of: np.ndarray) -> np.ndarray:
        return np.asarray(_resized(Image.fromarray(of.astype(np.float32)), height, width, fit))

    present = np.unique(values)
    shares = np.stack([share(values == value) for value in present])
    if 0 in present:  # what padding adds is of no value: background
        shares[0] += 1 - shares.sum(axis=0)
        found = present[shares.argmax(axis=0)].astype(np.uint8)
    else:
        outside = shares.sum(axis=0) < 0.5
        found = np.where(outside, 0, present[shares.argmax(axis=0)]).astype(np.uint8)
    return found, _keep_pieces(values, found, share, fit)


def _keep_pieces(
    values: np.ndarray, found: np.ndarray, share: Callable[[np.ndarray], np.ndarray], fit: Fit
) -> int:
    """Give each piece that vanished a pixel of `found`; returns how many lie outside of it."""
    from scipy.ndimage import label  # type: ignore[attr-defined]

    lost = 0
    around = np.ones((3, 3), bool)
    for value in np.unique(values[values > 0]).tolist():
        pieces, count = label(values == value, structure=around)
        # Shares of single pieces take long, and most pieces lie where their value was found.
        of_value = (found == value).astype(np.uint8)
        there = np.unique(pieces[restore_values(of_value, values.shape, fit) > 0])
        for number in np.setdiff1d(np.arange(1, count + 1), there).tolist():
            held = share(pieces == number)
            if held.max() <= 0:
                lost += 1
            elif not (held[found == value] > 0).any():
                found[np.unravel_index(held.argmax(), held.shape)] = value
    return lost


def restore_values(values: np.ndarray, size: tuple[int, int], fit: Fit) -> np.ndarray:
    """uint8 `[h, w]` of `size`: what `resize_values` made of an image of that size, undone.

    Each pixel gets the value of the nearest one; what a crop had cut off is 0.
    """
    from PIL import Image

    check_fit(fit)
    height, width = size
    high, wide = values.shape
    whole = np.zeros(size, np.uint8)
    # The rows and columns of both between which the image lies, as `_resized` has them.
    scale = (max if fit == "crop" else min)(high / height, wide / width)
    scales = (high / height, wide / width) if fit == "stretch" else (scale, scale)
    inside, outside = [], []
    for length, old, by in zip(values.shape, size, scales, strict=True):
        shown = min(length, max(1, round(by * old)))  # pixels of the network that show it
        covers = min(old, max(1, round(length / by)))  # pixels of the image that they show
        inside.append(slice((length - shown) // 2, (length - shown) // 2 + shown))
        outside.append(slice((old - covers) // 2, (old - covers) // 2 + covers))
    part = Image.fromarray(values[tuple(inside)])
    covered = (outside[1].stop - outside[1].start, outside[0].stop - outside[0].start)
    whole[tuple(outside)] = np.asarray(part.resize(covered, Image.Resampling.NEAREST))
    return whole


def mask_values(path: str | os.PathLike[str]) -> np.ndarray:
    """The values of a mask file, int64 `[H, W]`, upright: grey values, or numbers of a palette.

    Raises:
      DataError: not an image, damaged, of several frames, or coloured.
    """
    with opened_image(path) as opened:
        frames = int(getattr(opened, "n_frames", 1))
        if frames > 1:
            raise DataError(f"mask {name_of(path)} has {frames} frames: a mask is one picture")
        values = np.asarray(upright(opened))
        mode = opened.mode
    if values.ndim == 3:
        opaque = mode not in ("LA", "RGBA", "PA")
        if not opaque and (values[..., -1] != values.flat[values.shape[-1] - 1]).any():
            raise DataError(
                f"mask {name_of(path)} marks by transparency: save it as grey values without it"
            )
        colours = values if opaque else values[..., :-1]
        if (colours != colours[..., :1]).any():
            raise DataError(
                f"mask {name_of(path)} is coloured: save it as grey values, or with a palette"
            )
        values = colours[..., 0]
    if mode == "F":
        raise DataError(f"mask {name_of(path)} has floating-point pixels: save it as 8 bit")
    return values.astype(np.int64)


def check_fit(fit: str) -> None:
    """Raise `DataError` unless `fit` is one of the three ways."""
    if fit not in FITS:
        raise DataError(f"fit must be one of {', '.join(FITS)}, not {fit!r}")


def _resized(image: PillowImage, height: int, width: int, fit: Fit) -> PillowImage:
    from PIL import Image

    check_fit(fit)
    resampling = Image.Resampling.BILINEAR
    old_width, old_height = image.size
    if fit == "stretch":
        return image.resize((width, height), resampling)
    if fit == "crop":
        scale = min(old_width / width, old_height / height)
        # Rounding may leave a hair's breadth below zero, which Pillow refuses.
        left = max(0.0, (old_width - scale * width) / 2)
        top = max(0.0, (old_height - scale * height) / 2)
        box = (left, top, old_width - left, old_height - top)
        return image.resize((width, height), resampling, box=box)
    scale = min(width / old_width, height / old_height)
    new_width = min(width, max(1, round(scale * old_width)))
    new_height = min(height, max(1, round(scale * old_height)))
    inner = image.resize((new_width, new_height), resampling)
    canvas = Image.new(image.mode, (width, height))
    canvas.paste(inner, ((width - new_width) // 2, (height - new_height) // 2))
    return canvas


@contextmanager
def opened_image(
    image: str | os.PathLike[str] | bytes | EncodedImage | PillowImage,
    most_pixels: int | None = None,
) -> Iterator[PillowImage]:
    """An open image; whatever Pillow raises inside becomes a `DataError` with its name.

    Args:
      image: path of a file, the contents of one, or a Pillow image.
      most_pixels: instead of Pillow's limit, which is then lifted for the whole process while
        the image is open.
    """
    from PIL import Image, UnidentifiedImageError

    if is_dicom(image):
        image = picture(image)  # type: ignore[arg-type]
    contents = image.contents if isinstance(image, EncodedImage) else image
    usual = Image.MAX_IMAGE_PIXELS
    limit = usual if most_pixels is None else most_pixels
    try:
        if most_pixels is not None:
            Image.MAX_IMAGE_PIXELS = None
        with (
            nullcontext(contents)  # the caller's own, which stays open
            if isinstance(contents, Image.Image)
            else _open(contents)
        ) as opened:
            if limit is not None and opened.width * opened.height > limit:
                whose = "Pillow's limit" if most_pixels is None else "the limit"
                raise DataError(f"{name_of(image)} has more than {limit} pixels, {whose}")
            yield opened
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name_of(image)} exceeds Pillow's limit of pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{name_of(image)} cannot be read as an image: no known format") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name_of(image)} cannot be read as an image: {reason}") from error
    finally:
        if most_pixels is not None:
            Image.MAX_IMAGE_PIXELS = usual


def _open(contents: str | os.PathLike[str] | bytes) -> PillowImage:
    """What Pillow opens, and files of Netpbm with a comment right behind the magic number."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(contents) if isinstance(contents, bytes) else contents)
    except UnidentifiedImageError:
        with io.BytesIO(contents) if isinstance(contents, bytes) else open(contents, "rb") as file:
            magic, behind = file.read(2), file.read(1)
            if magic[:1] != b"P" or behind != b"#":
                raise
            return Image.open(io.BytesIO(magic + b"\n#" + file.read()))


def name_of(image: str | os.PathLike[str] | bytes | EncodedImage | PillowImage) -> str:
    """As messages call an image: its path, or where it came from."""
    if isinstance(image, EncodedImage):
        return image.name
    if isinstance(image, bytes):
        return f"image of {len(image)} bytes"
    if isinstance(image, str | os.PathLike):
        return repr(os.fspath(image))
    return f"Pillow image of {image.width}×{image.height}"


def _orientation(image: PillowImage) -> int:
    # Asking a PNG without EXIF for its EXIF would decode all of its pixels.
    if "exif" not in image.info and image.format != "TIFF":
        return 1
    return int(image.getexif().get(_ORIENTATION, 1))


def upright(image: PillowImage) -> PillowImage:
    """The image turned as its EXIF says."""
    from PIL import ImageOps

    return image if _orientation(image) == 1 else ImageOps.exif_transpose(image)


def to_mode(image: PillowImage, channels: int, name: str) -> PillowImage:
    """The image in mode L (1 channel) or RGB (3 channels)."""
    from PIL import Image

    mode = "L" if channels == 1 else "RGB"
    if image.mode.startswith("I"):
        image = _from_16_bits(image, name)
    elif image.mode == "F":
        raise DataError(f"{name} has floating-point pixels without a range; save it as 8 bit")
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    # Pillow would copy an image that has the mode already: a tenth of the time of a JPEG.
    return image if image.mode == mode else image.convert(mode)


def _from_16_bits(image: PillowImage, name: str) -> PillowImage:
    from PIL import Image

    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise DataError(f"{name} has grey values outside 0..65535; save it as 8 or 16 bit")
    return Image.fromarray(np.round(pixels / 257).astype(np.uint8))
