"""The page of an inventory: how many of each class, what a person is to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cnn_jax.report import overlay, pictures, wording
from cnn_jax.report.layout import NOTHING, facts_section, section, table, unread_section
from cnn_jax.report.markup import Markup, element, name_of
from cnn_jax.report.render import document

if TYPE_CHECKING:
    from cnn_jax.decision import Count

_LONGEST = 160


@dataclass(frozen=True, eq=False)
class Unsure:
    """A picture for a person.

    Attributes:
      name: of the file.
      likeliest: the class it may show.
      probability: of that class.
      picture: uint8 `[h, w, 3]`.
      unknown: whether it is counted as unknown.
    """

    name: str
    likeliest: str
    probability: float
    picture: np.ndarray
    unknown: bool = False


@dataclass(frozen=True, eq=False)
class StockPage:
    """Everything the page shows.

    Attributes:
      counts: of each class.
      pictures: how many were counted.
      level: probability that a true number lies in its interval.
      drift: how much the share of right answers may differ from validation's.
      review: probability below which a picture is for a person.
      unsure_count: how many are.
      unknown: whether what is like none of the classes is counted as unknown.
      unsure: some of them, unknown ones first, then the least probable.
      unread: files that cannot be read, and why.
      facts: (label, value) of what was counted by.
      command: shell command that made the page.
    """

    counts: Sequence[Count]
    pictures: int
    level: float
    drift: float
    review: float
    unsure_count: int
    unknown: bool
    unsure: Sequence[Unsure]
    unread: Sequence[tuple[str, str]]
    facts: Sequence[tuple[str, str]]
    command: str


def render(page: StockPage) -> str:
    """The page as HTML; everything from outside is escaped."""
    parts = (
        _title(page),
        _counts(page),
        _unsure(page),
        unread_section(page.unread, "They are not counted.", "images.csv"),
        facts_section("How it was counted", page.facts, page.command),
    )
    return document("inventory", parts)


def _title(page: StockPage) -> Markup:
    known = page.counts[:-1] if page.unknown else page.counts
    seen, total = sum(count.low > 0 for count in known), f"of {len(known):,}"
    unread = (
        element("p", f"{len(page.unread):,} cannot be read", class_="interval-text")
        if page.unread
        else NOTHING
    )
    sure, drift = (wording.percent(share, decimals=0) for share in (page.level, page.drift))
    shows = "" if page.unknown else "each picture shows one of these classes, and "
    promise = (
        "Each number is corrected for what the network mistakes. The true one lies in its interval "
        f"with probability {sure}, as long as {shows}the share of a class that is answered right "
        f"differs from validation by no more than about {drift}, up or down."
    )
    if page.unknown:
        promise += (
            " No validation image says how many of the unknown ones are told as such: that makes "
            "their number, and with it the others, the less certain. Pictures that are unlike "
            "validation's, of another camera, day or light, are taken for unknown more often, for "
            "which no interval allows: look at those below."
        )
    return element(
        "header",
        element("h1", "Inventory ", element("span", f"{page.pictures:,} pictures")),
        element(
            "div",
            element(
                "div",
                element("p", "classes that are surely there", class_="label"),
                element("p", f"{seen:,}", element("span", total), class_="figure"),
                element("p", f"{page.unsure_count:,} for a person", class_="interval-text"),
                unread,
            ),
            element("div", element("p", promise)),
            class_="headline",
        ),
        class_="title",
    )


def _counts(page: StockPage) -> Markup:
    present = sorted(
        (count for count in page.counts if count.high > 0),
        key=lambda count: (-count.mean, count.name),
    )
    absent = len(page.counts) - len(present)
    rows = [
        (
            name_of(count.name),
            f"{count.mean:,.1f}",
            f"{count.low:,} to {count.high:,}",
            f"{count.answered:,}",
        )
        for count in present
    ]
    lead = "Most first. As answered is what plain counting of the network's answers would give."
    if absent:
        lead += f" Of {absent:,} more classes there is none."
    head = ("class", "number", f"{wording.percent(page.level, decimals=0)} interval", "as answered")
    return section("How many", lead, table(head, rows, ("name", "number", "number", "number")))


def _unsure(page: StockPage) -> Markup:
    if not page.unsure_count:
        return section("For a person", "The network is sure of every picture.")
    like = ", or they are like none of the classes" if page.unknown else ""
    lead = (
        f"Of {page.unsure_count:,} pictures the network gives no class "
        f"{wording.percent(page.review, decimals=0)} or more{like}: they may show something that "
        "is none of the classes. They are counted as what is named: take away those that are "
        "something else, and count again."
    )
    if len(page.unsure) < page.unsure_count:
        lead += f" The {len(page.unsure):,} least sure ones; images.csv has all."
    cards = element("ol", *(map(_card, page.unsure)), class_="cases")
    return section("For a person", lead, cards)


def _card(shown: Unsure) -> Markup:
    picture = element(
        "img",
        src=pictures.data_uri(overlay.enlarged(shown.picture, _LONGEST)),
        alt=f"picture {shown.name}",
    )
    likeliest = f" {wording.percent(shown.probability)}"
    if shown.unknown:
        words = element("p", element("b", "unknown"), ", or ", name_of(shown.likeliest), likeliest)
    else:
        words = element("p", element("b", name_of(shown.likeliest)), likeliest)
    return element(
        "li",
        picture,
        words,
        element("small", name_of(shown.name), class_="id", title=shown.name),
    )
