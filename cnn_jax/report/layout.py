"""What every section is made of: a heading, tables, names with a small line below."""

from __future__ import annotations

from collections.abc import Sequence

from cnn_jax.report import wording
from cnn_jax.report.markup import Markup, element, join, name_of

NOTHING = Markup("")
_UNREAD = 100  # files that a page names; its table on disk has all


def section(title: str, lead: str, *content: str) -> Markup:
    """A titled section with a sentence on how to read it."""
    paragraph = element("p", lead, class_="lead") if lead else NOTHING
    return element("section", element("header", element("h2", title), paragraph), *content)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str]) -> Markup:
    """A table whose columns have the classes `kinds`; it scrolls sideways if it must."""
    cells = [
        element("th", text, scope="col", class_=kind)
        for text, kind in zip(head, kinds, strict=True)
    ]
    body = [
        element(
            "tr",
            *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)),
        )
        for row in rows
    ]
    head_row = element("thead", element("tr", *cells))
    return element("div", element("table", head_row, element("tbody", *body)), class_="scroll")


def unread_section(unread: Sequence[tuple[str, str]], lead: str, all_in: str) -> Markup:
    """The files that cannot be read, and why; nothing where there is none.

    Args:
      unread: (file, why) of each.
      lead: what that means for them.
      all_in: where the others of many are.
    """
    if not unread:
        return NOTHING
    rows = [(name_of(name), why) for name, why in unread[:_UNREAD]]
    if more := len(unread) - len(rows):
        lead += f" {more:,} more are in {all_in}."
    return section("What cannot be read", lead, table(("file", "why"), rows, ("name", "name")))


def facts_section(title: str, facts: Sequence[tuple[str, str]], command: str) -> Markup:
    """What something was made with: (label, value) of each fact, and the shell command."""
    rows = [(name_of(label), name_of(value)) for label, value in facts]
    return section(
        title,
        "",
        table(("", ""), rows, ("name", "name")),
        element("pre", command) if command else NOTHING,
    )


def named(name: str, small: str) -> Markup:
    """A name from outside, with a small line below it unless that is empty."""
    return join([name_of(name), element("small", small) if small else NOTHING])


def ends_worded(ends: tuple[float, float]) -> Markup:
    """The two ends of an interval strip, as the heading of its column."""
    return join(element("span", wording.percent(end, decimals=0)) for end in ends)
