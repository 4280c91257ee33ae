"""Local binary patterns against plain loops, and the folds of LFW."""

from types import SimpleNamespace

import numpy as np
import pytest

from cnn_jax.errors import DataError
from experiments.face_recognition import lbp, lfw

# A ring of radius 2 rounded to whole pixels, from the right neighbour on, clockwise as drawn.
RING = [(0, 2), (1, 1), (2, 0), (1, -1), (0, -2), (-1, -1), (-2, 0), (-1, 1)]


def test_patterns_are_those_of_a_plain_loop():
    grey = np.random.default_rng(0).integers(0, 5, (2, 7, 9)).astype(np.float32)
    numbers = {}
    for code in range(256):
        bits = [code >> i & 1 for i in range(8)]
        if sum(bits[i] != bits[i - 1] for i in range(8)) <= 2:
            numbers[code] = len(numbers)
    assert len(numbers) == 58
    found = lbp.patterns(grey, 2)
    assert found.shape == (2, 3, 5)
    for n, y, x in np.ndindex(found.shape):
        centre = grey[n, y + 2, x + 2]
        code = sum(
            int(grey[n, y + 2 + down, x + 2 + right] >= centre) << bit
            for bit, (down, right) in enumerate(RING)
        )
        assert found[n, y, x] == numbers.get(code, 58)


def test_each_cell_has_the_shares_of_its_patterns():
    images = np.random.default_rng(1).integers(0, 256, (2, 112, 112, 3)).astype(np.uint8)
    found = lbp.histograms(images)
    assert found.dtype == np.float32 and found.shape == (2, (7 * 7 + 7 * 7) * 59)
    np.testing.assert_allclose((found**2).reshape(2, -1, 59).sum(axis=-1), 1, rtol=1e-5)


def test_the_metric_is_that_of_the_people(monkeypatch):
    """Where people differ along one axis and images along others, the first one is kept."""
    monkeypatch.setattr(lbp, "_COMPONENTS", (4,))
    monkeypatch.setattr(lbp, "_DIRECTIONS", (1, 4))
    rng = np.random.default_rng(2)
    people = np.repeat(np.arange(40), 3)
    features = rng.normal(size=(120, 6)) * [1, 5, 3, 0.1, 0.1, 0.1] + 7
    features[:, 0] = rng.normal(size=40)[people] * 4 + rng.normal(size=120) * 0.05
    found = lbp.metrics(features, people)
    one = found[4, 1](features)[:, 0]
    assert abs(np.corrcoef(one, features[:, 0])[0, 1]) > 0.99
    rows = found[4, 4](features)
    left = rows - np.array([rows[people == k].mean(axis=0) for k in people])
    np.testing.assert_allclose(left.T @ left / (120 - 40), np.eye(4), atol=1e-6)


@pytest.mark.realdata
def test_nobody_of_the_tested_folds_is_learned(real):
    faces = lfw.Faces(str(real(".")))
    tested = np.zeros(len(faces.all), int)
    for number in range(5):
        rows = faces.rows(number)
        people = {part: set(faces.people[own].tolist()) for part, own in rows.items()}
        assert not people["train"] & people["test"] and not people["validation"] & people["test"]
        assert not people["train"] & people["validation"]
        tested += rows["test"]
        scored = faces.scores(np.ones((len(faces.all), 2)), number, "test")
        assert len(scored) == 1200 and scored.same.sum() == 600
    np.testing.assert_array_equal(tested, faces.fold >= 0)


def test_pairs_of_one_person_in_two_folds_are_refused():
    label = np.array([0, 0, 1, 2, 3, 4])
    pairs = SimpleNamespace(indices=np.array([[0, 1], [2, 3]]), fold=np.array([0, 3]))
    np.testing.assert_array_equal(lfw.fold_of_each(label, pairs), [0, 0, 3, 3, -1, -1])
    pairs.indices[1, 0] = 1
    with pytest.raises(DataError, match="a person is in two folds"):
        lfw.fold_of_each(label, pairs)
