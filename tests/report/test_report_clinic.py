"""The page for a clinician from plain values: well-formed, safe, and right about its figures."""

import base64
import dataclasses
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import (
    calibration_curve,
    decision_curve,
    operating_figures,
    precision_recall_curve,
    roc_curve,
)
from cnn_jax.report import masks, overlay, pictures
from cnn_jax.report.clinic import Case, ClinicPage, Subgroup, render, write
from cnn_jax.report.clinic_charts import LEFT, SIDE, TOP

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=200) + np.where(np.arange(200) < 80, 1.5, -0.5)
ACTUAL = np.arange(200) < 80
RISK = 1 / (1 + np.exp(-SCORES))
HOSTILE = "\"><script>alert('x')</script>&amp;\u202e\x07"


class Parsed(HTMLParser):
    """Tags must nest and close; ids must not repeat."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.words, self.places = [], [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == [] and len(set(self.ids)) == len(self.ids)

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.places.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).replace("\u00a0", " ").split())


def case(name="a", **changes):
    image = RNG.integers(0, 256, (9, 7, 1), dtype=np.uint8)
    values = {"risk": 0.7, "truth": "sick", "positive": True, "flagged": True}
    heat = RNG.random((9, 7), dtype=np.float32)
    return Case(name, **{**values, "image": image, "heat": heat, **changes})


def full_page(drawn=0.0, name="sick", **changes):
    flagged = drawn <= SCORES
    test = operating_figures(flagged, ACTUAL)
    values = {
        "positive": name,
        "dataset": name,
        "model": name,
        "rule": "sensitivity of 90 %",
        "line": "flagged from a probability of 0.5000 on",
        "line_probability": 0.5,
        "fitted_on": "100 validation examples",
        "on_validation": test,
        "on_test": test,
        "elsewhere": operating_figures(flagged, ACTUAL, prevalence=0.05),
        "all_negative": operating_figures(np.zeros(200, bool), ACTUAL).accuracy,
        "roc": roc_curve(SCORES, ACTUAL, resamples=50),
        "precision_recall": precision_recall_curve(SCORES, ACTUAL, resamples=50),
        "calibration": calibration_curve(RISK, ACTUAL),
        "benefit": decision_curve(RISK, ACTUAL, resamples=50),
        "highest": (case(name, truth=name), case("b", flagged=False)),
        "missed": (case(name, flagged=False),),
        "alarms": (case(name, positive=False),),
        "heat_note": name,
        "made": (name,),
        "intended": (name,),
        "not_for": (name,),
        "facts": (("model", name),),
        "data_facts": (("licence", name),),
        "notes": (name,),
        "subgroups": (Subgroup(name, name, 3, test.sensitivity, None),),
        "subgroups_note": name,
        "test_uses": ({"date": name, "n": name, "command": name},),
        "command": name,
    }
    return ClinicPage(**{**values, **changes})


def test_whatever_the_names_the_page_is_well_formed_and_loads_nothing():
    text = render(full_page(name=HOSTILE))
    parsed = Parsed(text)
    assert "script" not in parsed.tags and "alert('x')" in parsed.text
    assert "\x07" not in text and not re.search(r"(src|href)=\"(?!data:image/png;base64,)", text)
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert not any(key.startswith("on") for _, attributes, _ in parsed.places for key in attributes)


def test_it_says_what_it_is_not_before_anything_else_and_counts_rightly(tmp_path):
    page = full_page()
    write(page, tmp_path / "page.html")
    text = Parsed((tmp_path / "page.html").read_text("utf-8")).text
    assert text.split("Is it sick?")[0].endswith("what is done for a patient.")
    tp, fp, fn, tn = page.on_test.counts
    assert f"Of 80 with sick, {tp} are flagged and {fn} missed." in text
    assert f"Of 120 without, {fp} are flagged and {tn} left alone." in text
    assert f"Of {tp + fp} flagged, {fp} ({100 * fp / (tp + fp):.1f} %) do not have it." in text
    assert "On 200 test examples, of which 80 (40.0 %) are sick." in text
    assert "where 5 % have it" in text
    for estimate in (page.on_test.sensitivity, page.elsewhere.ppv):
        assert f"{100 * estimate.value:.2f} %" in text
        assert f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}" in text
    assert f"Missed: 1 of {fn:,} that have it" in text
    assert "where 5 % have it" not in Parsed(render(full_page(elsewhere=None))).text


def test_a_leak_of_the_test_part_stands_beside_the_figures():
    leak = "3 of 200 test images equal a train or validation image and were kept."
    cured = "2 of 200 test images equal a train image: the copies were dropped, 2 from train."
    top, rest = Parsed(render(full_page(notes=(leak, cured)))).text.split("At the line")
    assert leak in top and cured not in top and cured in rest


def test_the_ring_lies_where_the_line_does():
    page = full_page()
    tp, fp, fn, tn = page.on_test.counts
    rings = [
        (float(attributes["cx"]), float(attributes["cy"]))
        for tag, attributes, around in Parsed(render(page)).places
        if tag == "circle" and attributes.get("r") == "5.5" and around[-1] == "g"
    ]
    expected = [(fp / (fp + tn), tp / (tp + fn)), (tp / (tp + fn), tp / (tp + fp))]
    found = [((x - LEFT) / SIDE, 1 - (y - TOP) / SIDE) for x, y in rings]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_where_no_one_is_flagged_there_is_no_precision_and_no_mark_of_the_line():
    page = full_page(math.inf, line="no one is flagged", line_probability=None)
    text = render(page)
    assert text.count('class="drawn-point"') == 1  # of the ROC curve, at its lower left end
    assert 'class="drawn-line"' not in text
    assert "No one is flagged." in text and "nan" not in Parsed(text).text
    assert "are flagged and 80 missed" in Parsed(text).text


def test_outlines_lie_on_the_heat_or_beside_the_image_and_have_a_key():
    mask = np.zeros((9, 7), np.uint8)
    mask[2:6, 1:5] = 1
    both = case("seg", heat=None, given=mask, marked=np.roll(mask, 2))
    page = full_page(highest=(case("cls", given=mask), both), missed=(), alarms=())
    text = render(page)
    assert 'alt="heat map and outline of cls"' in text and 'alt="outlines of seg"' in text
    assert "outline of the reference" in text and "outline by the network" in text
    for name, colours in (("heat map and outline of cls", 1), ("outlines of seg", 2)):
        (coded,) = re.findall(rf'src="data:image/png;base64,([^"]+)" alt="{name}"', text)
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(coded))))
        drawn = [(pixels == colour).all(axis=-1).any() for colour in (masks.GIVEN, masks.PREDICTED)]
        assert drawn == [True, colours == 2]
    nothing = case(heat=None, given=0 * mask, marked=0 * mask)
    text = render(full_page(highest=(nothing, case()), missed=(), alarms=()))
    assert "nothing is marked in it" in text and "outline of the reference" not in text
    assert "heat map of" in text and "heat map and outline" not in text


def test_an_outline_is_the_border_of_its_mask_and_the_last_is_on_top():
    grey, mask = np.full((40, 40), 100, np.uint8), np.zeros((10, 10), np.uint8)
    mask[2:7, 3:8] = 1
    found = masks.drawn(grey, (mask, masks.GIVEN), (mask, masks.PREDICTED))
    inside = np.kron(mask, np.ones((4, 4), np.uint8)) > 0
    deep = np.zeros_like(inside)
    deep[10:26, 14:30] = True  # further from the border than a line is wide
    expected = np.where((inside & ~deep)[..., None], masks.PREDICTED, 100)
    np.testing.assert_array_equal(found, expected)


def test_pictures_and_maps_that_are_not_there_are_named():
    nothing = case(heat=np.zeros((9, 7), np.float32))
    text = render(full_page(highest=(nothing,), missed=(), alarms=()))
    assert text.count("<img") == 1 and "nothing in it speaks for the class" in text
    bare = case(image=None, heat=None)
    page = full_page(highest=(bare,), missed=(bare,), alarms=(), pictures_note="No pictures.")
    assert "<img" not in render(page) and "No pictures." in render(page)
    perfect = full_page()
    figures = dataclasses.replace(perfect.on_test, counts=(80, 0, 0, 120))
    text = render(dataclasses.replace(perfect, on_test=figures, missed=(), alarms=()))
    assert text.count("There are none.") == 2


@pytest.mark.parametrize(
    ("risk", "worded"), [(1.0, "above 99.9"), (0.0, "below 0.1"), (0.5, "50.0")]
)
def test_a_risk_is_never_certain(risk, worded):
    assert f"risk {worded} %" in Parsed(render(full_page(highest=(case(risk=risk),)))).text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"risk": 1.5}, "outside|in 0..1"),
        ({"image": np.zeros((9, 7), np.uint8)}, r"uint8 \[H, W, C\]"),
        ({"heat": np.zeros((7, 9), np.float32)}, "each pixel"),
        ({"heat": np.full((9, 7), np.nan, np.float32)}, "each pixel"),
        ({"heat": -np.ones((9, 7), np.float32)}, "each pixel"),
        ({"image": None}, "each pixel"),
        ({"given": np.zeros((7, 9), np.uint8)}, "each pixel"),
        ({"marked": np.zeros((9, 7), bool)}, "must be uint8"),
    ],
)
def test_cases_that_cannot_be_shown_are_refused(changes, message):
    with pytest.raises(EvaluationError, match=message):
        case(**changes)


def test_heat_is_on_the_grey_image_and_grows_lighter_on_a_dark_one():
    image = RNG.integers(0, 256, (20, 10, 3), dtype=np.uint8)
    heat = np.zeros((20, 10), np.float32)
    heat[:5] = 2
    mixed = overlay.overlaid(image, heat, 40)
    assert mixed.shape == (40, 20, 3)
    assert (mixed[20:] == mixed[20:, :, :1]).all()  # grey where there is none
    assert (mixed[:6, :, 0] > mixed[:6, :, 2]).all()
    dark = overlay.overlaid(
        np.zeros((64, 64, 1), np.uint8), np.tile(np.linspace(0, 1, 64), (64, 1)), 64
    )
    assert (np.diff(dark.astype(int) @ [2126, 7152, 722], axis=1) >= 0).all()
    assert overlay.enlarged(np.zeros((100, 400, 1), np.uint8), 40).shape == (10, 40)


def test_of_a_volume_the_slice_is_shown_in_which_most_is_marked():
    given, found = np.zeros((2, 4, 5, 5), np.uint8)
    given[1, :2], found[2, 2:] = 1, 2
    assert pictures.fullest_slice(given, found) == 2
    assert pictures.fullest_slice(given) == 1
