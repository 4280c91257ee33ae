"""Ratios with their intervals as an SVG that stands alone, light or dark as its reader is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from cnn_jax.bench.results import Row
from cnn_jax.bench.text import digits
from cnn_jax.report.markup import Markup, element, join
from cnn_jax.report.scale import Scale

WIDTH, LEFT, TOP = 760, 150, 86
COLUMN = 48  # width of a column of numbers
ROW, GROUP = 22, 34  # heights of a part, and of the name of its case
MOST_ROWS = 60
_COLOURS = ("one", "two", "three", "four")
_STYLE = """
.sheet { fill: #fdfcfa } text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
fill: #1c1f24; font-variant-numeric: tabular-nums } .title { font-size: 18px }
.quiet { fill: #646a73; font-size: 12px }
.case { font-weight: 600; paint-order: stroke; stroke: #fdfcfa; stroke-width: 4px }
.end { text-anchor: end }
.middle { text-anchor: middle } .grid { stroke: #e4e1db } .even { stroke: #646a73 }
.interval { stroke-width: 3; stroke-linecap: round; opacity: 0.45 }
.one { fill: #0a5f9e; stroke: #0a5f9e } .two { fill: #b4530a; stroke: #b4530a }
.three { fill: #5b7f2b; stroke: #5b7f2b } .four { fill: #8a4c9e; stroke: #8a4c9e }
text.one, text.two, text.three, text.four { stroke: none }
@media (prefers-color-scheme: dark) { .sheet { fill: #14161a } .case { stroke: #14161a }
text { fill: #e9e7e2 }
.quiet { fill: #9ea4ae } .grid { stroke: #2c3037 } .even { stroke: #9ea4ae }
.one { fill: #6cb4ee; stroke: #6cb4ee } .two { fill: #f2a25c; stroke: #f2a25c }
.three { fill: #a5cf6e; stroke: #a5cf6e } .four { fill: #cf9be0; stroke: #cf9be0 } }
"""


def ratios(rows: Sequence[Row]) -> Markup:
    """Each comparison as a dot on a logarithmic axis; left of 1 the rival is faster.

    Args:
      rows: of one benchmark, at least one. Of more than `MOST_ROWS`, the first in the order of
        the largest ratio are drawn, and the picture says so.
    """
    colours = {
        pair: _COLOURS[index % len(_COLOURS)]
        for index, pair in enumerate(dict.fromkeys(map(_pair, rows)))
    }
    drawn = _drawn(rows)
    x = _scale(drawn, WIDTH - 32 - COLUMN * len(colours))
    body = list(_body(drawn, colours, x))
    lines = len({(row.case, row.part) for row in drawn})
    height = TOP + lines * ROW + len({row.case for row in drawn}) * GROUP + 40
    return element(
        "svg",
        element("title", f"{rows[0].benchmark}: {', '.join(colours)}"),
        element("style", Markup(_STYLE)),
        element("rect", width=WIDTH, height=height, class_="sheet"),
        _head(rows, drawn, colours),
        _axis(x, height),
        *body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
    )


def _pair(row: Row) -> str:
    return f"{row.rival} / {row.reference}"


def _drawn(rows: Sequence[Row]) -> list[Row]:
    """All rows, or those of the slowest cases, in their own order."""
    slowest = sorted(rows, key=lambda row: -row.ratio)[:MOST_ROWS]
    kept = {(row.case, row.part) for row in slowest}
    return [row for row in rows if (row.case, row.part) in kept]


def _scale(rows: Sequence[Row], end: float) -> Scale:
    """From a power of two below the lowest end to one above the highest; 1 is inside."""
    low = min(0.5, *(row.low for row in rows))
    high = max(2.0, *(row.high for row in rows))
    return Scale(
        2.0 ** math.floor(math.log2(low)),
        2.0 ** math.ceil(math.log2(high)),
        LEFT,
        end,
        log=True,
    )


def _head(rows: Sequence[Row], drawn: Sequence[Row], colours: dict[str, str]) -> Markup:
    first = rows[0]
    with_torch = f", PyTorch {first.torch}" if first.torch else ""
    where = f"{first.hardware}, {first.dtype}, jax {first.jax}{with_torch}, {first.pairs} pairs"
    left_out = len(rows) - len(drawn)
    note = f"; the {len(drawn)} highest of {len(rows)}" if left_out else ""
    legend, place = [], 20
    for pair, colour in colours.items():
        legend.append(element("circle", cx=place, cy=64, r=4.5, class_=colour))
        legend.append(_text(place + 10, 68, pair, colour))
        place += 34 + 7 * len(pair)
    return join(
        [
            _text(16, 28, f"{first.benchmark}: ratio of times, left of 1 is faster{note}", "title"),
            _text(16, 47, where, "quiet"),
            *legend,
        ]
    )


def _axis(x: Scale, height: float) -> Markup:
    first, last = round(math.log2(x.low)), round(math.log2(x.high))
    every = max(1, math.ceil((last - first) / 8))
    ticks = sorted({2.0**k for k in range(-every * 20, last + 1, every) if k >= first})
    parts = []
    for tick in ticks:
        class_ = "even" if tick == 1 else "grid"
        parts.append(element("line", x1=x(tick), x2=x(tick), y1=TOP, y2=height - 30, class_=class_))
        name = f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}"
        parts.append(_text(x(tick), height - 12, name, "quiet middle"))
    return join(parts)


def _body(rows: Sequence[Row], colours: dict[str, str], x: Scale) -> Iterator[Markup]:
    y = float(TOP)
    for case, of_case in itertools.groupby(rows, key=lambda row: row.case):
        yield _text(16, y + 22, case, "case")
        y += GROUP
        for part, of_part in itertools.groupby(of_case, key=lambda row: row.part):
            yield _text(LEFT - 16, y + 4, part, "end")
            for row in of_part:
                colour = colours[_pair(row)]
                column = list(colours).index(_pair(row)) - len(colours) + 1
                ends = {"x1": x(row.low), "x2": x(row.high), "y1": y, "y2": y}
                yield element("line", class_=f"interval {colour}", **ends)
                yield element("circle", cx=x(row.ratio), cy=y, r=4.5, class_=colour)
                place = WIDTH - 16 + COLUMN * column
                yield _text(place, y + 4, digits(row.ratio), f"end {colour}")
            y += ROW


def _text(x: float, y: float, text: str, class_: str) -> Markup:
    return element("text", text, x=x, y=y, class_=class_)
