"""The page of explanations: whether each method can be trusted here, and its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnn_jax.evaluation import Estimate
from cnn_jax.report import overlay, pictures, wording
from cnn_jax.report.layout import NOTHING, facts_section, named, section, table, unread_section
from cnn_jax.report.markup import Markup, element, join, name_of
from cnn_jax.report.render import document

_LONGEST = 160  # pixels of a picture


@dataclass(frozen=True, eq=False)
class AuditRow:
    """What the audit of a method found.

    Attributes:
      method, words: its name, and what it shows.
      weights: `passes`, `fails` or `cannot be told`.
      retained: of its maps when weights are drawn anew.
      deletion, insertion, road, edges: gains over controls.
      failures: sentences.
    """

    method: str
    words: str
    weights: str
    retained: Estimate
    deletion: Estimate
    insertion: Estimate
    road: Estimate
    edges: Estimate
    failures: Sequence[str]


@dataclass(frozen=True, eq=False)
class ExplainedImage:
    """An image and its maps.

    Attributes:
      name: of the file.
      answer: what is explained, such as `cat, 98.1 %`.
      picture: uint8 `[h, w, C]`.
      maps: method -> float32 `[h, w]`, signed or not.
    """

    name: str
    answer: str
    picture: np.ndarray
    maps: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class ExplanationsPage:
    """Everything the page shows."""

    dataset: str
    model: str
    audits: Sequence[AuditRow]
    audited: int
    of_class: str | None
    audited_otherwise: bool
    images: Sequence[ExplainedImage]
    refused: Sequence[tuple[str, str]]
    unread: Sequence[tuple[str, str]]
    facts: Sequence[tuple[str, str]]
    command: str


def render(page: ExplanationsPage) -> str:
    """The page as HTML; everything from outside is escaped."""
    heading = element("h1", name_of(page.dataset), " ", element("span", name_of(page.model)))
    parts = (
        element("header", heading, element("p", _verdict(page), class_="sentence"), class_="title"),
        _audits(page),
        _images(page),
        unread_section(page.unread, "They are not explained.", "the list on stderr"),
        facts_section("How it was made", page.facts, page.command),
    )
    return document(f"explanations: {page.dataset}, {page.model}", parts)


def _verdict(page: ExplanationsPage) -> str:
    if not page.audits:
        return "Not audited: whether these maps show what the network has learned is not known."
    good = [audit.method for audit in page.audits if not audit.failures]
    if not good:
        return "On this network no method here passes its audit: do not rely on these maps."
    bad = len(page.audits) - len(good)
    said = f"On this network {_listed(good)} pass{'es' if len(good) == 1 else ''} the audit"
    return f"{said}; {bad} do{'es' if bad == 1 else ''} not." if bad else f"{said}."


def _of_class(page: ExplanationsPage) -> str:
    if page.of_class is not None and not page.audited_otherwise:
        return f"all of '{page.of_class}', of this class"
    said = "of the class that the network holds likeliest"
    return f"{said}, since too few are of '{page.of_class}'" if page.audited_otherwise else said


def _listed(names: Sequence[str]) -> str:
    words = [name.replace("_", " ") for name in names]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _audits(page: ExplanationsPage) -> Markup:
    if not page.audits:
        return NOTHING
    rows = [
        (
            named(audit.method.replace("_", " "), audit.words),
            join(
                [audit.weights, element("small", f"{wording.percent(audit.retained.value)} left")]
            ),
            _gain(audit.deletion),
            _gain(audit.insertion),
            _gain(audit.road),
            _gain(audit.edges),
        )
        for audit in page.audits
    ]
    said = [
        element(
            "li", element("b", f"{audit.method.replace('_', ' ')}: "), "; ".join(audit.failures)
        )
        for audit in page.audits
        if audit.failures
    ]
    return section(
        "Can they be trusted here?",
        f"On {page.audited:,} validation images, {_of_class(page)}. "
        "Weights: whether maps change when the network's "
        "weights are drawn anew. Deletion, insertion and ROAD: how much more the probability hangs "
        "on the pixels that a map holds high than on pixels in random order, or in the order of an "
        "edge detector; with intervals, paired by image.",
        table(
            ("method", "weights", "deletion", "insertion", "ROAD", "deletion, edges"),
            rows,
            ("name", "name", "number gain", "number gain", "number gain", "number gain"),
        ),
        element("ul", *said, class_="notes") if said else NOTHING,
        element("ul", *(element("li", element("b", f"{name.replace('_', ' ')}: "), why)
                        for name, why in page.refused), class_="notes") if page.refused
        else NOTHING,
    )  # fmt: skip


def _gain(gain: Estimate) -> Markup:
    value, low, high = (
        f"{each:.2f}".replace("-", "−") for each in (gain.value, gain.low, gain.high)
    )
    sign = "+" if gain.value > 0 else ""
    return join([f"{sign}{value}", element("small", f"{low} to {high}")])


def _images(page: ExplanationsPage) -> Markup:
    legend = element("img", src=pictures.data_uri(overlay.legend()), alt="from orange to yellow")
    return section(
        "Maps",
        "Orange to yellow is where a map is highest, each on its own scale: where the image speaks "
        "for the class, or, of saliency, SmoothGrad and guided backpropagation, where a change of "
        "it changes the answer most. What speaks against the class is not shown.",
        element("p", element("span", "little ", legend, " most"), class_="heat-legend"),
        element("ol", *(_image(image) for image in page.images), class_="class-errors maps"),
    )


def _image(image: ExplainedImage) -> Markup:
    shown = [
        element("li", _picture(overlay.enlarged(image.picture, _LONGEST), image.name),
                element("small", "image"))
    ]  # fmt: skip
    for method, heat in image.maps.items():
        shown.append(
            element(
                "li",
                _picture(overlaid(image.picture, heat), f"{method} of {image.name}"),
                element("small", method.replace("_", " ")),
            )
        )
    return element(
        "li",
        element("p", element("b", name_of(image.name)), element("small", image.answer)),
        element("ol", *shown),
    )


def _picture(pixels: np.ndarray, alt: str) -> Markup:
    return element("img", src=pictures.data_uri(pixels), alt=alt)


def overlaid(picture: np.ndarray, heat: np.ndarray, longest: int = _LONGEST) -> np.ndarray:
    """uint8: the picture with what is positive in a map on it; as it is where nothing is.

    Of a map that is nowhere negative, or 0, what it holds more than its lowest pixel is shown. A
    hundredth of the pixels, those highest, have the full colour, so that one of them does not leave
    all others dark.
    """
    heat = np.nan_to_num(heat)
    positive = np.maximum(heat - max(float(heat.min()), 0), 0)
    top = np.quantile(positive, 0.99)
    top = float(top if top > 0 else positive.max())
    if not top > 0:
        return overlay.enlarged(picture, longest)
    return overlay.overlaid(picture, np.minimum(positive / top, 1), longest)
