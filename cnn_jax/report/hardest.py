"""The sections of the page about single examples: hardest, confused, and each class's errors."""

from __future__ import annotations

from itertools import zip_longest

from cnn_jax.report import pictures, wording
from cnn_jax.report.layout import NOTHING, section
from cnn_jax.report.markup import Markup, element, join, name_of
from cnn_jax.report.page import ConfusedClasses, ErrorsOfClass, HardExample, Page

SHOWN_EXAMPLES = 24
SHOWN_CLASSES = 20
SHOWN_OF_CLASS = 6
SHOWN_CONFUSIONS = 8
SHOWN_OF_CONFUSION = 3
SMALL_PICTURE = 112


def hardest(page: Page) -> Markup:
    """The examples with the highest loss, with their pictures where those could be read."""
    if not page.hardest:
        return NOTHING
    lead = (
        "The test examples with the highest loss, highest first. In orange what the network "
        "wrongly took each for, below it the label, with the calibrated probability of each; "
        "then the loss in nats and the example's id. A wrong label and a difficult image look "
        "alike here."
    )
    if page.confusion is not None and page.confusion.sum() == page.confusion.trace():
        total = int(page.confusion.sum())
        lead = f"None is wrong: all {total} test examples are right. {lead}"
    if all(example.image is None for example in page.hardest):
        lead += " The images could not be read, so there are no pictures."
    shown = page.hardest[:SHOWN_EXAMPLES]
    return section(
        "Hardest examples", lead, element("ol", *(_card(e) for e in shown), class_="hardest")
    )


def confused(page: Page) -> Markup:
    """The pairs of classes that are confused most often, as pairs of pictures."""
    shown = page.confused[:SHOWN_CONFUSIONS]
    if all(example.image is None for row in shown for example in row.examples):
        return NOTHING  # nothing that "Errors by class" does not say
    lead = (
        "Which class is taken for which, most often first. On the left test images that were, by "
        "falling loss; on the right of each a test image of that other class, of those that the "
        "network is surest of. Below each the probability of the answer."
    )
    cards = (_confusion(row) for row in shown)
    return section("Most confused", lead, element("ol", *cards, class_="confusions"))


def _confusion(row: ConfusedClasses) -> Markup:
    share = wording.percent(row.times / row.support)
    words = element(
        "p",
        element("b", name_of(row.given)),
        " taken for ",
        element("b", name_of(row.predicted), class_="wrong"),
        element("small", f"{row.times} of {row.support}, {share}"),
        NOTHING if row.clearest else element("small", "none of the other class was recognised"),
    )
    left, right = row.examples[:SHOWN_OF_CONFUSION], row.clearest
    pairs = (
        element("li", _side(example), _side(other) if other else NOTHING)
        for example, other in zip_longest(left, right[: len(left)])
    )
    return element("li", words, element("ol", *pairs))


def _side(example: HardExample) -> Markup:
    words = element("small", wording.percent(example.p_predicted), title=example.id)
    return element("figure", _picture(example, SMALL_PICTURE), words)


def errors_by_class(page: Page) -> Markup:
    """For every class with errors how many, what it is taken for, and some pictures."""
    if not page.errors_by_class:
        return NOTHING
    shown = page.errors_by_class[:SHOWN_CLASSES]
    lead = "The class with the most errors first; pictures by falling loss."
    if len(page.errors_by_class) > len(shown):
        lead = (
            f"The {len(shown)} classes with the most errors, of {len(page.errors_by_class)} that "
            "have any; pictures by falling loss."
        )
    rows = (_class_row(errors) for errors in shown)
    return section("Errors by class", lead, element("ol", *rows, class_="class-errors"))


def _card(example: HardExample) -> Markup:
    wrong = None if example.right else "wrong"
    answers = [_answer(example.predicted, example.p_predicted, wrong)]
    if not example.right:
        answers.append(_answer(example.given, example.p_given))
    return element(
        "li",
        _picture(example, pictures.LONGEST_SIDE),
        *answers,
        element("small", f"loss {wording.number(example.loss)}"),
        element("small", name_of(example.id), class_="id", title=example.id),
    )


def _answer(name: str, probability: float, class_: str | None = None) -> Markup:
    return element(
        "p",
        element("b", name_of(name), class_=class_),
        " ",
        element("span", wording.percent(probability)),
    )


def _class_row(errors: ErrorsOfClass) -> Markup:
    count = f"{errors.wrong} of {errors.support}, {wording.percent(errors.wrong / errors.support)}"
    words = [
        element("b", name_of(errors.name)),
        element("small", f"wrong: {count}"),
    ]
    if errors.taken_for:
        words.append(element("small", "taken for ", _taken_for(errors)))
    small = [
        element(
            "li",
            _picture(example, SMALL_PICTURE),
            element("small", name_of(example.predicted), title=example.predicted),
        )
        for example in errors.examples[:SHOWN_OF_CLASS]
        if example.image is not None
    ]
    return element(
        "li",
        element("div", *words),
        element("ol", *small) if small else NOTHING,
    )


def _taken_for(errors: ErrorsOfClass) -> Markup:
    shown = errors.taken_for[:SHOWN_OF_CLASS]
    parts = [text for name, times in shown for text in (", ", name_of(name), f" {times}")][1:]
    left = sum(times for _, times in errors.taken_for[SHOWN_OF_CLASS:])
    return join([*parts, f", others {left}"] if left else parts)


def _picture(example: HardExample, longest: int) -> Markup:
    if example.image is None:
        return NOTHING
    pixels = pictures.thumbnail(example.image, longest)
    small = max(pixels.shape[:2]) < pictures.SMALL_IMAGE
    words = "rightly seen" if example.right else f"taken for {example.predicted}"
    return element(
        "img",
        src=pictures.data_uri(pixels),
        alt=f"{example.given}, {words}",
        title=example.id,
        class_="pixels" if small else None,
    )
