"""Local binary patterns against plain loops, and the folds of LFW."""

from types import SimpleNamespace

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.errors import DataError
from cnn_jax.evaluation import fold_accuracy
from experiments.face_recognition import lbp, lfw, lfw_curve

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


@pytest.fixture
def made():
    """Ten folds of six people with one to five images each, and pairs of each fold."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(60), 1 + np.arange(60) % 5)
    images = rng.integers(0, 256, (len(label), 8, 8, 1)).astype(np.uint8)
    pairs, fold = [], []
    for number in range(10):
        of = {k: np.flatnonzero(label == k) for k in range(6 * number, 6 * number + 6)}
        pairs += [(rows[0], rows[1]) for rows in of.values() if len(rows) > 1]
        pairs += [(of[k][0], of[k + 1][0]) for k in list(of)[:-1]]
        fold += [number] * (len(pairs) - len(fold))
    faces = object.__new__(lfw.Faces)
    names = [f"person {k}" for k in range(60)]
    faces.loaded = data.from_arrays(images, label, classes=names, name="lfw")
    faces.all = lfw._together(faces.loaded)
    faces.pairs = SimpleNamespace(indices=np.array(pairs), fold=np.array(fold))
    faces.people = np.array(names)[label]
    faces.fold = lfw.fold_of_each(label, faces.pairs)
    return faces


def test_right_pairs_are_those_that_the_protocol_counts(made):
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(60, 4))
    one, other = (
        made.scores(centres[made.all.targets["label"]] + noise, 0, "test")
        for noise in rng.normal(size=(2, len(made.all), 4))
    )
    for pairs in (one, other):
        of_fold = [lfw_curve.right(pairs)[pairs.fold == k].mean() for k in (0, 1)]
        np.testing.assert_array_equal(of_fold, fold_accuracy(pairs).values)
    gain = lfw_curve.accuracy_gain(one, other)
    assert gain.value == pytest.approx(np.mean(lfw_curve.right(one) - lfw_curve.right(other)))
    assert gain.low <= gain.value <= gain.high and gain.difference
    same = lfw_curve.accuracy_gain(one, one)
    assert same.value == 0 and np.isnan(same.low)  # nothing to resample


def test_a_curve_has_as_many_steps_whatever_is_learned_from(made, tmp_path, monkeypatch):
    asked = {}

    def trained(faces, number, folder, loss, epochs, **changes):
        part = lfw_curve.reduced(faces.parts(number), changes)
        train = part.splits["train"]
        asked[folder.name] = (epochs, len(train), len(np.unique(train.targets["label"])))
        metrics = {"validation": {"eer": SimpleNamespace(value=len(loss))}}
        return SimpleNamespace(metrics=metrics, noise=len(asked))

    def embedded(faces, run):
        rng = np.random.default_rng(run.noise)
        return faces.all.targets["label"][:, None] + rng.normal(size=(len(faces.all), 4))

    monkeypatch.setattr(lfw, "trained", trained)
    monkeypatch.setattr(lfw, "embedded", embedded)
    monkeypatch.setattr(lfw, "Faces", lambda folder: made)
    found = list(lfw_curve.rows("-", tmp_path))
    *tried, whole, half, two, quarter = asked.values()
    assert [epochs for epochs, *_ in tried] == [4, 4]
    people = np.unique(made.parts(0).splits["train"].targets["label"])
    assert (half[2], quarter[2], two[2]) == (len(people) // 2, len(people) // 4, len(people))
    assert whole[1] > two[1] > half[1] > quarter[1]
    steps = whole[0] * whole[1]
    assert all(abs(epochs * n - steps) <= n / 2 for epochs, n, _ in (half, two, quarter))
    # cosface is the shorter name, of which the error is said to be less
    assert all("cosface" in name for name in list(asked)[2:])
    of = {(row.experiment, row.metric): row.value for row in found}
    assert len(of) == len(found) == 4 * (2 + 2 + 1) + (2 + 1) + 3
    for (experiment, metric), value in of.items():
        name, _, learned = experiment.partition(": ")
        if name == "network, minus eigenfaces":
            both = (of[f"{each}: {learned}", metric] for each in ("network", "eigenfaces"))
            assert value == pytest.approx(np.subtract(*both), abs=0.05)
