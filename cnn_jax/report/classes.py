"""The section of the page about the classes: what is taken for what, and each on its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from cnn_jax.evaluation import ClassRow
from cnn_jax.report import wording
from cnn_jax.report.charts import interval_strip, strip_domain
from cnn_jax.report.heatmap import (
    NUMBERED_CLASSES,
    Confusion,
    confusion_heatmap,
    largest_confusions,
)
from cnn_jax.report.layout import NOTHING, ends_worded, section, table
from cnn_jax.report.markup import Markup, element, join, name_of
from cnn_jax.report.page import Page

SHOWN_WORST_CLASSES = 10


def classes(page: Page) -> Markup:
    """Confusion matrix, largest confusions and the figures of each class."""
    if page.confusion is None and not page.class_rows:
        return NOTHING
    content = []
    lead = ""
    if page.confusion is not None:
        found = largest_confusions(page.confusion, page.classes)
        none = element("p", "No confusions: every example is right.", class_="quiet")
        beside = _confusion_table(found) if found else none
        heatmap = confusion_heatmap("confusion", page.confusion, page.classes)
        matrix = element("div", heatmap, class_="scroll matrix")
        content.append(element("div", matrix, element("div", beside), class_="beside"))
        lead = (
            "Rows are true classes, columns predicted ones; blue is right, orange wrong. Shade is "
            "the share of the true class, with rare mistakes made visible."
        )
    content.append(_class_table(page.class_rows))
    return section("Classes", lead, *content)


def _class_table(rows: Sequence[ClassRow]) -> Markup:
    if len(rows) <= NUMBERED_CLASSES:
        return _class_rows(rows) if rows else NOTHING
    finite = [row for row in rows if math.isfinite(row.f1.value)]
    worst = sorted(finite, key=lambda row: row.f1.value)[:SHOWN_WORST_CLASSES]
    return join(
        [
            element("h3", f"The {len(worst)} classes with the lowest F1"),
            _class_rows(worst),
            element("details", element("summary", f"All {len(rows)} classes"), _class_rows(rows)),
        ]
    )


def _class_rows(rows: Sequence[ClassRow]) -> Markup:
    ends = strip_domain([row.f1 for row in rows])
    return table(
        ("class", "n", "precision", "recall", "F1", "interval of F1", ends_worded(ends)),
        [
            (
                name_of(row.name),
                str(row.support),
                wording.percent(row.precision.value),
                wording.percent(row.recall.value),
                wording.percent(row.f1.value),
                wording.interval(replace(row.f1, percent=True)),
                interval_strip(row.f1, ends),
            )
            for row in rows
        ],
        ("name", "number quiet", "number", "number", "number", "number quiet", "strip-cell"),
    )


def _confusion_table(confusions: Sequence[Confusion]) -> Markup:
    taken_for = element("span", " taken for ", class_="quiet")
    return table(
        ("largest confusions", "count", "of the class"),
        [
            (
                join([name_of(c.true), taken_for, name_of(c.predicted)]),
                str(c.count),
                wording.percent(c.share),
            )
            for c in confusions
        ],
        ("name", "number", "number quiet"),
    )
