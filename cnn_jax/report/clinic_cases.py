"""The sections of the page for a clinician about single cases, with images and heat maps."""

from __future__ import annotations

from collections.abc import Sequence

from cnn_jax.report import overlay, pictures, wording
from cnn_jax.report.clinic_page import Case, ClinicPage
from cnn_jax.report.layout import NOTHING, section
from cnn_jax.report.markup import Markup, element, join, name_of

_LONGEST = 192  # pixels of a picture; two lie beside each other


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
    if not any(case.heat is not None and case.heat.any() for case in cases):
        return NOTHING
    return element(
        "p",
        "least ",
        element("img", src=pictures.data_uri(overlay.legend()), alt="from orange to yellow"),
        " most, in this image",
        class_="heat-legend",
    )


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
    if case.heat is None:
        return element("div", plain, class_="pair")
    if not case.heat.any():
        nothing = element("span", "nothing in it speaks for the class: no heat map")
        return element("div", plain, nothing, class_="pair")
    hot = element(
        "img",
        src=pictures.data_uri(overlay.overlaid(case.image, case.heat, _LONGEST)),
        alt=f"heat map of {case.id}",
    )
    return element("div", join([plain, hot]), class_="pair")
