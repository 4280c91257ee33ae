"""Lines and bands of curves as SVG paths."""

from __future__ import annotations

import numpy as np

from cnn_jax.report.markup import Markup, element, join
from cnn_jax.report.scale import Scale


def path(across: np.ndarray, up: np.ndarray, x: Scale, y: Scale, class_: str) -> Markup:
    """A line through points, float `[N]` each."""
    return element("path", d="M" + "L".join(_corners(across, up, x, y)), class_=class_)


def band(across: np.ndarray, low: np.ndarray, high: np.ndarray, x: Scale, y: Scale) -> Markup:
    """The space between the two, where both are known."""
    known = np.isfinite(low) & np.isfinite(high)
    runs = np.split(np.arange(len(known)), np.flatnonzero(np.diff(known.astype(int))) + 1)
    parts = []
    for run in runs:
        if known[run[0]] and len(run) > 1:
            there = _corners(across[run], high[run], x, y)
            back = _corners(across[run][::-1], low[run][::-1], x, y)
            parts.append(
                element("path", d="M" + "L".join([*there, *back]) + "Z", class_="band one")
            )
    return join(parts)


def stairs(across: np.ndarray, up: np.ndarray, *, up_first: bool) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the steps between points; `up_first` goes up or down before across."""
    x, y = np.repeat(across, 2), np.repeat(up, 2)
    return (x[:-1], y[1:]) if up_first else (x[1:], y[:-1])


def _corners(across: np.ndarray, up: np.ndarray, x: Scale, y: Scale) -> list[str]:
    """Tenths of a pixel, each place once: a curve of many examples needs no more."""
    places = [f"{x(a):.1f} {y(b):.1f}" for a, b in zip(across.tolist(), up.tolist(), strict=True)]
    return [place for k, place in enumerate(places) if k == 0 or place != places[k - 1]]
