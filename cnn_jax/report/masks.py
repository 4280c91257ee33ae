"""The section of the page about masks: the cases that came out worst, with both outlines."""

from __future__ import annotations

import numpy as np

from cnn_jax.report import pictures, wording
from cnn_jax.report.layout import NOTHING, section
from cnn_jax.report.markup import Markup, element, name_of
from cnn_jax.report.page import MaskCase, Page

# What was given and what was predicted; told apart by all eyes (Okabe and Ito).
GIVEN, PREDICTED = (86, 180, 233), (230, 159, 0)
_LINE = 2  # pixels of an outline


def cases(page: Page) -> Markup:
    """The test examples with the lowest Dice, lowest first."""
    if not page.mask_cases:
        return NOTHING
    lead = (
        "The test examples with the lowest Dice, lowest first. The given outline is blue, the "
        "predicted one orange, and below is how much of the image each marks. A wrong mask and a "
        "difficult image look alike here."
    )
    if all(case.image is None for case in page.mask_cases):
        lead += " The images could not be read, so there are no pictures."
    return section(
        "Worst cases", lead, element("ol", *(_card(c) for c in page.mask_cases), class_="hardest")
    )


def _card(case: MaskCase) -> Markup:
    picture = NOTHING
    if case.image is not None:
        picture = element(
            "img",
            src=pictures.data_uri(outlined(case.image, case.given, case.predicted)),
            alt=f"{case.id}: given and predicted outline",
            title=case.id,
        )
    return element(
        "li",
        picture,
        element("p", element("b", f"Dice {case.dice:.2f}")),
        element("small", _areas(case)),
        element("small", name_of(case.id), class_="id", title=case.id),
    )


def _areas(case: MaskCase) -> str:
    given, predicted = ((mask > 0).mean() for mask in (case.given, case.predicted))
    return f"given {wording.percent(given)}, found {wording.percent(predicted)}"


def outlined(
    image: np.ndarray, given: np.ndarray, predicted: np.ndarray, longest: int = 256
) -> np.ndarray:
    """An image with the outlines of two masks on it.

    Args:
      image: uint8 `[H, W, C]`.
      given, predicted: uint8 `[H, W]`, the number of the region of each pixel.
      longest: pixels of the longer side of the picture.

    Returns:
      uint8 `[h, w, 3]`. Where the two lines meet the predicted one is on top.
    """
    from PIL import Image

    height, width = given.shape
    scale = longest / max(height, width)
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    picture = Image.fromarray(pictures.grey_or_colour(image)).convert("RGB")
    pixels = np.asarray(picture.resize(size, Image.Resampling.BICUBIC))
    return drawn(pixels, (given, GIVEN), (predicted, PREDICTED))


def drawn(pixels: np.ndarray, *outlines: tuple[np.ndarray, tuple[int, int, int]]) -> np.ndarray:
    """A picture with the outlines of masks on it, the last on top.

    Args:
      pixels: uint8 `[h, w]` or `[h, w, 3]`, of any size.
      *outlines: a mask uint8 `[H, W]`, the number of the region of each pixel, and its colour.

    Returns:
      uint8 `[h, w, 3]`.
    """
    from PIL import Image

    pixels = np.array(Image.fromarray(pixels).convert("RGB"))
    for mask, colour in outlines:
        large = Image.fromarray(mask).resize(pixels.shape[1::-1], Image.Resampling.NEAREST)
        pixels[_outline(np.asarray(large))] = colour
    return pixels


def _outline(regions: np.ndarray) -> np.ndarray:
    """bool `[h, w]`: pixels within a region that lie less than a line from another value."""
    edge = np.zeros(regions.shape, bool)
    for axis in (0, 1):
        for step in (-_LINE, -1, 1, _LINE):
            shifted = np.roll(regions, step, axis)
            # What was rolled in from the other side is no neighbour.
            border = [slice(None)] * 2
            border[axis] = slice(0, step) if step > 0 else slice(step, None)
            shifted[tuple(border)] = regions[tuple(border)]
            edge |= shifted != regions
    return edge & (regions > 0)
