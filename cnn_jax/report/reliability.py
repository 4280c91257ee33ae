"""The reliability diagram: accuracy against confidence, as SVG."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnn_jax.evaluation import Estimate, Reliability
from cnn_jax.report import wording
from cnn_jax.report.charts import label, svg
from cnn_jax.report.markup import Markup, element, join
from cnn_jax.report.scale import Scale

LEFT, TOP, SIDE = 42, 10, 236
BAR_HEIGHT = 34
BASE = TOP + SIDE + 12 + BAR_HEIGHT
FEW_EXAMPLES = 10

_X = Scale(0, 1, LEFT, LEFT + SIDE)
_Y = Scale(0, 1, TOP + SIDE, TOP)


@dataclass(frozen=True)
class _Bin:
    start: float
    end: float
    count: int
    confidence: float
    accuracy: float
    low: float
    high: float


def reliability_diagram(
    name: str,
    title: str,
    reliability: Reliability,
    ece: Estimate | None,
    words: tuple[str, str] = ("confidence", "accuracy"),
) -> Markup:
    """A `<figure>`: the accuracy of each bin with its interval, and its count below.

    A bin with fewer than `FEW_EXAMPLES` examples is faded; an empty one is not drawn.

    Args:
      name: unique on the page; becomes part of ids.
      title: what the confidence comes from.
      reliability: the bins.
      ece: expected calibration error, for the caption.
      words: what lies across and what lies up.
    """
    caption = ""
    if ece is not None:
        caption = f"expected calibration error {wording.value(ece)} ({wording.interval(ece)})"
    r = reliability
    columns = (r.edges[:-1], r.edges[1:], r.count, r.confidence, r.accuracy, r.low, r.high)
    bins = [_Bin(*(column[k].item() for column in columns)) for k in np.flatnonzero(r.count)]
    return element(
        "figure",
        element("figcaption", element("b", title), " ", element("span", caption)),
        svg(
            name,
            f"Reliability, {title}",
            caption,
            LEFT + SIDE + 20,
            BASE + 26,
            _axes(),
            *(_drawn(b, int(r.count.max()), words) for b in bins),
        ),
    )


def _axes() -> Markup:
    right = LEFT + SIDE
    parts = [element("line", x1=LEFT, x2=right, y1=BASE, y2=BASE, class_="grid")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        height, text = _Y(tick), f"{100 * tick:g}"
        parts.append(element("line", x1=LEFT, x2=right, y1=height, y2=height, class_="grid"))
        parts.append(label(LEFT - 8, height + 4, text, "tick end"))
        parts.append(label(_X(tick), BASE + 17, text, "tick middle"))
    parts.append(element("line", x1=_X(0), y1=_Y(0), x2=_X(1), y2=_Y(1), class_="ideal"))
    return join(parts)


def _drawn(b: _Bin, largest_count: int, words: tuple[str, str]) -> Markup:
    start, width = _X(b.start) + 1, _X(b.end) - _X(b.start) - 2
    bar = BAR_HEIGHT * b.count / largest_count
    band = {"y": _Y(b.high), "height": max(_Y(b.low) - _Y(b.high), 1)}
    worded = (
        f"{b.count} examples, {words[0]} {wording.percent(b.confidence)}, "
        f"{words[1]} {wording.percent(b.accuracy)}"
    )
    return element(
        "g",
        element("title", worded),
        element("rect", x=start, width=width, rx=2, class_="band one", **band),
        element("circle", cx=_X(b.confidence), cy=_Y(b.accuracy), r=3.6, class_="dot one"),
        element("rect", x=start, width=width, y=BASE - bar, height=bar, class_="bar one"),
        class_="few" if b.count < FEW_EXAMPLES else None,
    )
