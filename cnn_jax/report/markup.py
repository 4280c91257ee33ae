"""HTML and SVG that cannot forget to escape.

`element` escapes every child and every attribute; only what it made itself, a `Markup`,
passes through. The rest of the room never concatenates tags by hand.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

# Elements without content: written `<img/>`, which HTML and SVG both read.
_EMPTY = frozenset({"meta", "link", "img", "col", "circle", "line", "path", "rect"})
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Markup(str):
    """Text that is HTML already and must not be escaped again."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """`text` as it should be read: markup escaped, unprintable characters made visible.

    Control characters and lone surrogates (file names that are not Unicode) become U+FFFD,
    because a UTF-8 page cannot hold them.
    """
    if isinstance(text, Markup):
        return text
    unicode_text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return Markup(html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", unicode_text)))


def join(parts: Iterable[str]) -> Markup:
    """The parts one after the other, each escaped unless it is markup."""
    return Markup("".join(escape(part) for part in parts))


def element(tag: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """`<tag attributes>children</tag>`, escaped.

    Args:
      tag: name of the element.
      *children: text, escaped unless it is `Markup`.
      **attributes: `class_` stands for `class`, other underscores for hyphens; None leaves
        the attribute out; numbers keep six significant digits.
    """
    written = []
    for name, value in attributes.items():
        if value is None:
            continue
        text = value if isinstance(value, str) else f"{value:.6g}"
        written.append(f' {name.rstrip("_").replace("_", "-")}="{escape(text)}"')
    opening = f"<{tag}{''.join(written)}"
    if tag in _EMPTY:
        return Markup(f"{opening}/>")
    return Markup(f"{opening}>{join(children)}</{tag}>")


def name_of(text: str) -> Markup:
    """A name from outside; isolated, so that right-to-left text does not turn its neighbours."""
    return element("bdi", text)
