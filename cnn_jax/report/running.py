"""The sections of the page about the run itself: training, facts, how to repeat it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cnn_jax.report import wording
from cnn_jax.report.charts import Series, line_chart
from cnn_jax.report.layout import NOTHING, section, table
from cnn_jax.report.markup import Markup, element, name_of
from cnn_jax.report.page import Page

_MEASURE = "Accuracy, %"

# Title, whether it is a fraction, and the lines: label, key in the history, colour.
_CHARTS = (
    (
        "Loss",
        False,
        (("training", "train_loss", "two"), ("validation", "validation_loss", "one")),
    ),
    (
        _MEASURE,
        True,
        (("training", "train_accuracy", "two"), ("validation", "validation_accuracy", "one")),
    ),
    ("Gradient norm", False, (("", "gradient_norm", "one"),)),
    ("Learning rate", False, (("", "learning_rate", "one"),)),
    ("Images per second", False, (("", "images_per_second", "one"),)),
)


def training(page: Page) -> Markup:
    """What happened over the epochs, and why training ended."""
    charts = []
    epochs = [_epoch(row, k) for k, row in enumerate(page.history)]
    for name, fractions, lines in _CHARTS:
        title = f"{page.measure.capitalize()}, %" if name == _MEASURE else name
        series = [
            Series(label, color, tuple(row.get(key) for row in page.history))
            for label, key, color in lines
        ]
        shown = [line for line in series if any(v is not None for v in line.values)]
        if any(v is not None and math.isfinite(v) for line in shown for v in line.values):
            anchor = name.lower().partition(",")[0].replace(" ", "-")
            charts.append(line_chart(anchor, title, epochs, shown, fractions=fractions))
    summary = _summary(page)
    if not charts and not summary:
        return NOTHING
    return section(
        "Training", page.ended, element("div", *charts, summary, class_="charts training")
    )


def _epoch(row: Mapping[str, float | None], position: int) -> int:
    epoch = row.get("epoch")
    return position + 1 if epoch is None else int(epoch)


def _summary(page: Page) -> Markup:
    facts = (
        (f"{page.measure} on training data", page.train_accuracy, wording.percent),
        (f"above validation {page.measure} by", page.accuracy_gap, _points),
        ("last gradient norm", page.gradient_norm, wording.number),
        ("images per second", page.throughput, wording.number),
    )
    given = [(label, word(value)) for label, value, word in facts if value is not None]
    if not given:
        return NOTHING
    rows = [element("div", element("dt", label), element("dd", worded)) for label, worded in given]
    return element("dl", *rows, class_="summary")


def _points(fraction: float) -> str:
    if not math.isfinite(fraction):
        return wording.MISSING
    return wording.percent(fraction).replace("%", "points")


def facts(page: Page) -> Markup:
    """Data, seeds, machine and versions."""
    if not page.facts:
        return NOTHING
    pairs = [
        element(
            "div", element("dt", label), element("dd", name_of(value.strip() or wording.MISSING))
        )
        for label, value in page.facts
    ]
    return section("Facts", "", element("dl", *pairs, class_="facts"))


def notes(page: Page) -> Markup:
    """What a reader should know."""
    if not page.notes:
        return NOTHING
    items = (element("li", name_of(note)) for note in page.notes)
    return section("Notes", "", element("ul", *items, class_="notes"))


def test_uses(page: Page) -> Markup:
    """Each use of the test split."""
    if not page.test_uses:
        return NOTHING
    columns = list(dict.fromkeys(key for use in page.test_uses for key in use))
    rows = [
        [name_of(use.get(column, wording.MISSING)) for column in columns] for use in page.test_uses
    ]
    times = "once" if len(rows) == 1 else f"{len(rows)} times"
    return section(
        "Uses of the test split",
        f"Used {times}. Choices made after looking at a test figure make it optimistic.",
        table(columns, rows, ["name"] * len(columns)),
    )


def command(page: Page) -> Markup:
    """The command that repeats the run."""
    if not page.command:
        return NOTHING
    return section("Repeat this run", "", element("pre", element("code", page.command)))
