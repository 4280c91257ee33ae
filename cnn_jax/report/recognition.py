"""The sections of the page about people never seen: scores, errors, pairs, and careful use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cnn_jax.evaluation import ErrorCurve, Estimate, SubgroupRow
from cnn_jax.report import pictures, wording
from cnn_jax.report.layout import NOTHING, named, section, table
from cnn_jax.report.markup import Markup, element, join, name_of
from cnn_jax.report.recognition_charts import det_chart, map_chart, roc_chart, score_chart

if TYPE_CHECKING:
    from cnn_jax.report.page import Page

SHOWN_PAIRS = 9
_SHOWN_PEOPLE = 20
_GALLERIES = (10, 100, 1_000, 10_000)

_CAREFULLY = (
    "Faces are personal data, in many places of a kind that is protected most: recognise people "
    "only who have agreed to that, for what they have agreed to, and delete what they take back "
    "('cnn-jax gallery remove' does, down to the bytes on disk).",
    "Face sets and weights that were trained on them have licences, most of them for research "
    "alone; some sets were withdrawn because those shown had never been asked. That of this set is "
    "below, under Facts.",
    "Error rates differ between groups of people, such as by age, skin colour and sex, and most "
    "for those of whom few were learned from. One figure for all hides that: measure each group "
    "before use (further columns of a table of images, or evaluation.verification_by_subgroup).",
    "A score is no proof of who somebody is. Let a human decide where an error harms someone, and "
    "give those concerned a way to object.",
)


@dataclass(frozen=True, eq=False)
class PairShown:
    """A pair of test images.

    Attributes:
      score: their cosine.
      names: who is on each.
      ids: of the two in their split.
      images: uint8 `[H, W, C]` of both, or None where they cannot be read.
    """

    score: float
    names: tuple[str, str]
    ids: tuple[str, str]
    images: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class PersonErrors:
    """What goes wrong with one person at the threshold.

    Attributes:
      name: of the person.
      images: of them.
      rejected, genuine: pairs of their own that are rejected, and all.
      accepted, impostor: pairs with others that are accepted, and all.
      lost: images whose most alike other image is not theirs.
    """

    name: str
    images: int
    rejected: int
    genuine: int
    accepted: int
    impostor: int
    lost: int


@dataclass(frozen=True, eq=False)
class UnseenPeople:
    """What the page shows of test people whom the network has not seen.

    Attributes:
      genuine, impostor: float64, the scores of both kinds of pairs.
      curve: their error rates, with a band.
      threshold: two images are taken to be of one person from this score on.
      chosen: how it was chosen on the validation part, one or two sentences.
      realised: `far` and `frr` of the threshold on the test part.
      lowest, highest: genuine pairs with the lowest score, impostor pairs with the highest.
      people: errors of each person, most first.
      places, names: float `[N, 2]` and N names: the map.
      explained: share of the variance on the map.
      subgroups: property of people -> the errors of the threshold within each of its groups.
      subgroups_note: what is known of them, one or two sentences.
      drawn: which pairs were drawn, where there are too many for all; else empty.
    """

    genuine: np.ndarray
    impostor: np.ndarray
    curve: ErrorCurve
    threshold: float
    chosen: str
    realised: Mapping[str, Estimate]
    lowest: tuple[PairShown, ...]
    highest: tuple[PairShown, ...]
    people: tuple[PersonErrors, ...]
    places: np.ndarray
    names: tuple[str, ...]
    explained: float
    subgroups: Mapping[str, tuple[SubgroupRow, ...]] = field(default_factory=dict)
    subgroups_note: str = ""
    drawn: str = ""

    @property
    def of_drawn(self) -> str:
        """A sentence where the pairs are not all there are."""
        return f" Not of all pairs: {self.drawn}." if self.drawn else ""


def verification(page: Page) -> Markup:
    """Scores, ROC and DET curve, and the threshold."""
    shown = page.unseen
    if shown is None:
        return NOTHING
    far, frr = shown.realised["far"], shown.realised["frr"]
    point = None
    if np.isfinite(shown.threshold):
        point = far.value, frr.value
    rows = [
        (named(name, wording.origin(e)), wording.value(e), wording.interval(e))
        for name, e in (("false accepts (FAR)", far), ("false rejects (FRR)", frr))
    ]
    return section(
        "Verification",
        "Are two images of one person? Pairs of test images, all of people whom the network has "
        f"not seen. Bands hold {100 * shown.curve.level:g} in 100 at each false accept rate, over "
        f"resamples of people.{shown.of_drawn}",
        element(
            "div",
            score_chart(shown.genuine, shown.impostor, shown.threshold),
            roc_chart(shown.curve, point),
            det_chart(shown.curve, point),
            class_="charts",
        ),
        element("h3", "The threshold"),
        table(("on the test part", "rate", "interval"), rows, ("name", "number", "number quiet")),
        element("p", shown.chosen, class_="lead"),
    )


def hardest_pairs(page: Page) -> Markup:
    """The pairs that verification finds hardest, with their pictures."""
    shown = page.unseen
    if shown is None or not (shown.lowest or shown.highest):
        return NOTHING
    lead = "A wrong name and a difficult picture look alike here; above each pair its cosine."
    lead += shown.of_drawn
    if all(pair.images is None for pair in (*shown.lowest, *shown.highest)):
        lead += " The images could not be read, so there are no pictures."
    parts = []
    for title, pairs in (
        ("One person, least alike", shown.lowest),
        ("Two people, most alike", shown.highest),
    ):
        if pairs:
            cards = element("ol", *(_pair(pair) for pair in pairs), class_="pairs")
            parts.append(join([element("h3", title), cards]))
    return section("Hardest pairs", lead, *parts)


def _pair(pair: PairShown) -> Markup:
    figures = []
    for side in (0, 1):
        picture = NOTHING
        if pair.images is not None:
            pixels = pictures.thumbnail(pair.images[side], 192)
            picture = element(
                "img",
                src=pictures.data_uri(pixels),
                alt=pair.names[side],
                class_="pixels" if max(pixels.shape[:2]) < pictures.SMALL_IMAGE else None,
            )
        figures.append(
            element(
                "figure",
                picture,
                element("span", name_of(pair.names[side])),
                element("small", name_of(pair.ids[side]), title=pair.ids[side]),
            )
        )
    return element("li", element("p", f"cosine {pair.score:.3f}", class_="quiet"), *figures)


def people(page: Page) -> Markup:
    """Errors of each person, and the map."""
    shown = page.unseen
    if shown is None:
        return NOTHING
    rows = [
        (
            name_of(person.name),
            str(person.images),
            _share(person.rejected, person.genuine),
            _share(person.accepted, person.impostor),
            _share(person.lost, person.images),
        )
        for person in shown.people[:_SHOWN_PEOPLE]
    ]
    which = "Each test person"
    if len(shown.people) > len(rows):
        which = f"The {len(rows)} test people of {len(shown.people)} with the most errors"
    return section(
        "Person by person",
        f"{which}: pairs of their own that the threshold rejects, pairs with others that it "
        "accepts, and images whose most alike other image is somebody else's. On the map are the "
        "embeddings by their two principal components; who is apart there is apart, who is not "
        f"may still be.{shown.of_drawn}",
        element(
            "div",
            table(
                ("person", "images", "rejected", "accepted", "lost"),
                rows,
                ("name", "number", "number", "number", "number"),
            ),
            map_chart(shown.places, shown.names, shown.explained),
            class_="beside",
        ),
    )


def _share(count: int, whole: int) -> str:
    return f"{count:,} of {whole:,}" if whole else wording.MISSING


def groups_of_people(page: Page) -> Markup:
    """Errors of the threshold within groups of people."""
    shown = page.unseen
    if shown is None or not shown.subgroups_note:
        return NOTHING
    rows = [
        (
            join([name_of(group.name), element("small", name_of(target))]),
            str(group.subjects),
            *_rate(group.far),
            *_rate(group.frr),
        )
        for target, groups in shown.subgroups.items()
        for group in groups
    ]
    head = ("people", "how many", "false accepts", "interval", "false rejects", "interval")
    kinds = ("name", "number quiet", "number", "number quiet", "number", "number quiet")
    body = table(head, rows, kinds) if rows else NOTHING
    return section("Groups of people", shown.subgroups_note + shown.of_drawn, body)


def _rate(rate: Estimate | None) -> tuple[str, str]:
    if rate is None:
        return wording.MISSING, ""
    return wording.value(rate), wording.interval(rate)


def careful_use(page: Page) -> Markup:
    """What to mind before anyone is recognised, and what a rate means for many people."""
    shown = page.unseen
    if shown is None:
        return NOTHING
    far = shown.realised["far"]
    rows = [(f"{n:,}", _false_match(far.value, n), _false_match(far.high, n)) for n in _GALLERIES]
    return section(
        "Careful use",
        "",
        element("ul", *(element("li", text) for text in _CAREFULLY), class_="notes"),
        element("h3", "What the false accept rate means for n people"),
        table(
            ("people enrolled", "found wrongly, at the rate on test", "at its upper end"),
            rows,
            ("number", "number", "number"),
        ),
        element(
            "p",
            "Whoever is not enrolled is compared with all n who are: the probability that one of "
            "them is wrongly found is 1 − (1 − FAR)ⁿ, if comparisons are independent.",
            class_="lead",
        ),
    )


def _false_match(far: float, n: int) -> str:
    """The probability that a search among n finds somebody wrongly."""
    return wording.percent(1 - (1 - far) ** n if np.isfinite(far) else None)
