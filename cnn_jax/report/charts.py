"""Line charts and interval strips as SVG.

Colours and fonts come from the classes of style.css, so a chart follows the light or dark
page around it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cnn_jax.evaluation import Estimate
from cnn_jax.report import wording
from cnn_jax.report.markup import Markup, element, join
from cnn_jax.report.scale import (
    Domain,
    Scale,
    domain_from_zero,
    domain_of_fractions,
    whole_ticks,
)

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 50, 64, 10, 26
LABEL_SPACING = 15


@dataclass(frozen=True)
class Series:
    """One line: its label, its colour (a class of style.css) and a value an epoch.

    None is a gap; NaN and infinity are gaps marked by a cross.
    """

    label: str
    color: str
    values: tuple[float | None, ...]


def svg(
    name: str, title: str, description: str, width: float, height: float, *content: str
) -> Markup:
    """An `<svg>` with a title and a description for those who do not see it."""
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", description, id=f"{name}-description"),
        *content,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_labelledby=f"{name}-title {name}-description",
        class_="chart",
        style=f"max-width:{1.35 * width:.0f}px",
    )


def label(x: float, y: float, text: str, class_: str) -> Markup:
    """Text at a point; `class_` says where it is anchored and how it looks."""
    return element("text", text, x=x, y=y, class_=class_)


def line_chart(
    name: str,
    title: str,
    epochs: Sequence[int],
    series: Sequence[Series],
    *,
    fractions: bool = False,
) -> Markup:
    """A `<figure>`: values by epoch, each line labelled at its end.

    The caption states the range of an axis of fractions, and whether one is logarithmic.

    Args:
      name: unique on the page; becomes part of ids.
      title: what is drawn.
      epochs: position of each value.
      series: one or two lines over the same epochs, with at least one finite value.
      fractions: whether the values are fractions, shown as per cent.
    """
    finite = [v for line in series for v in line.values if v is not None and math.isfinite(v)]
    domain = domain_of_fractions(finite) if fractions else domain_from_zero(finite)
    y = Scale(domain.low, domain.high, HEIGHT - BOTTOM, TOP, domain.log)
    first, last = min(epochs), max(epochs)
    margin = 0.5 if first == last else 0.0
    x = Scale(first - margin, last + margin, LEFT, WIDTH - RIGHT)
    content = [
        _horizontal_grid(domain, y, fractions),
        *(label(x(k), HEIGHT - 8, str(k), "tick middle") for k in whole_ticks(first, last)),
        label(WIDTH - RIGHT + 18, HEIGHT - 8, "epoch", "tick"),
        *(_line(line, epochs, x, y) for line in series),
        _crosses(series, epochs, x),
        _end_labels(series, epochs, x, y, fractions),
    ]
    scale = _scale_note(domain, fractions)
    description = ", ".join(
        f"{line.label or title} ends at {_worded(_last(line)[1], fractions)}"
        for line in series
        if _last(line)[0] >= 0
    )
    return element(
        "figure",
        element("figcaption", element("b", title), " ", element("span", scale)),
        svg(name, title, f"{scale} {description}".strip(), WIDTH, HEIGHT, *content),
    )


def _worded(value: float, fractions: bool) -> str:
    return wording.percent(value) if fractions else wording.number(value)


def _scale_note(domain: Domain, fractions: bool) -> str:
    if domain.log:
        return "logarithmic axis"
    if fractions:
        low, high = (wording.tick(100 * end) for end in (domain.low, domain.high))
        return f"axis from {low} to {high} %"
    return "" if domain.low == 0 else f"axis from {wording.tick(domain.low)}"


def _horizontal_grid(domain: Domain, y: Scale, fractions: bool) -> Markup:
    parts = []
    for value in domain.ticks:
        height = y(value)
        text = wording.tick(100 * value if fractions else value)
        parts.append(
            element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=height, y2=height, class_="grid")
        )
        parts.append(label(LEFT - 8, height + 4, text, "tick end"))
    return join(parts)


def _line(line: Series, epochs: Sequence[int], x: Scale, y: Scale) -> Markup:
    """The line, broken where a value is missing; a value without neighbours is a dot."""
    parts: list[Markup] = []
    run: list[tuple[float, float]] = []
    for epoch, value in zip((*epochs, 0), (*line.values, None), strict=True):
        if value is not None and math.isfinite(value):
            run.append((x(epoch), y(value)))
            continue
        if len(run) == 1:
            parts.append(
                element("circle", cx=run[0][0], cy=run[0][1], r=3.2, class_=f"dot {line.color}")
            )
        elif run:
            path = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in run)
            parts.append(element("path", d=path, class_=f"line {line.color}"))
        run = []
    return join(parts)


def _crosses(series: Sequence[Series], epochs: Sequence[int], x: Scale) -> Markup:
    """A cross on the axis at each epoch with a value that is not finite."""
    bad = sorted(
        {
            epoch
            for line in series
            for epoch, value in zip(epochs, line.values, strict=True)
            if value is not None and not math.isfinite(value)
        }
    )
    base = HEIGHT - BOTTOM
    parts = [
        element("path", d=f"M{x(epoch) - 4:.1f} {base - 4}l8 8m0-8l-8 8", class_="cross")
        for epoch in bad
    ]
    if bad:
        parts.append(label(x(bad[-1]) + 9, base + 1, "not finite", "tick"))
    return join(parts)


def _last(line: Series) -> tuple[int, float]:
    """Position and value of the last finite value; position -1 if there is none."""
    for k in range(len(line.values) - 1, -1, -1):
        value = line.values[k]
        if value is not None and math.isfinite(value):
            return k, value
    return -1, math.nan


def _end_labels(
    series: Sequence[Series], epochs: Sequence[int], x: Scale, y: Scale, fractions: bool
) -> Markup:
    """The name of each line (or its last value, if it is alone) beside its last point."""
    places = []
    for line in series:
        position, value = _last(line)
        if position >= 0:
            text = line.label or _worded(value, fractions)
            places.append((y(value), x(epochs[position]), text, line.color))
    places.sort()
    if len(places) == 2 and places[1][0] - places[0][0] < LABEL_SPACING:
        middle = (places[0][0] + places[1][0]) / 2
        middle = min(max(middle, TOP + LABEL_SPACING / 2), HEIGHT - BOTTOM - LABEL_SPACING / 2)
        heights = [middle - LABEL_SPACING / 2, middle + LABEL_SPACING / 2]
    else:
        heights = [place[0] for place in places]
    return join(
        label(px + 7, height + 4, text, f"series-label {color}")
        for height, (_, px, text, color) in zip(heights, places, strict=True)
    )


def strip_domain(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Common ends for interval strips of fractions: a round number below them, and 1."""
    ends = [v for e in estimates for v in (e.value, e.low, e.high) if math.isfinite(v)]
    if not ends:
        return 0.0, 1.0
    domain = domain_of_fractions([max(0.0, min(ends)), 1.0])
    return domain.low, 1.0


def interval_strip(estimate: Estimate, ends: tuple[float, float], color: str = "one") -> Markup:
    """A dot with its interval on a line from `ends[0]` to `ends[1]`, as wide as its place."""
    scale = Scale(ends[0], ends[1], 2, 98)

    def place(value: float) -> str:
        return f"{scale(min(max(value, ends[0]), ends[1])):.2f}%"

    parts = [element("line", x1="2%", x2="98%", y1=8, y2=8, class_="grid")]
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        low, high = place(estimate.low), place(estimate.high)
        parts.append(element("line", x1=low, x2=high, y1=8, y2=8, class_=f"interval {color}"))
    if math.isfinite(estimate.value):
        parts.append(
            element("circle", cx=place(estimate.value), cy=8, r=4.5, class_=f"dot {color}")
        )
    return element("svg", *parts, width="100%", height=16, class_="strip", aria_hidden="true")
