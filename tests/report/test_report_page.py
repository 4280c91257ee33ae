"""The whole page: well-formed, self-contained, and safe with whatever names come from outside."""

import dataclasses
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import ClassRow, Estimate, Reliability
from cnn_jax.report import (
    Baseline,
    ConfusedClasses,
    ErrorsOfClass,
    HardExample,
    Page,
    render,
    write,
)

VOID = {"meta", "link", "img"}
RNG = np.random.default_rng(0)


class Parsed(HTMLParser):
    """Tags must nest and close; collects text, attributes and ids."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.words, self.attributes = [], [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        assert tag not in VOID, f"<{tag}> is not closed"
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).replace("\u00a0", " ").split())


def fraction(value, low=math.nan, high=math.nan, n=100):
    return Estimate(value, low, high, n, "Wilson", percent=True)


def class_row(name, support, figure):
    figure = dataclasses.replace(figure, percent=False)
    return ClassRow(name, support, figure, figure, figure, figure, figure)


def bins(count):
    values = np.where(count > 0, np.linspace(0.05, 0.95, len(count)), np.nan)
    low, high = np.clip(values - 0.1, 0, 1), np.clip(values + 0.1, 0, 1)
    edges = np.linspace(0, 1, len(count) + 1)
    return Reliability(edges, count, values, values, low, high)


def full_page(names=("cat", "dog", "owl"), **changes):
    k = len(names)
    figure = fraction(0.9, 0.8, 0.95)
    image = RNG.integers(0, 256, (8, 8, 1), dtype=np.uint8)
    examples = tuple(HardExample(f"id of {n}", n, names[0], 0.2, 0.75, 1.61, image) for n in names)
    values = {
        "headline": figure,
        "sentence": "Nine of ten.",
        "figures": (("accuracy", figure), ("loss", Estimate(0.3, 0.2, 0.4, 100, "bootstrap"))),
        "baselines": (Baseline("pixels", fraction(0.8), fraction(0.1, -0.01, 0.2), "plain"),),
        "baselines_note": "Pixels come close.",
        "history": tuple(
            {"epoch": e, "train_loss": 1 / e, "validation_loss": 2 / e, "train_accuracy": 0.8}
            for e in (1, 2, 3)
        ),
        "ended": "All epochs done.",
        "gradient_norm": 0.5,
        "classes": tuple(names),
        "confusion": np.eye(k, dtype=np.int64) * 9 + 1,
        "class_rows": tuple(class_row(name, 10, figure) for name in names),
        "reliability": bins(np.array([0, 3, 40])),
        "ece": fraction(0.021, 0.01, 0.03),
        "reliability_after": bins(np.array([5, 0, 40])),
        "temperature": 1.5,
        "hardest": examples,
        "errors_by_class": tuple(
            ErrorsOfClass(n, 10, 4, ((names[0], 3), (names[-1], 1)), examples) for n in names
        ),
        "confused": (ConfusedClasses(names[0], names[-1], 4, 10, examples, examples),),
        "filters": RNG.normal(size=(3, 3, 1, 5)),
        "facts": (("digest", "abc"), ("licence", "")),
        "notes": ("A note.",),
        "test_uses": ({"when": "today"}, {"why": "again"}),
        "command": "cnn-jax train",
    }
    return Page(**{"dataset": "pets", "model": "small_cnn", **values, **changes})


def test_a_full_page_is_well_formed_and_self_contained():
    page = render(full_page())
    parsed = Parsed(page)
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert "script" not in parsed.tags
    for name, value in parsed.attributes:
        assert name not in ("href", "onload", "onerror")
        assert name != "src" or value.startswith("data:image/png;base64,")
    assert not re.search(r"url\(|@import|https?:", page)
    for words in (
        "90.00 %",
        "80.0 to 95.0",
        "+10.00 points",
        "contains zero",
        "Used 2 times",
        "error 2.10 %",
    ):
        assert words in parsed.text


def test_every_reference_of_a_chart_names_an_id():
    parsed = Parsed(render(full_page()))
    named = [value for name, value in parsed.attributes if name == "aria-labelledby"]
    assert len(named) >= 5
    assert {part for value in named for part in value.split()} <= set(parsed.ids)


def hard(**changes):
    return HardExample(
        **{
            "id": "x",
            "given": "a",
            "predicted": "b",
            "p_given": 0.1,
            "p_predicted": 0.5,
            "loss": 2.3,
            **changes,
        }
    )


NASTY = (
    "<script>alert(1)</script>",
    "\" onload='x' & <b>",
    "two\nlines\tand a tab",
    "שלום \u202e override",
    "👩‍👩‍👧 family",
    "null \x00 and surrogate \udc80",
    "]]><!-- </style></title>",
)


def test_names_from_outside_come_back_as_they_were():
    page = full_page(
        NASTY,
        dataset=NASTY[0],
        model=NASTY[1],
        sentence=NASTY[6],
        ended=NASTY[2],
        facts=tuple((name, name) for name in NASTY),
        command=NASTY[0],
        test_uses=({NASTY[0]: NASTY[1]},),
        figures=((NASTY[6], fraction(0.5)),),
    )
    text = render(page)
    text.encode("utf-8")
    parsed = Parsed(text)
    assert "script" not in parsed.tags
    assert not any(name.startswith("on") for name, _ in parsed.attributes)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in text)
    for name in NASTY:
        readable = name.replace("\x00", "\ufffd").replace("\udc80", "\ufffd")
        assert " ".join(readable.split()) in parsed.text


pieces = st.sampled_from(("<b>", "</p>", "&lt;", "<!--", '"', "'")) | st.characters()
names = st.lists(pieces, min_size=1, max_size=20).map("".join)


@settings(max_examples=60, deadline=None)
@given(names)
def test_any_name_leaves_the_page_well_formed(name):
    page = Page(name, name, notes=(name,), classes=(name,), confusion=np.array([[3]]))
    text = render(page)
    text.encode("utf-8")
    assert Parsed(text).tags == Parsed(render(dataclasses.replace(page, dataset="a"))).tags


@pytest.mark.parametrize("k", [1, 2, 20, 21, 100])
def test_any_number_of_classes(k):
    parsed = Parsed(render(full_page(tuple(f"class {i}" for i in range(k)))))
    assert ("details" in parsed.tags) == (k > 20)
    assert parsed.words.count("10") >= (k if k <= 20 else 0)


def test_a_perfect_matrix_is_said_and_its_hardest_examples_are_right():
    unsure = HardExample("an id", "cat", "cat", 0.41, 0.41, 0.892)
    page = full_page(hardest=(unsure,), errors_by_class=(), confusion=np.diag([4, 5, 6]))
    text = Parsed(render(page)).text
    assert "None is wrong: all 15 test examples are right" in text
    assert "No confusions" in text and "Errors by class" not in text
    assert text.count("cat 41.0 %loss 0.892") == 1


def test_the_hardest_examples_keep_their_order_and_are_limited():
    image = np.zeros((4, 4, 3), np.uint8)
    examples = tuple(HardExample(f"id{i:02d}!", "a", "b", 0.1, 0.6, 2.3, image) for i in range(30))
    text = Parsed(render(full_page(hardest=examples, errors_by_class=()))).text
    assert re.findall(r"id(\d\d)!", text) == [f"{i:02d}" for i in range(24)]
    assert "b 60.0 %a 10.0 %loss 2.30" in text


def test_without_images_there_are_words_but_no_pictures():
    example = HardExample("an id", "a", "b", 0.1, 0.6, 2.3)
    errors = ErrorsOfClass("a", 8, 2, (("b", 2),), (example,))
    parsed = Parsed(render(Page("pets", "cnn", hardest=(example,), errors_by_class=(errors,))))
    assert "img" not in parsed.tags and "no pictures" in parsed.text
    assert "wrong: 2 of 8, 25.0 %taken for b 2" in parsed.text


def test_confused_classes_are_shown_as_pairs_of_pictures():
    image = np.zeros((4, 4, 3), np.uint8)
    taken = tuple(HardExample(f"a{i}", "a", "b", 0.1, 0.6, 2.3, image) for i in range(5))
    clear = (HardExample("b0", "b", "b", 0.9, 0.9, 0.1, image),)
    row = ConfusedClasses("a", "b", 6, 10, taken, clear)
    parsed = Parsed(render(Page("pets", "cnn", confused=(row,) * 9)))
    assert parsed.text.count("a taken for b6 of 10, 60.0 %") == 8  # of nine
    assert parsed.text.count("60.0 %90.0 %60.0 %60.0 %") == 8  # three pairs, two without a second
    assert "recognised" not in parsed.text
    alone = Page("pets", "cnn", confused=(ConfusedClasses("a", "b", 6, 10, taken),))
    assert "none of the other class was recognised" in Parsed(render(alone)).text
    bare = ConfusedClasses("a", "b", 6, 10, (HardExample("a0", "a", "b", 0.1, 0.6, 2.3),))
    assert "Most confused" not in Parsed(render(Page("pets", "cnn", confused=(bare,)))).text


def test_of_many_classes_the_worst_are_shown():
    taken = tuple((f"c{i}", 9 - i) for i in range(8))
    errors = tuple(ErrorsOfClass(f"class {i:02d}!", 44, 44, taken) for i in range(30))
    text = Parsed(render(Page("pets", "cnn", errors_by_class=errors))).text
    assert re.findall(r"class (\d\d)!", text) == [f"{i:02d}" for i in range(20)]
    assert "The 20 classes with the most errors, of 30" in text
    assert "taken for c0 9, c1 8, c2 7, c3 6, c4 5, c5 4, others 5" in text


def test_a_run_that_diverged_has_no_figures_and_says_where():
    history = (
        {"train_loss": 2.0, "gradient_norm": 1.0},
        {"train_loss": math.nan, "gradient_norm": math.inf},
    )
    page = Page("pets", "cnn", sentence="The loss was not finite.", history=history)
    text = Parsed(render(page)).text
    assert "No test accuracy" in text
    assert text.count("not finite") == 3
    assert "nan" not in render(page).lower()


def test_undefined_figures_are_dashes_not_nan():
    undefined = fraction(math.nan)
    page = full_page(
        headline=undefined,
        figures=(("accuracy", undefined),),
        class_rows=(class_row("cat", 0, undefined),),
        train_accuracy=math.nan,
        accuracy_gap=math.nan,
        history=({"epoch": 1, "train_loss": None},),
    )
    parsed = Parsed(render(page))
    assert "—" in parsed.text
    assert "no interval" in parsed.text
    assert not re.search(r"\bnan\b|\binf\b", parsed.text)
    assert not any("nan" in value for name, value in parsed.attributes if name in ("x1", "cx", "d"))


def test_an_empty_page_has_only_its_title():
    parsed = Parsed(render(Page("pets", "cnn")))
    assert parsed.text.endswith("pets cnnNo test accuracy")
    assert "section" not in parsed.tags


def test_write_replaces_the_file_whole(tmp_path):
    path = tmp_path / "folder" / "page.html"
    write(Page("first", "cnn"), path)
    page = full_page()
    write(page, path)
    assert path.read_text("utf-8") == render(page)
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: full_page(confusion=np.eye(2, dtype=int)), "3 class names"),
        (lambda: full_page(confusion=np.eye(3)), "counts"),
        (lambda: full_page(filters=np.zeros((3, 3))), "[h, w, in, out]"),
        (lambda: hard(image=np.zeros((4, 4), np.uint8)), "uint8 [H, W, C]"),
        (lambda: hard(image=np.zeros((4, 4, 1))), "float64"),
        (lambda: hard(p_predicted=7.2), "softmax"),
        (lambda: hard(p_given=math.nan), "softmax"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, words):
    with pytest.raises(EvaluationError) as caught:
        make()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
