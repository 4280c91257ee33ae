"""The confusion matrix as a picture, and its largest confusions as a list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnn_jax.report import wording
from cnn_jax.report.charts import label, svg
from cnn_jax.report.markup import Markup, element

NUMBERED_CLASSES = 20
NAME_LENGTH = 14
CHARACTER_WIDTH = 6.8
SIDE = 440


@dataclass(frozen=True)
class Confusion:
    """How often one class was taken for another."""

    true: str
    predicted: str
    count: int
    share: float


def largest_confusions(
    counts: np.ndarray, classes: tuple[str, ...], limit: int = 8
) -> tuple[Confusion, ...]:
    """The `limit` most frequent confusions, as counts and as shares of the true class."""
    mistakes = counts.astype(np.int64)
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:limit]
    support = counts.sum(axis=1)
    found = []
    for true, predicted in zip(*np.unravel_index(order, counts.shape), strict=True):
        count = int(mistakes[true, predicted])
        if count:
            share = count / int(support[true])
            found.append(Confusion(classes[true], classes[predicted], count, share))
    return tuple(found)


def confusion_heatmap(name: str, counts: np.ndarray, classes: tuple[str, ...]) -> Markup:
    """The matrix, true classes down, predicted classes across.

    Shade is the share of the true class; mistakes have their own colour, and their shade
    grows with the square root, so that rare ones remain visible. Up to `NUMBERED_CLASSES`
    classes have their names and counts written.
    """
    k = len(classes)
    numbered = k <= NUMBERED_CLASSES
    cell = min(72.0, SIDE / k)
    names = [wording.shortened(c, NAME_LENGTH) for c in classes] if numbered else []
    longest = max((len(n) for n in names), default=0)
    upright = longest * CHARACTER_WIDTH <= cell - 4
    left = 24 + (longest * CHARACTER_WIDTH + 8 if numbered else 0)
    top = 24 + (0 if not numbered else 20 if upright else longest * CHARACTER_WIDTH + 8)
    size = k * cell
    parts = [
        element("text", "true class", class_="axis middle",
                transform=f"translate(12 {top + size / 2:g}) rotate(-90)"),
        label(left + size / 2, 13, "predicted class", "axis middle"),
        element("rect", x=left, y=top, width=size, height=size, class_="frame"),
    ]  # fmt: skip
    for i, text in enumerate(names):
        center = (i + 0.5) * cell
        parts.append(label(left - 8, top + center + 4, text, "tick end name"))
        turn = "" if upright else " rotate(-90)"
        place = f"translate({left + center + (0 if upright else 4):g} {top - 7:g}){turn}"
        anchor = "middle" if upright else "start"
        parts.append(element("text", text, transform=place, class_=f"tick {anchor} name"))
    for i, j in np.argwhere(counts > 0):
        share = counts[i, j] / counts[i].sum()
        parts.append(_cell(i, j, share, left, top, cell))
        if numbered:
            dark = share > 0.45 if i == j else np.sqrt(share) > 0.6
            parts.append(
                element(
                    "text",
                    str(counts[i, j]),
                    element("title", f"true {classes[i]}, predicted {classes[j]}"),
                    x=left + (j + 0.5) * cell,
                    y=top + (i + 0.5) * cell + 4,
                    class_="count on" if dark else "count",
                )
            )
    correct, total = int(np.trace(counts)), int(counts.sum())
    description = f"{correct} of {total} examples lie on the diagonal."
    return svg(name, "Confusion matrix", description, left + size + 4, top + size + 4, *parts)


def _cell(i: int, j: int, share: float, left: float, top: float, cell: float) -> Markup:
    gap = 1 if cell > 12 else 0
    opacity = 0.12 + 0.88 * (share if i == j else np.sqrt(share))
    return element(
        "rect",
        x=left + j * cell + gap / 2,
        y=top + i * cell + gap / 2,
        width=cell - gap,
        height=cell - gap,
        class_="right" if i == j else "wrong",
        fill_opacity=round(float(opacity), 2),
    )
