"""The sections of the page for a clinician about single cases: images, heat maps, outlines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnn_jax.report import masks, overlay, pictures, wording
from cnn_jax.report.clinic_page import Case, ClinicPage
from cnn_jax.report.layout import NOTHING, section
from cnn_jax.report.markup import Markup, element, join, name_of

_LONGEST = 192  # pixels of a picture; two lie beside each other
_KEY_HEIGHT, _KEY_WIDTH = 3, 24  # pixels of the line in the key to an outline


def by_risk(page: ClinicPage) -> Markup:
    """The test examples with the highest risk, and how to read their pictures."""
    lead = (
        f"The {len(page.highest)} of {sum(page.on_test.counts):,} test examples to which the model "
        "gives the highest risk, highest first. Orange words mark a wrong decision."
    )
    return section("Cases by risk", _with_notes(lead, page), _legend(page), _cards(page.highest))


def failures(page: ClinicPage) -> Markup:
    """What the line misses, and what it flags without cause."""
    _, false_alarms, missed, _ = page.on_test.counts
    return section(
        "Failures",
        "A wrong label and a difficult image look alike here.",
        *_listed("Missed", page.missed, missed, "have it and are not flagged, lowest risk first"),
        *_listed(
            "False alarms",
            page.alarms,
            false_alarms,
            "do not have it and are flagged, highest risk first",
        ),
    )


def _listed(title: str, shown: Sequence[Case], count: int, which: str) -> tuple[Markup, Markup]:
    if not count:
        return element("h3", title), element("p", "There are none.", class_="quiet")
    words = f"{title}: {len(shown)} of {count:,} that {which}"
    return element("h3", words), _cards(shown)


def _with_notes(lead: str, page: ClinicPage) -> str:
    return " ".join(text for text in (lead, page.heat_note, page.pictures_note) if text)


def _legend(page: ClinicPage) -> Markup:
    cases = (*page.highest, *page.missed, *page.alarms)
    parts = []
    if any(case.heat is not None and case.heat.any() for case in cases):
        scale = element("img", src=pictures.data_uri(overlay.legend()), alt="from orange to yellow")
        parts.append(element("span", "least ", scale, " most, in this image"))
    if any(case.given is not None and case.given.any() for case in cases):
        parts.append(_key("outline of the reference", masks.GIVEN, "blue"))
    if any(case.marked is not None and case.marked.any() for case in cases):
        parts.append(_key("outline by the network", masks.PREDICTED, "orange"))
    return element("p", *parts, class_="heat-legend") if parts else NOTHING


def _key(words: str, colour: tuple[int, int, int], name: str) -> Markup:
    line = np.full((_KEY_HEIGHT, _KEY_WIDTH, 3), colour, np.uint8)
    return element("span", element("img", src=pictures.data_uri(line), alt=name), f" {words}")


def _cards(cases: Sequence[Case]) -> Markup:
    return element("ol", *(_card(case) for case in cases), class_="cases")


def _card(case: Case) -> Markup:
    wrong = "wrong" if case.flagged != case.positive else None
    return element(
        "li",
        _pictures(case),
        element(
            "p",
            element("b", f"risk {_worded(case.risk)}"),
            " ",
            element("span", "flagged" if case.flagged else "not flagged", class_=wrong),
        ),
        element("p", "truth: ", name_of(case.truth)),
        element("small", name_of(case.id), class_="id", title=case.id),
    )


def _worded(risk: float) -> str:
    """As per cent, never rounded to certainty."""
    if 0.0005 <= risk < 0.9995:
        return wording.percent(risk)
    return f"{'above' if risk > 0.5 else 'below'} {wording.percent(0.999 if risk > 0.5 else 0.001)}"


def _pictures(case: Case) -> Markup:
    if case.image is None:
        return NOTHING
    plain = element(
        "img",
        src=pictures.data_uri(overlay.enlarged(case.image, _LONGEST)),
        alt=f"image of {case.id}",
    )
    return element("div", join([plain, _beside(case, case.image)]), class_="pair")


def _beside(case: Case, image: np.ndarray) -> Markup:
    """The second picture of a case: its heat map, its outlines, or both."""
    outlines = [
        (mask, colour)
        for mask, colour in ((case.given, masks.GIVEN), (case.marked, masks.PREDICTED))
        if mask is not None and mask.any()
    ]
    if case.heat is not None and case.heat.any():
        pixels = overlay.overlaid(image, case.heat, _LONGEST)
        shown = "heat map and outline" if outlines else "heat map"
    elif outlines:
        pixels, shown = overlay.enlarged(image, _LONGEST), "outlines"
    elif case.marked is not None:
        return element("span", "nothing is marked in it: no outlines")
    elif case.heat is not None:
        return element("span", "nothing in it speaks for the class: no heat map")
    else:
        return NOTHING
    pixels = masks.drawn(pixels, *outlines)
    return element("img", src=pictures.data_uri(pixels), alt=f"{shown} of {case.id}")
