"""ROC, precision-recall and decision curves as SVG, with the line that was drawn on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnn_jax.evaluation import DecisionCurve, Estimate, PrecisionRecallCurve, RocCurve
from cnn_jax.report import wording
from cnn_jax.report.charts import svg
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

_X = Scale(0, 1, LEFT, RIGHT)
_Y = Scale(0, 1, BASE, TOP)


def roc_chart(curve: RocCurve, point: tuple[float, float]) -> Markup:
    """A `<figure>`: sensitivity against the share of false alarms.

    Args:
      curve: with its band.
      point: false positive and true positive rate of the line.
    """
    limits = curve.band
    x, y = stairs(curve.false_positive_rate, curve.true_positive_rate, up_first=False)
    chance = element("line", x1=LEFT, y1=BASE, x2=RIGHT, y2=TOP, class_="ideal")
    return _figure(
        "roc",
        "ROC curve",
        _area("area", curve.area),
        ("false alarms among those without, %", "found among those with, %"),
        (chance, band(limits.at, limits.low, limits.high, _X, _Y), path(x, y, _X, _Y, "line one")),
        point,
    )


def precision_recall_chart(
    curve: PrecisionRecallCurve, point: tuple[float, float] | None, prevalence: float
) -> Markup:
    """A `<figure>`: precision, which is the PPV, against recall, which is the sensitivity.

    Args:
      curve: with its band.
      point: recall and precision of the line; None where it flags no one.
      prevalence: precision of flagging by chance, dashed.
    """
    limits = curve.band
    # Flagging no one has no precision: the curve begins with the first that is flagged.
    precision = np.concatenate([curve.precision[1:2], curve.precision[1:]])
    x, y = stairs(curve.recall, precision, up_first=True)
    chance = element("line", x1=LEFT, x2=RIGHT, y1=_Y(prevalence), y2=_Y(prevalence),
                     class_="ideal")  # fmt: skip
    return _figure(
        "precision-recall",
        "Precision and recall",
        _area("average precision", curve.area),
        ("found among those with, %", "right among the flagged, %"),
        (chance, band(limits.at, limits.low, limits.high, _X, _Y), path(x, y, _X, _Y, "line one")),
        point,
    )


def benefit_chart(curve: DecisionCurve, line: float | None) -> Markup:
    """A `<figure>`: net benefit of flagging by the model, of flagging all, and of flagging none.

    Args:
      curve: with its interval.
      line: probability from which the line flags, marked if it is given.
    """
    top = max(float(np.nanmax(curve.model)), curve.prevalence)
    ticks = [tick for tick in round_ticks(0, top) if tick >= 0]
    y = Scale(-0.12 * ticks[-1], ticks[-1], BASE, TOP)
    inside = "url(#benefit-inside)"
    marked = NOTHING
    if line is not None and 0 < line < 1:
        marked = drawn_line(_X(line), "the line")
    content = [
        element("clipPath", element("rect", x=LEFT, y=TOP, width=SIDE, height=SIDE),
                id="benefit-inside"),
        axes(PERCENT, [(tick, wording.tick(round(tick, 6))) for tick in ticks], _X, y),
        element("line", x1=LEFT, x2=RIGHT, y1=y(0), y2=y(0), class_="ideal"),
        element(
            "g",
            band(curve.thresholds, curve.low, curve.high, _X, y),
            path(curve.thresholds, curve.treat_all, _X, y, "line two"),
            path(curve.thresholds, curve.model, _X, y, "line one"),
            clip_path=inside,
        ),
        marked,
        *axis_names("flagged from this probability on, %", "net benefit"),
    ]  # fmt: skip
    caption = element(
        "figcaption",
        element("b", "Net benefit"),
        " ",
        element("span", "by the model", class_="key one"),
        ", ",
        element("span", "flagging all", class_="key two"),
        ", ",
        element("span", "flagging none (dashed)"),
    )
    description = "Net benefit by threshold probability, of the model, of flagging all and none."
    return element(
        "figure", caption, svg("benefit", "Decision curve", description, WIDTH, HEIGHT, *content)
    )


def _figure(
    name: str,
    title: str,
    caption: str,
    names: tuple[str, str],
    content: Sequence[str],
    point: tuple[float, float] | None,
) -> Markup:
    marked, worded = NOTHING, caption
    if point is not None:
        across, up = (wording.percent(value) for value in point)
        worded = f"{caption}; the line lies at {across} across, {up} up"
        marked = drawn_point(
            _X(point[0]), _Y(point[1]), "the line", f"the line: {across} across, {up} up"
        )
    return element(
        "figure",
        element("figcaption", element("b", title), " ", element("span", caption)),
        svg(
            name, title, worded, WIDTH, HEIGHT,
            axes(PERCENT, PERCENT, _X, _Y), *content, marked, *axis_names(*names),
        ),
    )  # fmt: skip


def _area(name: str, area: Estimate) -> str:
    return f"{name} {wording.value(area)} ({wording.interval(area)})"
