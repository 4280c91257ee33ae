"""The model card: what the model is, what it may be used for, and what is not known of it."""

from __future__ import annotations

from collections.abc import Sequence

from cnn_jax.evaluation import Estimate
from cnn_jax.report import wording
from cnn_jax.report.clinic_page import ClinicPage
from cnn_jax.report.layout import NOTHING, section, table
from cnn_jax.report.markup import Markup, element, join, name_of


def model_card(page: ClinicPage) -> Markup:
    """Uses, origin, data, subgroups, and how often the test part was looked at."""
    return section(
        "Model card",
        "",
        _sentences("Intended use", page.intended),
        _sentences("Must not be used for", page.not_for),
        _sentences("How it was made", page.made),
        _facts("Model and machine", page.facts),
        _facts("Data", page.data_facts),
        _sentences("Notes of the data", page.notes),
        _subgroups(page),
        _test_uses(page),
        join([element("h3", "Repeat this run"), element("pre", element("code", page.command))])
        if page.command
        else NOTHING,
    )


def _sentences(title: str, sentences: Sequence[str]) -> Markup:
    if not sentences:
        return NOTHING
    items = (element("li", name_of(sentence)) for sentence in sentences)
    return join([element("h3", title), element("ul", *items, class_="notes")])


def _facts(title: str, facts: Sequence[tuple[str, str]]) -> Markup:
    if not facts:
        return NOTHING
    pairs = (element("div", element("dt", name), element("dd", name_of(v))) for name, v in facts)
    return join([element("h3", title), element("dl", *pairs, class_="facts")])


def _subgroups(page: ClinicPage) -> Markup:
    parts = [element("h3", "Subgroups"), element("p", page.subgroups_note, class_="lead")]
    if page.subgroups:
        rows = [
            (
                join([name_of(group.name), element("small", name_of(group.target))]),
                str(group.n),
                *_shown(group.sensitivity),
                *_shown(group.specificity),
            )
            for group in page.subgroups
        ]
        head = ("part of the test set", "n", "sensitivity", "interval", "specificity", "interval")
        kinds = ("name", "number quiet", "number", "number quiet", "number", "number quiet")
        parts.append(table(head, rows, kinds))
    return join(parts)


def _shown(estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None:
        return wording.MISSING, ""
    return wording.value(estimate), wording.interval(estimate)


def _test_uses(page: ClinicPage) -> Markup:
    if not page.test_uses:
        return NOTHING
    items = (
        element(
            "li",
            element("code", use.get("command", wording.MISSING)),
            element("small", f" {use.get('date', '')}, {use.get('n', '')} examples"),
        )
        for use in page.test_uses
    )
    count = len(page.test_uses)
    times = "once" if count == 1 else f"{count} times"
    lead = f"Used {times}. Choices made after looking at a test figure make it optimistic."
    return join(
        [
            element("h3", "Uses of the test split"),
            element("p", lead, class_="lead"),
            element("ol", *items, class_="notes"),
        ]
    )
