"""Figures of the principles: squares where values are, as opaque as they are high."""

import re

import numpy as np

from cnn_jax.evaluation import Estimate
from cnn_jax.report import principles_charts as charts


def _opacities(figure, kind):
    return [float(each) for each in re.findall(rf'class="{kind}" fill-opacity="([^"]+)"', figure)]


def test_a_matrix_has_a_square_for_each_entry_that_is_not_0():
    figure = charts.matrix("m", "T", np.array([[2.0, 0], [-1, 0.5]]), "pixel", "output")
    assert _opacities(figure, "right") == [1, 0.25] and _opacities(figure, "wrong") == [0.5]
    assert "2 × 2, 3 not 0" in figure
    assert "0 not 0" in charts.matrix("m", "T", np.zeros((2, 3)), "pixel", "output")


def test_accuracy_by_shift_says_what_it_is_still():
    values = np.full((3, 3), 0.5)
    values[1, 1], values[0, 0] = 0.9, 0.25
    figure = charts.accuracy_by_shift(values)
    opacities = _opacities(figure, "right")
    assert len(opacities) == 9 and max(opacities) == opacities[4] == 1
    assert min(opacities) == opacities[0] and "unmoved 90.0" in figure
    assert len(_opacities(charts.accuracy_by_shift(np.ones((3, 3))), "right")) == 9


def test_probes_and_angles_are_drawn():
    estimates = [Estimate(v, v - 0.05, v + 0.05, 100, "Wilson", percent=True) for v in (0.6, 0.9)]
    figure = charts.probes(("pixels", "stage1"), estimates, estimates)
    assert figure.count('class="dot one"') == 2 and "pixels" in figure
    line = charts.accuracy_by_angle((0, 15, 30), np.array([0.9, 0.8, 0.3]))
    assert "90.0" in line and "30.0" in line and "at 30°" in line


def test_likeness_is_from_0_to_1():
    figure = charts.likeness(("a", "b"), np.array([[1, 0.5], [0.5, 1]]), "another run")
    assert _opacities(figure, "right")[0] == 1 and "layer of another run" in figure
