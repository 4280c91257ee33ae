"""The page of an inspection: what passes, what fails and where, what cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnn_jax.report import overlay, pictures, wording
from cnn_jax.report.layout import NOTHING, facts_section, section, unread_section
from cnn_jax.report.markup import Markup, element, join, name_of
from cnn_jax.report.render import document

_LONGEST = 192  # pixels of a picture; two lie beside each other


@dataclass(frozen=True, eq=False)
class Shown:
    """One picture of the page.

    Attributes:
      name: of the file.
      score: higher for what is more anomalous.
      picture: uint8 `[h, w, C]`.
      heat: float32 `[h, w]`, 0 or more; None where the detector has no maps.
    """

    name: str
    score: float
    picture: np.ndarray
    heat: np.ndarray | None


@dataclass(frozen=True, eq=False)
class InspectionPage:
    """Everything the page shows.

    Attributes:
      counts: `pass`, `fail` and `unread` -> how many.
      threshold: a picture fails above it.
      promise: what the line promises, in words.
      kept: what became of the promise on test, in words, or empty.
      failed, passed: some that fail and that barely pass, highest score first.
      unread: files that cannot be read, and why.
      facts: (label, value) of the detector.
      command: shell command that made the page.
    """

    counts: Mapping[str, int]
    threshold: float
    promise: str
    kept: str
    failed: Sequence[Shown]
    passed: Sequence[Shown]
    unread: Sequence[tuple[str, str]]
    facts: Sequence[tuple[str, str]]
    command: str


def render(page: InspectionPage) -> str:
    """The page as HTML; everything from outside is escaped."""
    parts = (
        _title(page),
        _failed(page),
        _passed(page),
        unread_section(page.unread, "They have no verdict.", "the table of all"),
        facts_section("The detector", page.facts, page.command),
    )
    return document("inspection", parts)


def _title(page: InspectionPage) -> Markup:
    looked = page.counts["pass"] + page.counts["fail"]
    share = wording.percent(page.counts["fail"] / looked) if looked else "none"
    unread = (
        element("p", f"{page.counts['unread']:,} cannot be read", class_="interval-text")
        if page.counts["unread"]
        else NOTHING
    )
    return element(
        "header",
        element("h1", "Inspection ", element("span", f"{sum(page.counts.values()):,} files")),
        element(
            "div",
            element(
                "div",
                element("p", "fail", class_="label"),
                element("p", f"{page.counts['fail']:,}", element("span", share), class_="figure"),
                element("p", f"{page.counts['pass']:,} pass", class_="interval-text"),
                unread,
            ),
            element("div", element("p", page.promise), element("p", page.kept, class_="quiet")),
            class_="headline",
        ),
        class_="title",
    )


def _failed(page: InspectionPage) -> Markup:
    count = page.counts["fail"]
    if not count:
        return section("What fails", "Nothing does.")
    lead = f"The {len(page.failed)} of {count:,} with the highest score, highest first."
    if any(shown.heat is not None for shown in page.failed):
        lead += " Beside each, where it looks least normal."
    return section("What fails", lead, _legend(page.failed), _cards(page.failed, page.threshold))


def _so_many(shown: int, count: int) -> str:
    return f"All {count:,}" if shown == count else f"The worst {shown:,} of {count:,}"


def _passed(page: InspectionPage) -> Markup:
    if not page.passed:
        return NOTHING
    return section(
        "What barely passes",
        f"Of {page.counts['pass']:,} that pass those nearest to the line.",
        _cards(page.passed, page.threshold),
    )


def _legend(some: Sequence[Shown]) -> Markup:
    if all(shown.heat is None for shown in some):
        return NOTHING
    scale = element("img", src=pictures.data_uri(overlay.legend()), alt="from orange to yellow")
    return element(
        "p", element("span", "least ", scale, " most, in this picture"), class_="heat-legend"
    )


def _cards(some: Sequence[Shown], threshold: float) -> Markup:
    return element("ol", *(_card(shown, threshold) for shown in some), class_="cases")


def _card(shown: Shown, threshold: float) -> Markup:
    plain = element(
        "img",
        src=pictures.data_uri(overlay.enlarged(shown.picture, _LONGEST)),
        alt=f"picture {shown.name}",
    )
    parts = [plain]
    if shown.heat is not None:
        pixels = overlay.overlaid(shown.picture, shown.heat, _LONGEST)
        parts.append(element("img", src=pictures.data_uri(pixels), alt=f"heat map of {shown.name}"))
    return element(
        "li",
        element("div", join(parts), class_="pair"),
        element("p", element("b", f"score {shown.score:.4g}"), f" line {threshold:.4g}"),
        element("small", name_of(shown.name), class_="id", title=shown.name),
    )
