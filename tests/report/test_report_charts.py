"""Charts put each value at its pixel, break where one is missing, and never leave their frame."""

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_jax.evaluation import Estimate, Reliability
from cnn_jax.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Series,
    interval_strip,
    line_chart,
    strip_domain,
)
from cnn_jax.report.heatmap import confusion_heatmap, largest_confusions
from cnn_jax.report.reliability import reliability_diagram
from cnn_jax.report.scale import (
    Scale,
    domain_from_zero,
    domain_of_fractions,
    round_ticks,
    whole_ticks,
)

finite = st.floats(-1e12, 1e12).filter(lambda v: v == 0 or abs(v) > 1e-12)


def parse(markup):
    return ElementTree.fromstring(markup)


def of_class(tree, name):
    return [node for node in tree.iter() if name in node.get("class", "").split()]


def points(path):
    return [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", path)]


def texts(tree):
    return ["".join(node.itertext()) for node in tree.iter("text")]


def test_scale_maps_its_ends_and_the_middle():
    linear, log = Scale(0, 10, 100, 0), Scale(0.01, 100, 0, 40, log=True)
    assert [linear(0), linear(5), linear(10)] == [100, 50, 0]
    assert [log(0.01), log(1), log(100)] == pytest.approx([0, 20, 40])


@given(finite, finite)
def test_ticks_enclose_the_values_evenly(a, b):
    low, high = min(a, b), max(a, b)
    ticks = round_ticks(low, high)
    slack = 1e-6 * max(high - low, abs(high))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 7
    rounding = 4 * np.spacing(max(abs(low), abs(high), 1e-300))  # of the ticks themselves
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-3, atol=rounding)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=20))
def test_magnitudes_lie_on_their_axis_and_small_ranges_start_at_zero(values):
    domain = domain_from_zero(values)
    assert domain.low <= min(values) * (1 + 1e-9)
    assert domain.high >= max(values) * (1 - 1e-9)
    assert domain.log == (max(values) > 30 * min(values))
    assert domain.log or domain.low == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_fractions_lie_on_an_axis_inside_0_to_1(values):
    domain = domain_of_fractions(values)
    assert -1e-9 <= domain.low <= min(values) + 1e-9
    assert max(values) - 1e-9 <= domain.high <= 1 + 1e-9
    assert domain.high > domain.low


@given(st.integers(0, 50), st.integers(0, 2000))
def test_epochs_are_whole_and_the_ends_are_marked(first, length):
    ticks = whole_ticks(first, first + length)
    assert (ticks[0], ticks[-1]) == (first, first + length)
    assert list(ticks) == sorted(set(ticks))
    assert len(ticks) <= 8


def test_a_line_goes_through_its_values():
    tree = parse(line_chart("loss", "Loss", (1, 2, 3), [Series("", "one", (4.0, 2.0, 0.0))]))
    (line,) = of_class(tree, "line")
    right, base = WIDTH - RIGHT, HEIGHT - BOTTOM
    expected = [(LEFT, TOP), ((LEFT + right) / 2, (TOP + base) / 2), (right, base)]
    assert np.allclose(points(line.get("d")), expected, atol=0.06)


def test_a_line_breaks_at_missing_values_and_marks_those_not_finite():
    values = (1.0, 2.0, None, 3.0, math.nan, math.inf)
    tree = parse(line_chart("loss", "Loss", range(1, 7), [Series("", "one", values)]))
    assert [len(points(line.get("d"))) for line in of_class(tree, "line")] == [2]
    assert len(of_class(tree, "dot")) == 1
    assert len(of_class(tree, "cross")) == 2
    assert texts(tree).count("not finite") == 1


def test_labels_at_the_ends_of_two_lines_do_not_touch():
    series = [Series("training", "two", (0.5, 0.999)), Series("validation", "one", (0.5, 0.998))]
    tree = parse(line_chart("accuracy", "Accuracy", (1, 2), series, fractions=True))
    heights = sorted(float(node.get("y")) for node in of_class(tree, "series-label"))
    assert heights[1] - heights[0] >= 15
    assert heights[0] >= TOP
    assert heights[1] <= HEIGHT - BOTTOM + 8


def test_an_accuracy_axis_states_its_range_and_a_logarithmic_one_says_so():
    accuracy = line_chart("a", "Accuracy", (1, 2), [Series("", "one", (0.9, 0.98))], fractions=True)
    assert "axis from 90 to 98 %" in accuracy
    assert "logarithmic" in line_chart("l", "Loss", (1, 2), [Series("", "one", (1.0, 0.01))])
    assert "axis" not in line_chart("g", "Norm", (1, 2), [Series("", "one", (1.0, 0.5))])


def test_one_epoch_is_a_dot_in_the_middle():
    tree = parse(line_chart("loss", "Loss", (7,), [Series("", "one", (1.0,))]))
    (dot,) = of_class(tree, "dot")
    assert float(dot.get("cx")) == (LEFT + WIDTH - RIGHT) / 2
    assert "7" in texts(tree)


def test_interval_strip_places_value_and_interval():
    tree = parse(interval_strip(Estimate(0.75, 0.5, 1.0, 9, "Wilson"), (0.5, 1.0)))
    (dot,), (bar,) = of_class(tree, "dot"), of_class(tree, "interval")
    assert (dot.get("cx"), bar.get("x1"), bar.get("x2")) == ("50.00%", "2.00%", "98.00%")
    empty = parse(interval_strip(Estimate(math.nan, math.nan, math.nan, 0, ""), (0, 1)))
    assert not of_class(empty, "dot") + of_class(empty, "interval")


def test_strips_share_an_axis_below_every_interval():
    low, high = strip_domain([Estimate(0.9, 0.83, 0.95, 9, ""), Estimate(0.7, 0.61, 0.8, 9, "")])
    assert low <= 0.61
    assert high == 1


def test_reliability_places_bins_fades_rare_ones_and_leaves_out_empty_ones():
    bins = Reliability(
        edges=np.array([0.0, 0.4, 0.6, 1.0]),
        count=np.array([0, 4, 40]),
        confidence=np.array([np.nan, 0.5, 0.9]),
        accuracy=np.array([np.nan, 0.25, 1.0]),
        low=np.array([np.nan, 0.0, 0.9]),
        high=np.array([np.nan, 0.75, 1.0]),
    )
    tree = parse(reliability_diagram("r", "As trained", bins, None))
    dots, bands, bars = (of_class(tree, name) for name in ("dot", "band", "bar"))
    assert len(dots) == len(bands) == len(bars) == 2
    (few,) = of_class(tree, "few")
    assert dots[0] in list(few)
    (ideal,) = of_class(tree, "ideal")
    left, right, bottom, top = (float(ideal.get(name)) for name in ("x1", "x2", "y1", "y2"))
    assert float(dots[0].get("cx")) == pytest.approx((left + right) / 2)
    assert float(bars[0].get("x")) == pytest.approx(left + 0.4 * (right - left), abs=1.01)
    assert float(bars[0].get("width")) == pytest.approx(0.2 * (right - left), abs=2.01)
    assert float(dots[0].get("cy")) == pytest.approx(bottom - 0.25 * (bottom - top))
    assert float(bands[0].get("height")) == pytest.approx(0.75 * (bottom - top))
    assert float(bars[0].get("height")) == pytest.approx(float(bars[1].get("height")) / 10)


def test_heatmap_puts_true_classes_down_and_predicted_across():
    counts = np.array([[5, 2], [0, 0]])
    tree = parse(confusion_heatmap("c", counts, ("a", "b")))
    (right,), (wrong,) = of_class(tree, "right"), of_class(tree, "wrong")
    assert right.get("y") == wrong.get("y")
    assert float(wrong.get("x")) > float(right.get("x"))
    assert {"5", "2", "a", "b"} <= {t.partition("true")[0] for t in texts(tree)}


def test_heatmap_of_many_classes_has_no_numbers():
    tree = parse(confusion_heatmap("c", np.ones((30, 30), int), tuple(map(str, range(30)))))
    assert texts(tree) == ["true class", "predicted class"]
    assert len(of_class(tree, "wrong")) == 30 * 29


def test_largest_confusions_come_first_without_the_diagonal():
    counts = np.array([[9, 1, 0], [3, 5, 2], [0, 0, 8]], dtype=np.uint8)
    found = [
        (c.true, c.predicted, c.count, c.share) for c in largest_confusions(counts, tuple("abc"))
    ]
    assert found == [("b", "a", 3, 0.3), ("b", "c", 2, 0.2), ("a", "b", 1, 0.1)]
    assert counts[0, 0] == 9
