import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.data import align_face, similarity_transform
from cnn_jax.data.alignment import TEMPLATE
from cnn_jax.errors import DataError

template = np.array(TEMPLATE)


def similarity(scale, angle, shift):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.concatenate([scale * turn, np.array(shift)[:, None]], axis=1)


def moved(points, transform):
    return points @ transform[:, :2].T + transform[:, 2]


def umeyama(x, y):
    """Equations 38 to 43 of the paper, with the singular value decomposition."""
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    u, d, vt = np.linalg.svd((y - y_mean).T @ (x - x_mean) / len(x))
    s = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * s) @ vt
    scale = (d * s).sum() / ((x - x_mean) ** 2).sum(axis=1).mean()
    return np.concatenate([scale * rotation, (y_mean - scale * rotation @ x_mean)[:, None]], axis=1)


@settings(deadline=None, max_examples=30)
@given(
    scale=st.floats(-3, 3).map(lambda x: 10**x),
    angle=st.floats(-np.pi, np.pi),
    shift=st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)),
)
def test_a_similarity_is_recovered(scale, angle, shift):
    expected = similarity(scale, angle, shift)
    found = similarity_transform(template, moved(template, expected))
    largest = 100 * scale + np.abs(shift).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * largest)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("points", [2, 5, 9])
def test_it_is_umeyamas_and_never_a_reflection(points, mirrored):
    rng = np.random.default_rng(points)
    for _ in range(20):
        x, y = rng.normal(size=(2, points, 2)) * 30 + 60
        if mirrored:
            y = x * [-1, 1] + rng.normal(size=x.shape)
        found = similarity_transform(x, y)
        np.testing.assert_allclose(found, umeyama(x, y), rtol=1e-9, atol=1e-9)
        assert np.linalg.det(found[:, :2]) > 0


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.full((5, 2), 40.0), "all lie in one place"),
        (np.zeros((5, 2)), "all lie in one place"),
        (np.full((5, 2), np.nan), "must be finite"),
        (np.where(np.eye(5, 2) > 0, np.inf, template), "must be finite"),
        (np.zeros((5, 3)), r"\[n, 2\], x and y, not \[5, 3\]"),
        (template[:4], "4 points cannot be brought to 5"),
        (template[:0], "0 points cannot be brought to 5"),
    ],
)
def test_landmarks_without_an_answer_are_refused(source, message):
    with pytest.raises(DataError, match=message):
        similarity_transform(source, template)


def test_landmarks_that_fit_no_direction_are_refused():
    square = np.array([[1.0, 1], [-1, 1], [-1, -1], [1, -1]])
    with pytest.raises(DataError, match="no direction better than another"):
        similarity_transform(square, square * [1, -1])


def by_loops(image, transform):
    """Each pixel of the result at its place in the source, by the inverse matrix."""
    height, width, _ = image.shape
    inverse = np.linalg.inv(np.concatenate([transform, [[0, 0, 1]]]))
    aligned = np.zeros((112, 112, image.shape[2]))
    for row in range(112):
        for column in range(112):
            x, y, _ = inverse @ [column, row, 1]
            for j in (int(np.floor(y)), int(np.floor(y)) + 1):
                for i in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= j < height and 0 <= i < width:
                        aligned[row, column] += (1 - abs(y - j)) * (1 - abs(x - i)) * image[j, i]
    return aligned


def test_the_face_is_read_at_its_place_and_the_border_is_black():
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (70, 50, 1)).astype(np.uint8)
    transform = similarity(1.7, 0.3, (12, 5))
    landmarks = moved(template, np.linalg.inv(np.concatenate([transform, [[0, 0, 1]]]))[:2])
    expected = by_loops(image, transform)
    for dtype, tolerance in ((np.uint8, 0.5 + 1e-6), (np.float32, 1e-3)):
        aligned = align_face(image.astype(dtype), landmarks)
        assert aligned.dtype == dtype and aligned.shape == (112, 112, 1)
        np.testing.assert_allclose(aligned, expected, atol=tolerance)
        assert (expected == 0).any() and (aligned[expected == 0] == 0).all()


def test_landmarks_at_the_template_change_nothing():
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3)).astype(np.uint8)
    np.testing.assert_array_equal(align_face(image, template), image)
    shift = np.array([3, 7])
    aligned = align_face(np.pad(image, ((7, 0), (3, 9), (0, 0))), template + shift)
    np.testing.assert_array_equal(aligned, image)


def test_what_is_no_face_is_refused():
    with pytest.raises(DataError, match=r"not int64 \[9, 9, 1\]"):
        align_face(np.zeros((9, 9, 1), np.int64), template)
    with pytest.raises(DataError, match=r"uint8 or float32 \[H, W, C\]"):
        align_face(np.zeros((9, 9), np.uint8), template)
    with pytest.raises(DataError, match=r"landmarks must be \[5, 2\]"):
        align_face(np.zeros((9, 9, 1), np.uint8), template[:4])
