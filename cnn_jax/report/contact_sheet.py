"""A contact sheet: images, each beside what augmentation makes of it, as one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_PAPER, _INK, _FAINT = (251, 250, 247), (34, 34, 34), (122, 118, 110)
_TILE = 96
_GAP = 8
_MARGIN = 28
_LABEL = 150
_CAPTION = 16


@dataclass(frozen=True)
class Strip:
    """One example of the sheet.

    Attributes:
      label: its class.
      image: uint8 `[H, W, C]`, before.
      versions: uint8 `[V, H, W, C]`, after.
      captions: a line below each version, or an empty one.
    """

    label: str
    image: np.ndarray
    versions: np.ndarray
    captions: Sequence[str]


def draw(title: str, subtitle: str, strips: Sequence[Strip]) -> Image:
    """The sheet: two strips side by side, in rows.

    Small images are magnified pixel for pixel, large ones reduced, to tiles of about 96
    pixels. Strips of one class follow one another; its name stands beside the first.
    """
    from PIL import Image, ImageDraw

    count = len(strips[0].versions)
    captioned = any(any(strip.captions) for strip in strips)
    tile_width, tile_height = _tile_size(strips[0].image)
    row_height = tile_height + _GAP + (_CAPTION if captioned else 0)
    strip_width = (count + 1) * (tile_width + _GAP) + 2 * _GAP
    # Where both strips of every row are of one class, the right ones need no room for a name.
    indents = (_LABEL, _LABEL if any(strip.label for strip in strips[1::2]) else 3 * _GAP)
    rows = -(-len(strips) // 2)
    head = _MARGIN + 64
    size = (2 * (_MARGIN + strip_width) + sum(indents), head + rows * row_height + _MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    canvas = ImageDraw.Draw(sheet)
    canvas.text((_MARGIN, _MARGIN - 8), title, _INK, _font(22))
    canvas.text((_MARGIN, _MARGIN + 22), subtitle, _FAINT, _font(13))
    for number, strip in enumerate(strips):
        row, column = divmod(number, 2)
        place = (_MARGIN + column * (strip_width + indents[0]), head + row * row_height)
        _draw_strip(sheet, canvas, strip, place, indents[column], (tile_width, tile_height))
    return sheet


def _draw_strip(
    sheet: Image,
    canvas: Any,
    strip: Strip,
    place: tuple[int, int],
    indent: int,
    tile: tuple[int, int],
) -> None:
    (left, top), (width, height) = place, tile
    for number, line in enumerate(_wrapped(strip.label, canvas)):
        canvas.text((left, top + 18 * number), line, _INK, _font(14))
    left += indent
    sheet.paste(_tile(strip.image, tile), (left, top))
    frame = (left - 3, top - 3, left + width + 2, top + height + 2)
    canvas.rectangle(frame, outline=_INK, width=1)
    left += width + 3 * _GAP
    for pixels, caption in zip(strip.versions, strip.captions, strict=True):
        sheet.paste(_tile(pixels, tile), (left, top))
        font = _font(11)
        shown = _shortened(caption, canvas, font, width)
        canvas.text((left, top + height + 2), shown, _FAINT, font)
        left += width + _GAP


def _tile_size(image: np.ndarray) -> tuple[int, int]:
    """Width and height of a tile: a whole multiple of a small image, a part of a large one."""
    height, width = image.shape[:2]
    factor = _TILE / max(height, width)
    factor = max(1, round(factor)) if factor >= 1 else factor
    return max(1, round(width * factor)), max(1, round(height * factor))


def _tile(pixels: np.ndarray, size: tuple[int, int]) -> Image:
    from PIL import Image

    if pixels.shape[2] != 3:
        pixels = np.round(pixels.mean(axis=2)).astype(np.uint8)
    magnified = size[0] >= pixels.shape[1]
    how = Image.Resampling.NEAREST if magnified else Image.Resampling.LANCZOS
    return Image.fromarray(pixels).resize(size, how).convert("RGB")


def _wrapped(text: str, canvas: Any) -> list[str]:
    """At most three lines that fit beside a strip; a longer word is cut."""
    font, lines = _font(14), [""]
    for word in text.replace("_", " ").split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and canvas.textlength(longer, font) > _LABEL - 2 * _GAP:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_shortened(line, canvas, font, _LABEL - 2 * _GAP) for line in lines[:3]]


def _shortened(text: str, canvas: Any, font: Any, width: int) -> str:
    if canvas.textlength(text, font) <= width:
        return text
    while text and canvas.textlength(text + "…", font) > width:
        text = text[:-1]
    return text + "…"


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
