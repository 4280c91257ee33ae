"""The sections of the page about the model's figures, confidence and filters.

Each function takes the page and returns a section, or nothing if there is nothing to show.
"""

from __future__ import annotations

from cnn_jax.report import pictures, wording
from cnn_jax.report.charts import interval_strip, strip_domain
from cnn_jax.report.layout import NOTHING, ends_worded, named, section, table
from cnn_jax.report.markup import Markup, element, join, name_of
from cnn_jax.report.page import Baseline, Page
from cnn_jax.report.reliability import reliability_diagram


def title(page: Page) -> Markup:
    """Data set, model, and the figure that answers the question."""
    heading = element("h1", name_of(page.dataset), " ", element("span", name_of(page.model)))
    sentence = element("p", page.sentence, class_="sentence") if page.sentence else NOTHING
    headline = page.headline
    if headline is None:
        figure = element("p", f"No {page.headline_name}", class_="figure none")
        return element("header", heading, figure, sentence, class_="title")
    number, _, unit = wording.value(headline).partition("\N{NO-BREAK SPACE}")
    strip = NOTHING
    if headline.percent:
        ends = strip_domain([headline])
        axis = element("p", ends_worded(ends), class_="ends")
        strip = join([interval_strip(headline, ends), axis])
    return element(
        "header",
        heading,
        element(
            "div",
            element(
                "div",
                element("p", page.headline_name, class_="label"),
                element("p", number, element("span", unit), class_="figure"),
                element("p", wording.interval(headline), class_="interval-text"),
            ),
            element(
                "div",
                sentence,
                strip,
                element("p", wording.origin(headline), class_="quiet"),
            ),
            class_="headline",
        ),
        class_="title",
    )


def figures(page: Page) -> Markup:
    """Every figure with its interval."""
    if not page.figures:
        return NOTHING
    ends = strip_domain([e for _, e in page.figures if e.percent])
    rows = [
        (
            named(name, wording.origin(e)),
            wording.value(e),
            wording.interval(e),
            interval_strip(e, ends) if e.percent else NOTHING,
        )
        for name, e in page.figures
    ]
    return section(
        "Figures",
        page.policy,
        table(
            ("figure", "value", "interval", ends_worded(ends)),
            rows,
            ("name", "number", "number quiet", "strip-cell"),
        ),
    )


def baselines(page: Page) -> Markup:
    """The model among simpler methods on the same examples."""
    if not page.baselines or page.headline is None:
        return NOTHING
    ends = strip_domain([page.headline, *(b.estimate for b in page.baselines)])
    this_run = (
        named(page.model, "this run"),
        wording.value(page.headline),
        interval_strip(page.headline, ends) if page.headline.percent else NOTHING,
        "",
    )
    rows = [this_run, *(_baseline_row(baseline, ends) for baseline in page.baselines)]
    return section(
        "Against simpler methods",
        f"By {page.headline_name}, on the same examples. The gain is this model minus the "
        "baseline, paired by example.",
        table(
            ("method", "value", ends_worded(ends), "gain and its interval"),
            rows,
            ("name", "number", "strip-cell", "number gain"),
        ),
        element("p", page.baselines_note, class_="remark") if page.baselines_note else NOTHING,
    )


def _baseline_row(baseline: Baseline, ends: tuple[float, float]) -> tuple[str, ...]:
    estimate, gain = baseline.estimate, baseline.difference
    worded = Markup(wording.MISSING)
    if gain is not None:
        interval = wording.interval(gain)
        if gain.low <= 0 <= gain.high:
            interval += ", contains zero"
        worded = join([wording.difference(gain), element("small", interval)])
    return (
        named(baseline.name, baseline.note),
        wording.value(estimate),
        interval_strip(estimate, ends, "two") if estimate.percent else NOTHING,
        worded,
    )


def confidence(page: Page) -> Markup:
    """Reliability before and after temperature scaling."""
    diagrams = []
    if page.reliability is not None:
        diagrams.append(reliability_diagram("before", "As trained", page.reliability, page.ece))
    if page.reliability_after is not None:
        diagrams.append(
            reliability_diagram(
                "after", "After temperature scaling", page.reliability_after, page.ece_after
            )
        )
    if not diagrams:
        return NOTHING
    temperature = ""
    if page.temperature is not None:
        temperature = f" The fitted temperature is {wording.number(page.temperature)}."
    return section(
        "Confidence",
        "Accuracy (up) against the model's confidence (across), both in per cent, with the "
        "interval of each bin. On the dashed line, 80 % sure means right 80 % of the time. Bars "
        f"below count examples; bins with fewer than ten are faded.{temperature}",
        element("div", *diagrams, class_="charts"),
    )


def filters(page: Page) -> Markup:
    """The kernels of the first convolution."""
    if page.filters is None:
        return NOTHING
    count, channels = page.filters.shape[3], page.filters.shape[2]
    shown = min(count, pictures.SHOWN_FILTERS)
    how = (
        "mid-grey is a weight of zero"
        if channels in (1, 3)
        else f"the norm over {channels} input channels, black is zero"
    )
    return section(
        "First-layer filters",
        f"{shown} of {count}, each on its own scale: {how}.",
        element(
            "img",
            src=pictures.data_uri(pictures.filter_grid(page.filters)),
            alt=f"{shown} convolution kernels",
            class_="filters pixels",
        ),
    )
