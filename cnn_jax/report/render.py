"""The page of a run as one HTML file: no network, no script."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import resources

from cnn_jax.report import classes, hardest, masks, recognition, running, sections
from cnn_jax.report.markup import Markup, element
from cnn_jax.report.page import Page
from cnn_jax.whole_files import write_whole

# Even if a value got through unescaped, the browser would load and run nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_SECTIONS = (
    sections.title,
    sections.figures,
    sections.baselines,
    masks.cases,
    recognition.verification,
    recognition.hardest_pairs,
    recognition.people,
    recognition.groups_of_people,
    hardest.hardest,
    classes.classes,
    hardest.confused,
    hardest.errors_by_class,
    sections.confidence,
    running.training,
    sections.filters,
    recognition.careful_use,
    running.notes,
    running.facts,
    running.test_uses,
    running.command,
)


# Within a frame a page needs neither wide margins nor a line above its first section.
_FRAMED = "main { padding: 8px 20px } section { margin: 0; padding: 0; border: 0 }"


def render(page: Page) -> str:
    """The page as HTML with its style, charts and pictures inside.

    Everything from outside is escaped. Sections without content are left out.
    """
    return document(f"{page.dataset}, {page.model}", [part(page) for part in _SECTIONS])


def document(title: str, content: Iterable[str]) -> str:
    """A page of its own: the head with policy and style, and the content."""
    style = resources.files("cnn_jax.report").joinpath("style.css").read_text("utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(style)),
    )
    body = element("body", element("main", *content))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


@dataclass(frozen=True)
class Shown:
    """A part of a page that a notebook shows, in a frame of its own so that styles do not mix.

    Attributes:
      title: of the part.
      content: its markup.
      height: of the frame in pixels; it scrolls.
    """

    title: str
    content: Markup = field(repr=False)
    height: int = 640

    def _repr_html_(self) -> str:
        page = document(self.title, [element("style", Markup(_FRAMED)), self.content])
        return element(
            "iframe",
            srcdoc=page,
            width="100%",
            height=self.height,
            style="border:0",
            title=self.title,
        )


def write(page: Page, path: str | os.PathLike[str]) -> None:
    """Write `render(page)` to `path` as UTF-8; the file appears whole or not at all."""
    write_whole(path, render(page))
