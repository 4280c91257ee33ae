"""Figures of the principles as SVG: accuracy by shift and angle, probes, likeness of layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnn_jax.evaluation import Estimate
from cnn_jax.report import overlay, pictures, wording
from cnn_jax.report.charts import label, svg
from cnn_jax.report.curves import path
from cnn_jax.report.frame import (
    BASE,
    HEIGHT,
    LEFT,
    RIGHT,
    SIDE,
    TOP,
    WIDTH,
    axes,
    axis_names,
)
from cnn_jax.report.markup import Markup, element, join, name_of
from cnn_jax.report.scale import Scale, domain_of_fractions


def accuracy_by_shift(accuracy: np.ndarray) -> Markup:
    """A `<figure>`: a square for each shift, from up and left to down and right.

    Args:
      accuracy: float `[2 r + 1, 2 r + 1]`, see `principles.accuracy_by_shift`.
    """
    largest = len(accuracy) // 2
    low, high = float(accuracy.min()), float(accuracy.max())
    shifts = range(-largest, largest + 1)
    cells = _cells(accuracy, low, high)
    side = SIDE / len(accuracy)
    marks = [(LEFT + (k + 0.5) * side, shift) for k, shift in enumerate(shifts)]
    every = max(1, len(marks) // 4)
    chosen = [mark for mark in marks if mark[1] % every == 0]
    texts = [label(at, BASE + 17, f"{shift:g}", "tick middle") for at, shift in chosen]
    texts += [label(LEFT - 8, at - LEFT + TOP + 4, f"{shift:g}", "tick end")
              for at, shift in chosen]  # fmt: skip
    still = float(accuracy[largest, largest])
    caption = (
        f"from {wording.percent(low)} to {wording.percent(high)}; unmoved {wording.percent(still)}"
    )
    return _figure(
        "by-shift", "Accuracy by shift", caption,
        (cells, *texts, *axis_names("pixels to the right", "pixels down")),
    )  # fmt: skip


def accuracy_by_angle(degrees: Sequence[float], accuracy: np.ndarray) -> Markup:
    """A `<figure>`: a line through the accuracy under each angle."""
    values = np.asarray(accuracy, np.float64)
    domain = domain_of_fractions(values.tolist())
    y = Scale(domain.low, domain.high, BASE, TOP)
    x = Scale(min(degrees), max(degrees), LEFT, RIGHT)
    up = [(tick, wording.tick(round(100 * tick, 6))) for tick in domain.ticks]
    ends = (
        f"{wording.percent(values[0])} upright, {wording.percent(values[-1])} at {degrees[-1]:g}°"
    )
    marked = [degree for k, degree in enumerate(degrees) if k % max(1, len(degrees) // 4) == 0]
    return _figure(
        "by-angle", "Accuracy by angle", ends,
        (
            axes([(degree, f"{degree:g}") for degree in marked], up, x, y),
            path(np.asarray(degrees, np.float64), values, x, y, "line one"),
            *axis_names("degrees", "accuracy, %"),
        ),
    )  # fmt: skip


def probes(
    layers: Sequence[str], trained: Sequence[Estimate], untrained: Sequence[Estimate]
) -> Markup:
    """A `<figure>`: accuracy of a linear classifier by layer, `layers[0]` being the pixels."""
    ends = [each.value for each in (*trained, *untrained)]
    domain = domain_of_fractions([*ends, *(each.low for each in trained)])
    y = Scale(domain.low, domain.high, BASE, TOP)
    x = Scale(0, max(1, len(layers) - 1), LEFT + 8, RIGHT - 8)
    steps = np.arange(len(layers))
    dots = [
        element("line", x1=x(k), x2=x(k), y1=y(max(each.low, domain.low)),
                y2=y(min(each.high, domain.high)), class_="interval one")
        for k, each in enumerate(trained)
    ]  # fmt: skip
    dots += [
        element("circle", cx=x(k), cy=y(each.value), r=3.5, class_="dot one")
        for k, each in enumerate(trained)
    ]
    up = [(tick, wording.tick(round(100 * tick, 6))) for tick in domain.ticks]
    across = [(k, str(k) if k else "pixels") for k in steps.tolist()]
    caption = join(
        [
            element("span", "trained", class_="key one"),
            ", ",
            element("span", "as initialised", class_="key two"),
        ]
    )
    return _figure(
        "probes", "Linear probes", caption,
        (
            axes(across, up, x, y),
            path(steps, np.array([each.value for each in untrained]), x, y, "line two"),
            path(steps, np.array([each.value for each in trained]), x, y, "line one"),
            *dots,
            *axis_names("layer", "accuracy, %"),
        ),
    )  # fmt: skip


def likeness(layers: Sequence[str], cka: np.ndarray, of: str) -> Markup:
    """A `<figure>`: a square for each pair of layers, darker for what is more alike."""
    side = SIDE / max(len(cka), 1)
    texts = []
    for k in range(len(layers)):
        middle = (k + 0.5) * side
        texts.append(label(LEFT + middle, BASE + 17, str(k + 1), "tick middle"))
        texts.append(label(LEFT - 8, TOP + middle + 4, str(k + 1), "tick end"))
    return _figure(
        "likeness", "Likeness of layers", f"linear CKA, from 0 to 1, with {of}",
        (_cells(cka, 0.0, 1.0), *texts, *axis_names(f"layer of {of}", "layer")),
    )  # fmt: skip


def matrix(name: str, title: str, values: np.ndarray, across: str, down: str) -> Markup:
    """A `<figure>`: a square for each entry, in one colour above 0 and in another below.

    Args:
      name: unique on the page.
      title: what is drawn.
      values: float `[M, N]`; the more opaque the further from 0.
      across, down: what columns and rows are.
    """
    largest = float(np.abs(values).max()) or 1.0
    caption = f"{values.shape[0]} × {values.shape[1]}, {np.count_nonzero(values):,} not 0"
    cells = [
        _rectangles(np.maximum(sign * values, 0) / largest, kind, least=0.0)
        for sign, kind in ((1, "right"), (-1, "wrong"))
    ]
    frame = element("rect", x=LEFT, y=TOP, width=SIDE, height=SIDE, class_="frame")
    return _figure(name, title, caption, (frame, *cells, *axis_names(across, down)))


def influence(name: str, values: np.ndarray) -> Markup:
    """A list item: how much each pixel changes the middle of a layer, white for most."""
    pixels = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)[..., np.newaxis]
    picture = element(
        "img", src=pictures.data_uri(overlay.enlarged(pixels, 140)), alt=f"influence on {name}",
        class_="pixels",
    )  # fmt: skip
    return element("div", picture, element("p", name_of(name)))


def _cells(values: np.ndarray, low: float, high: float) -> Markup:
    """A square for each value, as opaque as it is high."""
    shares = (values - low) / (high - low) if high > low else np.ones(values.shape)
    shares = np.nan_to_num(shares, nan=-1.0)  # left open
    return _rectangles(shares, "right", least=0.06)


def _rectangles(shares: np.ndarray, kind: str, *, least: float) -> Markup:
    """One for each share, from `least` opaque to wholly; none where that is 0."""
    rows, columns = shares.shape
    height, width = SIDE / rows, SIDE / columns
    parts = []
    for (i, j), share in np.ndenumerate(shares):
        opacity = float(np.clip(least + (1 - least) * share, 0, 1)) if share >= 0 else 0.0
        if opacity > 0:
            parts.append(
                element(
                    "rect",
                    x=LEFT + j * width,
                    y=TOP + i * height,
                    width=width,
                    height=height,
                    class_=kind,
                    fill_opacity=opacity,
                )
            )
    return element("g", *parts)


def _figure(name: str, title: str, caption: str, content: Sequence[str]) -> Markup:
    described = caption if not isinstance(caption, Markup) else title
    return element(
        "figure",
        element("figcaption", element("b", title), " ", element("span", caption)),
        svg(name, title, described, WIDTH, HEIGHT, *content),
    )
