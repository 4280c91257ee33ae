"""Distances worked out by hand, and against all pairs of boundary pixels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.surfaces import (
    boundary,
    hausdorff,
    normalised_surface_dice,
    surface_distances,
)


def box(shape, *ranges):
    """bool `shape`, True within the half-open ranges."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


# A square of 4 x 4 and the same one column to the right.
SQUARE = box((8, 8), (2, 6), (2, 6))
SHIFTED = box((8, 8), (2, 6), (3, 7))
NOTHING = np.zeros((8, 8), bool)


def naive_boundary(mask):
    """Pixel by pixel: any of its 4 or 6 neighbours is outside the mask or the image."""
    out = np.zeros_like(mask)
    for at in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                there = at.copy()
                there[axis] += step
                inside = 0 <= there[axis] < mask.shape[axis]
                out[tuple(at)] |= not inside or not mask[tuple(there)]
    return out


def test_boundary_touches_the_outside_through_a_face():
    ring = SQUARE & ~box((8, 8), (3, 5), (3, 5))
    np.testing.assert_array_equal(boundary(SQUARE), ring)
    # A pixel whose only neighbour outside is at its corner is inside.
    notched = SQUARE.copy()
    notched[2, 2] = False
    assert not boundary(notched)[3, 3]
    # The border of the image is a boundary.
    assert boundary(np.ones((3, 4), bool)).sum() == 12 - 2
    assert boundary(np.ones((3, 3, 3), bool)).sum() == 27 - 1
    assert not boundary(NOTHING).any()


def test_one_pixel_shift():
    """6 of 12 boundary pixels lie on the other boundary, the others 1 beside it."""
    for distances in surface_distances(SHIFTED, SQUARE):
        assert sorted(distances.tolist()) == [0.0] * 6 + [1.0] * 6
        assert distances.dtype == np.float64
    assert hausdorff(SHIFTED, SQUARE) == 1
    assert normalised_surface_dice(SHIFTED, SQUARE, tolerance=0) == 0.5
    assert normalised_surface_dice(SHIFTED, SQUARE, tolerance=1) == 1
    # Columns 3 mm apart: 4 pixels at 3 mm; 2 in the middle of the square's left side have the
    # row above or below at 1 mm.
    for distances in surface_distances(SHIFTED, SQUARE, (1, 3)):
        assert sorted(distances.tolist()) == [0.0] * 6 + [1.0] * 2 + [3.0] * 4
    assert hausdorff(SHIFTED, SQUARE, (1, 3)) == 3
    assert normalised_surface_dice(SHIFTED, SQUARE, (1, 3), tolerance=2) == pytest.approx(8 / 12)


def test_volume_with_thick_slices():
    """A cube of 3 x 3 x 3 moved by one slice of 5 mm: 26 of its voxels are boundary.

    The 9 of the outer slice are 5 mm off. Of the middle slice the 8 boundary voxels lie on the
    other's outer slice. Of the inner slice 8 lie on the other's middle ring, and its centre is
    1 mm from it.
    """
    a, b = box((5, 6, 6), (0, 3), (1, 4), (1, 4)), box((5, 6, 6), (1, 4), (1, 4), (1, 4))
    for distances in surface_distances(a, b, (5, 1, 1)):
        assert sorted(distances.tolist()) == [0.0] * 16 + [1.0] + [5.0] * 9
    assert hausdorff(a, b, (5, 1, 1)) == 5
    assert normalised_surface_dice(a, b, (5, 1, 1), tolerance=2) == pytest.approx(17 / 26)
    # Two voxels: sqrt((1 x 5)^2 + (2 x 1)^2 + (2 x 2)^2) = sqrt(45).
    a, b = box((3, 4, 5), (0, 1), (0, 1), (0, 1)), box((3, 4, 5), (1, 2), (2, 3), (2, 3))
    assert hausdorff(a, b, (5, 1, 2)) == pytest.approx(math.sqrt(45))


def test_percentile_is_of_each_direction():
    """20 pixels in a row, of which b has the first 11: a's last 9 are 1, 2, .. 9 away."""
    a, b = box((3, 20), (1, 2), (0, 20)), box((3, 20), (1, 2), (0, 11))
    assert hausdorff(a, b, percentile=100) == 9
    # The 95th percentile of 20 sorted values is at 0.95 x 19 = 18.05: 8 + 0.05 (9 - 8).
    assert hausdorff(a, b) == pytest.approx(8.05) == hausdorff(b, a)
    assert hausdorff(a, b, percentile=0) == 0
    # Both directions: b lies on a altogether.
    assert normalised_surface_dice(a, b, tolerance=2) == pytest.approx((11 + 2 + 11) / 31)


def test_what_is_missing_is_as_far_as_the_image_reaches():
    assert hausdorff(NOTHING, NOTHING) == 0
    assert normalised_surface_dice(NOTHING, NOTHING) == 1
    for pair in ((SQUARE, NOTHING), (NOTHING, SQUARE)):
        assert hausdorff(*pair) == math.sqrt(128)
        # 8 rows of 0.5 mm, 8 columns of 2 mm: sqrt(4^2 + 16^2).
        assert hausdorff(*pair, (0.5, 2)) == math.sqrt(16 + 256)
        assert normalised_surface_dice(*pair, tolerance=1e9) == 0
    to_nothing, from_nothing = surface_distances(SQUARE, NOTHING)
    assert to_nothing.tolist() == [math.sqrt(128)] * 12 and from_nothing.size == 0
    # Opposite corners are nearer than that.
    corners = box((8, 8), (0, 1), (0, 1)), box((8, 8), (7, 8), (7, 8))
    assert hausdorff(*corners) == pytest.approx(math.sqrt(98))


def test_three_steps_of_a_tenth_are_within_three_tenths():
    a, b = box((1, 9), (0, 1), (0, 1)), box((1, 9), (0, 1), (3, 4))
    assert surface_distances(a, b, (0.1, 0.1))[0][0] > 0.3  # 0.30000000000000004
    assert normalised_surface_dice(a, b, (0.1, 0.1), tolerance=0.3) == 1


@st.composite
def pairs(draw):
    """Two random masks of one shape, neither empty, and a spacing."""
    axes = draw(st.integers(2, 3))
    shape = tuple(draw(st.integers(1, 12 if axes == 2 else 7)) for _ in range(axes))
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    a, b = (generator.random(shape) < draw(st.floats(0.02, 0.98)) for _ in range(2))
    for mask in (a, b):
        mask[tuple(generator.integers(0, shape))] = True
    return a, b, tuple(generator.uniform(0.2, 6, axes))


@settings(deadline=None, max_examples=120)
@given(pairs())
def test_distances_are_the_least_of_all_pairs(pair):
    a, b, spacing = pair
    edge_a, edge_b = naive_boundary(a), naive_boundary(b)
    np.testing.assert_array_equal(boundary(a), edge_a)
    every = cdist(np.argwhere(edge_a) * spacing, np.argwhere(edge_b) * spacing)
    wanted = every.min(axis=1), every.min(axis=0)
    for found, direction in zip(surface_distances(a, b, spacing), wanted, strict=True):
        np.testing.assert_allclose(np.sort(found), np.sort(direction), rtol=1e-12, atol=0)
    for q in (50, 95, 100):
        expected = max(np.percentile(d, q) for d in wanted)
        assert hausdorff(a, b, spacing, q) == pytest.approx(expected, rel=1e-12)
    assert hausdorff(a, b, spacing, 100) < hausdorff(a, np.zeros_like(a), spacing)
    tolerance = float(np.median(every)) + 1e-6
    within = np.mean([*(wanted[0] <= tolerance), *(wanted[1] <= tolerance)])
    assert normalised_surface_dice(a, b, spacing, tolerance) == pytest.approx(within)
    assert normalised_surface_dice(b, a, spacing, tolerance) == pytest.approx(within)


def test_refuses_what_does_not_fit():
    with pytest.raises(EvaluationError, match=r"\[8, 8\] and \[8, 7\]"):
        hausdorff(SQUARE, SQUARE[:, 1:])
    with pytest.raises(EvaluationError, match="2 positive numbers"):
        hausdorff(SQUARE, SQUARE, (1, 1, 1))
    with pytest.raises(EvaluationError, match="2 positive numbers"):
        normalised_surface_dice(SQUARE, NOTHING, (1, -1))
    with pytest.raises(EvaluationError, match=r"in 0..100, not at 101"):
        hausdorff(SQUARE, SQUARE, percentile=101)
    for tolerance in (-1.0, math.nan, math.inf):
        with pytest.raises(EvaluationError, match="distance of 0 or more"):
            normalised_surface_dice(NOTHING, NOTHING, tolerance=tolerance)
