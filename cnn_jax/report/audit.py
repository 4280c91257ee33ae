"""The page of an audit: copies and near-copies of a data set, side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnn_jax.report import pictures
from cnn_jax.report.layout import NOTHING, section, table
from cnn_jax.report.markup import Markup, element, name_of
from cnn_jax.report.pictures import SMALL_IMAGE
from cnn_jax.report.render import document
from cnn_jax.whole_files import write_whole


@dataclass(frozen=True, eq=False)
class Shown:
    """One image of a pair.

    Attributes:
      image: uint8 `[H, W, C]`.
      part, id, label: in words.
    """

    image: np.ndarray
    part: str
    id: str
    label: str


@dataclass(frozen=True)
class Pair:
    """Two images that are copies.

    Attributes:
      first, second: the images.
      correlation: of near-copies; None where every pixel is equal.
    """

    first: Shown
    second: Shown
    correlation: float | None


@dataclass(frozen=True)
class AuditPage:
    """Everything the page shows.

    Attributes:
      dataset: its name.
      counts: rows of (what, number of equal images, number of near-copies).
      pairs: in the order in which they are shown.
      found: how many pairs there are in all.
      notes: what a reader should know, a sentence each.
    """

    dataset: str
    counts: Sequence[tuple[str, str, str]]
    pairs: Sequence[Pair]
    found: int
    notes: Sequence[str]


def render(page: AuditPage) -> str:
    """The page as HTML with its style and pictures inside; all text is escaped."""
    heading = element("h1", name_of(page.dataset), " ", element("span", "copies"))
    summary = section(
        "Counts",
        "Images of the first part named that have a copy in the second; near-copies also by way of "
        "other images.",
        table(
            ("where", "equal", "near-copies"),
            [(where, equal, near) for where, equal, near in page.counts],
            ("name", "number", "number"),
        ),
    )
    body = (element("header", heading, class_="title"), summary, _pairs(page), _notes(page))
    return document(f"{page.dataset}, copies", body)


def write(page: AuditPage, path: str | os.PathLike[str]) -> None:
    """Write `render(page)` to `path` as UTF-8; the file appears whole or not at all."""
    write_whole(path, render(page))


def _pairs(page: AuditPage) -> Markup:
    if not page.pairs:
        return section("Pairs", "There are none.")
    return section(
        "Pairs",
        f"{len(page.pairs)} of {page.found:,}: those between parts first, then those with "
        "different labels. Below each image its part, label and id.",
        element("ol", *(_pair(pair) for pair in page.pairs), class_="pairs"),
    )


def _pair(pair: Pair) -> Markup:
    how = "equal" if pair.correlation is None else f"correlation {pair.correlation:.3f}"
    differ = pair.first.label != pair.second.label
    return element(
        "li",
        element("p", how, ", ", element("b", "labels differ"), class_="quiet")
        if differ
        else element("p", how, class_="quiet"),
        _figure(pair.first),
        _figure(pair.second),
    )


def _figure(shown: Shown) -> Markup:
    pixels = pictures.thumbnail(shown.image)
    small = max(pixels.shape[:2]) < SMALL_IMAGE
    return element(
        "figure",
        element(
            "img",
            src=pictures.data_uri(pixels),
            alt=f"{shown.part}, {shown.label}",
            class_="pixels" if small else None,
        ),
        element("span", shown.part, ", ", element("b", name_of(shown.label))),
        element("small", name_of(shown.id), title=shown.id),
    )


def _notes(page: AuditPage) -> Markup:
    if not page.notes:
        return NOTHING
    return section("Notes", "", element("ul", *(element("li", n) for n in page.notes)))
