"""Charts of verification as SVG: scores, error rates with their bands, and a map of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from cnn_jax.evaluation import ErrorCurve
from cnn_jax.report import wording
from cnn_jax.report.charts import label, svg
from cnn_jax.report.curves import band, path, stairs
from cnn_jax.report.frame import (
    BASE,
    HEIGHT,
    LEFT,
    PERCENT,
    RIGHT,
    SIDE,
    TOP,
    WIDTH,
    axes,
    axis_names,
    drawn_line,
    drawn_point,
)
from cnn_jax.report.layout import NOTHING
from cnn_jax.report.markup import Markup, element
from cnn_jax.report.scale import Scale, round_ticks

_BINS = 40
_NAMED = 12  # people whose names fit on a map
_DEVIATES = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8)


def score_chart(genuine: np.ndarray, impostor: np.ndarray, threshold: float) -> Markup:
    """A `<figure>`: how the scores of both kinds of pairs are spread.

    Args:
      genuine, impostor: float `[P]`, cosines.
      threshold: marked; infinity accepts no pair and is not.
    """
    both = np.concatenate([genuine, impostor])
    ticks = round_ticks(float(both.min()), float(both.max()))
    x = Scale(ticks[0], ticks[-1], LEFT, RIGHT)
    edges = np.linspace(ticks[0], ticks[-1], _BINS + 1)
    shares = [np.histogram(kind, edges)[0] / len(kind) for kind in (genuine, impostor)]
    top = float(max(share.max() for share in shares))
    y = Scale(0, 1.05 * top, BASE, TOP)
    across = np.repeat(edges, 2)
    shapes = []
    for share, color in zip(shares, ("one", "two"), strict=True):
        up = np.concatenate([[0.0], np.repeat(share, 2), [0.0]])
        shapes.append(path(across, up, x, y, f"line {color}"))
    marked = NOTHING
    if ticks[0] <= threshold <= ticks[-1]:
        marked = drawn_line(x(threshold), "the threshold")
    up_ticks = [(tick, f"{100 * tick:g}") for tick in round_ticks(0, top) if tick <= 1.05 * top]
    content = (
        axes([(tick, wording.tick(round(tick, 6))) for tick in ticks], up_ticks, x, y),
        *shapes,
        marked,
        *axis_names("cosine of the two embeddings", "share of the pairs, %"),
    )
    return element(
        "figure",
        element(
            "figcaption",
            element("b", "Scores"),
            " ",
            element("span", f"{len(genuine):,} pairs of one person", class_="key one"),
            ", ",
            element("span", f"{len(impostor):,} of two", class_="key two"),
        ),
        svg("scores", "Scores", "Cosines of genuine and impostor pairs.", WIDTH, HEIGHT, *content),
    )


def roc_chart(curve: ErrorCurve, point: tuple[float, float] | None) -> Markup:
    """A `<figure>`: the true accept rate by the false one, whose axis is logarithmic.

    Args:
      curve: with its band.
      point: false accept and false reject rate of the threshold, or None.
    """
    least = float(curve.at[0])
    x, y = Scale(least, 1, LEFT, RIGHT, log=True), Scale(0, 1, BASE, TOP)
    far = np.maximum(curve.far, least)  # what is below the least that can be shown lies at the edge
    across, up = stairs(far, 1 - curve.frr, up_first=False)
    decades = [10.0**k for k in range(int(np.ceil(np.log10(least) - 1e-9)), 1)]
    return _rates_figure(
        ("verification-roc", "ROC curve", "false accepts by true accepts"),
        axes(
            [(far, f"{100 * far:g}") for far in decades],
            PERCENT,
            x,
            y,
        ),
        (band(curve.at, 1 - curve.high, 1 - curve.low, x, y), path(across, up, x, y, "line one")),
        ("false accept rate, %", "true accept rate, %"),
        None
        if point is None
        else drawn_point(
            x(max(point[0], least)), y(1 - point[1]), "the threshold", _worded(*point)
        ),
    )


def det_chart(curve: ErrorCurve, point: tuple[float, float] | None) -> Markup:
    """A `<figure>`: both error rates by their normal quantiles, where normal scores make a line.

    Args: as of `roc_chart`.
    """
    least = max(float(curve.at[0]) / 2, 1e-6)
    most = 0.9

    def deviate(rates: np.ndarray) -> np.ndarray:
        normal = NormalDist()
        return np.array([normal.inv_cdf(min(max(r, least), most)) for r in rates.tolist()])

    low, high = deviate(np.array([least, most])).tolist()
    x, y = Scale(low, high, LEFT, RIGHT), Scale(low, high, BASE, TOP)
    ticks = [
        (float(deviate(np.array([rate]))[0]), f"{100 * rate:g}")
        for rate in _DEVIATES
        if rate > least
    ]
    shown = (curve.far > 0) & (curve.far < most)
    line = path(deviate(curve.far[shown]), deviate(curve.frr[shown]), x, y, "line one")
    inside = curve.at < most
    known = np.isfinite(curve.low) & np.isfinite(curve.high) & inside
    area = band(
        deviate(curve.at[known]), deviate(curve.low[known]), deviate(curve.high[known]), x, y
    )
    equal = element("line", x1=LEFT, y1=BASE, x2=RIGHT, y2=TOP, class_="ideal")
    marked = None
    if point is not None:
        a, b = deviate(np.array(point)).tolist()
        marked = drawn_point(x(a), y(b), "the threshold", _worded(*point))
    return _rates_figure(
        ("det", "DET curve", "normal quantiles; on the dashed line both are equal"),
        axes(ticks, ticks, x, y),
        (equal, area, line if shown.any() else NOTHING),
        ("false accept rate, %", "false reject rate, %"),
        marked,
    )


def map_chart(places: np.ndarray, names: Sequence[str], explained: float) -> Markup:
    """A `<figure>`: embeddings on their first two principal components, a colour for each person.

    Args:
      places: float `[N, 2]`.
      names: N, who is on each image.
      explained: share of the variance that the two components have.
    """
    span = max(float(np.abs(places).max()), 1e-9)
    x, y = Scale(-span, span, LEFT, RIGHT), Scale(-span, span, BASE, TOP)
    people = sorted(set(names))
    hue = {name: 137.508 * k % 360 for k, name in enumerate(people)}  # neighbours far apart
    dots = [
        element(
            "circle",
            cx=x(a),
            cy=y(b),
            r=3.5,
            style=f"fill:hsl({hue[name]:.0f} 60% 50%)",
            fill_opacity=0.8,
        )
        for (a, b), name in zip(places.tolist(), names, strict=True)
    ]
    words = []
    if len(people) <= _NAMED:
        who = np.asarray(names)
        for name in people:
            a, b = places[who == name].mean(axis=0).tolist()
            text = wording.shortened(name, 14)
            words.append(label(x(a), y(b) - 7, text, "haloed name middle"))
    frame = element("rect", x=LEFT, y=TOP, width=SIDE, height=SIDE, class_="frame")
    caption = f"{wording.percent(explained)} of the variance; {len(people)} people, a colour each"
    return element(
        "figure",
        element("figcaption", element("b", "Map"), " ", element("span", caption)),
        svg("map", "Map of the embeddings", caption, WIDTH, HEIGHT, frame, *dots, *words),
    )


def _rates_figure(
    named: tuple[str, str, str],
    marks: Markup,
    content: Sequence[str],
    names: tuple[str, str],
    point: Markup | None,
) -> Markup:
    name, title, caption = named
    drawn = NOTHING if point is None else point
    return element(
        "figure",
        element("figcaption", element("b", title), " ", element("span", caption)),
        svg(name, title, caption, WIDTH, HEIGHT, marks, *content, drawn, *axis_names(*names)),
    )


def _worded(far: float, frr: float) -> str:
    return (
        f"the threshold: {wording.percent(far)} false accepts, {wording.percent(frr)} false rejects"
    )
