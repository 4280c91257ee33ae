"""The page for a clinician as one HTML file: what a yes-or-no decision is worth, and its cases."""

from __future__ import annotations

import os

from cnn_jax.evaluation import Estimate
from cnn_jax.report import clinic_cases, wording
from cnn_jax.report.charts import interval_strip, strip_domain
from cnn_jax.report.clinic_card import model_card
from cnn_jax.report.clinic_charts import benefit_chart, precision_recall_chart, roc_chart
from cnn_jax.report.clinic_page import Case, ClinicPage, Subgroup
from cnn_jax.report.layout import ends_worded, named, section, table
from cnn_jax.report.markup import Markup, element, join, name_of
from cnn_jax.report.reliability import reliability_diagram
from cnn_jax.report.render import document
from cnn_jax.whole_files import write_whole

__all__ = ["Case", "ClinicPage", "Subgroup", "render", "write"]

_NAMES = {
    "sensitivity": ("sensitivity", "of those with it, flagged"),
    "specificity": ("specificity", "of those without it, not flagged"),
    "ppv": ("PPV", "of the flagged, those with it"),
    "npv": ("NPV", "of those not flagged, those without it"),
    "accuracy": ("accuracy", "right decisions"),
}


def render(page: ClinicPage) -> str:
    """The page as HTML with its style, charts and pictures inside; all text is escaped."""
    parts = (
        _title,
        _figures,
        _decisions,
        _curves,
        _calibration,
        _benefit,
        clinic_cases.by_risk,
        clinic_cases.failures,
        model_card,
    )
    return document(f"{page.positive}, {page.model}", [part(page) for part in parts])


def write(page: ClinicPage, path: str | os.PathLike[str]) -> None:
    """Write `render(page)` to `path` as UTF-8; the file appears whole or not at all."""
    write_whole(path, render(page))


def _title(page: ClinicPage) -> Markup:
    found = page.on_test
    n = sum(found.counts)
    sick = found.counts[0] + found.counts[2]
    warning = (
        "For research only. This is no medical device: nothing on this page may decide what is "
        "done for a patient."
    )
    return element(
        "header",
        element("p", warning, class_="remark warning"),
        element(
            "h1",
            "Is it ",
            name_of(page.positive),
            "?",
            element("span", name_of(page.model), " on ", name_of(page.dataset)),
        ),
        element(
            "div",
            _large("sensitivity", found.sensitivity),
            _large("specificity", found.specificity),
            class_="two-figures",
        ),
        element(
            "p",
            f"On {n:,} test examples, of which {sick:,} ({wording.percent(sick / n)}) are ",
            name_of(page.positive),
            f". The line was drawn on {page.fitted_on} by this rule: {page.rule}. "
            f"{page.line[:1].upper()}{page.line[1:]}.",
            class_="sentence",
        ),
        *(element("p", name_of(note), class_="remark") for note in _leaks(page)),
        class_="title clinic",
    )


def _leaks(page: ClinicPage) -> list[str]:
    """What the notes say of test images that training may have seen: the figures hang on it."""
    seen = (note for note in page.notes if "test images" in note)
    return [note for note in seen if "were dropped" not in note]


def _large(name: str, estimate: Estimate) -> Markup:
    number, _, unit = wording.value(estimate).partition("\N{NO-BREAK SPACE}")
    return element(
        "div",
        element("p", name, class_="label"),
        element("p", number, element("span", unit), class_="figure"),
        element("p", wording.interval(estimate), class_="interval-text"),
        element("p", wording.origin(estimate), class_="quiet"),
    )


def _figures(page: ClinicPage) -> Markup:
    ends = strip_domain([getattr(page.on_test, name) for name in _NAMES])
    head = ["figure", "validation", "on test", ends_worded(ends)]
    kinds = ["name", "number quiet", "number", "strip-cell"]
    lead = (
        "On the validation part the line was chosen, so its figures there are flattered. "
        f"PPV, NPV and accuracy on test hold where {wording.percent(page.on_test.prevalence)} "
        "have it, as there."
    )
    if page.elsewhere is not None:
        share = wording.tick(round(100 * page.elsewhere.prevalence, 6))
        head += [f"where {share}\N{NO-BREAK SPACE}% have it"]
        kinds += ["number"]
        lead += (
            f" The last column is by Bayes' rule, where {share} % have it and images of each "
            "kind look as they do on test."
        )
    rows = []
    for name, words in _NAMES.items():
        one = getattr(page.on_test, name)
        row = [
            named(*words),
            wording.value(getattr(page.on_validation, name)),
            _with_interval(one),
            interval_strip(one, ends),
        ]
        if page.elsewhere is not None:
            row.append(_with_interval(getattr(page.elsewhere, name)))
        rows.append(row)
    none = f"Flagging no one would be right in {wording.value(page.all_negative)} of the test part."
    return section(
        "At the line", lead, table(head, rows, kinds), element("p", none, class_="quiet")
    )


def _with_interval(estimate: Estimate) -> Markup:
    return join([wording.value(estimate), element("small", wording.interval(estimate))])


def _decisions(page: ClinicPage) -> Markup:
    found, alarms, missed, passed = page.on_test.counts
    rows = [
        (join([name_of(page.positive), _of(found + missed)]), *_cells(found, missed, right=0)),
        (join(["others", _of(alarms + passed)]), *_cells(alarms, passed, right=1)),
        (join(["all", _of(found + alarms + missed + passed)]), f"{found + alarms:,}",
         f"{missed + passed:,}"),
    ]  # fmt: skip
    words = element(
        "p",
        f"Of {found + missed:,} with ",
        name_of(page.positive),
        f", {found:,} {_are(found)} flagged and {missed:,} missed. Of {alarms + passed:,} without, "
        f"{alarms:,} {_are(alarms)} flagged and {passed:,} left alone.{_of_flagged(found, alarms)}",
        class_="sentence",
    )
    counts = table(("truth", "flagged", "not flagged"), rows, ("name", "number", "number"))
    return section(
        "Decisions on test",
        "Counts at the line; orange is wrong.",
        element("div", counts, words, class_="beside"),
    )


def _of(count: int) -> Markup:
    return element("small", f"{count:,} examples")


def _cells(flagged: int, not_flagged: int, *, right: int) -> tuple[Markup, Markup]:
    first, second = (
        element("b", f"{count:,}", class_="right-count" if place == right else "wrong-count")
        for place, count in enumerate((flagged, not_flagged))
    )
    return first, second


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _of_flagged(found: int, alarms: int) -> str:
    if not found + alarms:
        return ""
    share = wording.percent(alarms / (found + alarms))
    return f" Of {found + alarms:,} flagged, {alarms:,} ({share}) do not have it."


def _curves(page: ClinicPage) -> Markup:
    found, alarms, missed, passed = page.on_test.counts
    sensitivity = found / (found + missed)
    precision = (sensitivity, found / (found + alarms)) if found + alarms else None
    band = page.roc.band
    lead = (
        "Every line that could be drawn, on the test part; the ring is the one that was. Bands are "
        f"pointwise, {100 * band.level:g} % over {band.resamples:,} resamples of "
        f"{'groups' if band.unit == 'group' else 'examples'}. Dashed is flagging by chance."
    )
    if band.left_out:
        lead += f" {band.left_out:,} resamples held one kind alone and do not count."
    return section(
        "Other lines",
        lead,
        element(
            "div",
            roc_chart(page.roc, (alarms / (alarms + passed), sensitivity)),
            precision_recall_chart(page.precision_recall, precision, page.on_test.prevalence),
            class_="charts wide",
        ),
    )


def _calibration(page: ClinicPage) -> Markup:
    r = page.calibration
    filled = r.count > 0
    mean = float((r.confidence[filled] * r.count[filled]).sum() / r.count.sum())
    share = float((r.accuracy[filled] * r.count[filled]).sum() / r.count.sum())
    lead = (
        "The share that has it (up) against the calibrated risk (across), both in per cent, with "
        "the interval of each bin. On the dashed line, of those with a risk of 80 % four in five "
        "have it. Bars below count examples; bins with fewer than ten are faded. "
        f"On test the mean risk is {wording.percent(mean)}, and {wording.percent(share)} have it."
    )
    lead += (
        f" Where fewer have it than the {wording.percent(page.on_validation.prevalence)} of the "
        "validation part, risks tend to be too high, where more, too low."
    )
    diagram = reliability_diagram(
        "risk", "Calibration", r, None, ("mean risk", "share that has it")
    )
    return section(
        "Can the risk be taken at its word?", lead, element("div", diagram, class_="charts wide")
    )


def _benefit(page: ClinicPage) -> Markup:
    curve = page.benefit
    lead = (
        "One who would act from a risk of 20 % on holds a false alarm for a quarter as bad as a "
        "missed case. Net benefit counts cases found per person, less false alarms at that rate; "
        "the model is of use where it lies above flagging all and flagging none. It holds where "
        f"{wording.percent(curve.prevalence)} have it, as on test."
    )
    chart = benefit_chart(curve, page.line_probability)
    return section(
        "Is acting on it better than not?", lead, element("div", chart, class_="charts wide")
    )
