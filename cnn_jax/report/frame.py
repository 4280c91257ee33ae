"""The square frame of a curve: its place in the SVG, its axes, and what is marked within it."""

from __future__ import annotations

from collections.abc import Sequence

from cnn_jax.report.charts import label
from cnn_jax.report.markup import Markup, element, join
from cnn_jax.report.scale import Scale

LEFT, TOP, SIDE = 54, 10, 236
RIGHT, BASE = LEFT + SIDE, TOP + SIDE
WIDTH, HEIGHT = RIGHT + 18, BASE + 42
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)

# Marks on an axis: where, and what is written there.
Ticks = Sequence[tuple[float, str]]

PERCENT: Ticks = [(quarter, f"{100 * quarter:g}") for quarter in QUARTERS]


def axes(across: Ticks, up: Ticks, x: Scale, y: Scale) -> Markup:
    """Lines across at the marks of the upright axis, and the texts of both."""
    parts = []
    for value, text in up:
        height = y(value)
        parts.append(element("line", x1=LEFT, x2=RIGHT, y1=height, y2=height, class_="grid"))
        parts.append(label(LEFT - 8, height + 4, text, "tick end"))
    parts += [label(x(value), BASE + 17, text, "tick middle") for value, text in across]
    return join(parts)


def axis_names(across: str, up: str) -> tuple[Markup, Markup]:
    """What the axes show."""
    turned = f"translate(12 {TOP + SIDE / 2:g}) rotate(-90)"
    return (
        label(LEFT + SIDE / 2, BASE + 36, across, "axis middle"),
        element("text", up, class_="axis middle", transform=turned),
    )


def drawn_point(x: float, y: float, text: str, worded: str) -> Markup:
    """The place, in pixels, where a line was drawn; `worded` is its title."""
    # Below the curve, on the side where there is room.
    anchor, beside = ("end", -11) if x > LEFT + 0.55 * SIDE else ("start", 11)
    circle = element("circle", cx=x, cy=y, r=5.5)
    return join(
        [
            element("g", element("title", worded), circle, class_="drawn-point"),
            label(x + beside, min(y + 20, BASE - 6), text, f"haloed name {anchor}"),
        ]
    )


def drawn_line(x: float, text: str) -> Markup:
    """An upright line at x, in pixels."""
    anchor, beside = ("end", -6) if x > LEFT + 0.6 * SIDE else ("start", 6)
    return join(
        [
            element("line", x1=x, x2=x, y1=TOP, y2=BASE, class_="drawn-line"),
            label(x + beside, TOP + 12, text, f"haloed name {anchor}"),
        ]
    )
