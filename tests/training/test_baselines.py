import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from cnn_jax.data.dataset import Dataset, Split
from cnn_jax.errors import DataError
from cnn_jax.evaluation.classification import classification_metrics
from cnn_jax.training import baselines
from cnn_jax.training.baselines import (
    logistic_regression,
    nearest_neighbour,
    pixel_features,
)


class Lazy:
    """An image source that counts what is read of it."""

    def __init__(self, images):
        self.images, self.shape, self.read = images, images.shape[1:], 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read += 1
        return self.images[index]


def split(images, targets, prefix, lazy=False):
    ids = np.array([f"{prefix}{i}" for i in range(len(images))])
    return Split(Lazy(images) if lazy else images, {"label": targets}, ids)


def dataset(parts, k, kind="class", lazy=False):
    return Dataset(
        name="mock",
        splits={name: split(*part, name, lazy) for name, part in parts.items()},
        classes={"label": tuple(f"c{i}" for i in range(k))},
        digest="",
        kinds={"label": kind},
    )


def stripes(n, seed, size=12):
    """Class 0 is brighter at the left, 1 at the top, 2 in the middle; with noise."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, n).astype(np.int32)
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    middle = size - np.abs(x - size / 2) - np.abs(y - size / 2)
    patterns = 8 * np.stack([size - x, size - y, middle])
    images = patterns[labels] + generator.integers(0, 100, (n, size, size))
    return images.clip(0, 255).astype(np.uint8)[..., np.newaxis], labels


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) * 15).astype(np.uint8)
    labels = labels.astype(np.int32)
    ends = {"train": (0, 1257), "validation": (1257, 1437), "test": (1437, 1797)}
    return dataset({k: (images[a:b], labels[a:b]) for k, (a, b) in ends.items()}, 10)


def test_features_are_resized_mean_free_and_of_unit_length():
    images, _ = stripes(5, 0, size=48)
    features = pixel_features(images)
    resized = np.empty((5, 32, 32, images.shape[-1]))
    for n, c in np.ndindex(5, images.shape[-1]):
        plane = Image.fromarray(images[n, :, :, c].astype(np.float32))  # Pillow antialiases
        resized[n, :, :, c] = plane.resize((32, 32), Image.Resampling.BILINEAR)
    resized = resized.reshape(5, -1)
    expected = resized - resized.mean(axis=1, keepdims=True)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-5)


@pytest.mark.parametrize("grey", [0, 1, 77, 255])
def test_images_of_one_grey_have_no_features(grey):
    assert not pixel_features(np.full((2, 40, 24, 3), grey, np.uint8)).any()


def test_nearest_neighbour_of_digits(digits):
    result = nearest_neighbour(digits)
    assert list(result.predictions) == ["validation", "test"]
    features = {name: pixel_features(part.images) for name, part in digits.splits.items()}
    oracle = KNeighborsClassifier(1, metric="cosine")
    oracle.fit(features["train"], digits.splits["train"].targets["label"])
    test = result.predictions["test"]
    np.testing.assert_array_equal(test.predicted(), oracle.predict(features["test"]))
    assert (test.predicted() == test.targets).mean() > 0.94
    assert "1257 examples" in result.note


def test_nearest_neighbour_is_that_of_all_pairs_in_any_chunks(monkeypatch):
    train, test = stripes(50, 0), stripes(23, 1)
    data = dataset({"train": train, "test": test}, 4)
    whole = nearest_neighbour(data).predictions["test"]
    similarity = pixel_features(test[0]) @ pixel_features(train[0]).T
    np.testing.assert_array_equal(whole.predicted(), train[1][similarity.argmax(axis=1)])
    for k in range(3):
        largest = similarity[:, train[1] == k].max(axis=1)
        np.testing.assert_allclose(whole.logits[:, k], largest, atol=1e-6)
    assert (whole.logits[:, 3] == -1).all()
    monkeypatch.setattr(baselines, "_SIMILARITIES_AT_ONCE", 250)
    monkeypatch.setattr(baselines, "_IMAGES_AT_ONCE", 7)
    lazy = dataset({"train": train, "test": test}, 4, lazy=True)
    chunked = nearest_neighbour(lazy).predictions["test"]
    np.testing.assert_allclose(chunked.logits, whole.logits, atol=1e-6)
    assert lazy.splits["train"].images.read == 50


def test_of_equally_near_neighbours_the_first_decides():
    images, _ = stripes(2, 0)
    train = images[[0, 0, 1]], np.array([2, 0, 1], np.int32)
    data = dataset({"train": train, "test": (images[:1], np.zeros(1, np.int32))}, 3)
    predictions = nearest_neighbour(data).predictions["test"]
    assert predictions.predicted()[0] == 2
    np.testing.assert_allclose(predictions.logits[0, [0, 2]], 1, atol=1e-6)


def test_multilabel_neighbours_hand_over_their_labels():
    images, labels = stripes(40, 0)
    targets = np.stack([labels == 0, labels > 0], axis=1).astype(np.float32)
    data = dataset({"train": (images, targets), "test": (images, targets)}, 2, "multilabel")
    logits = nearest_neighbour(data).predictions["test"].logits
    np.testing.assert_array_equal(logits, 2 * targets - 1)


def test_logistic_regression_of_digits(digits):
    result = logistic_regression(digits, penalties=(1.0, 0.1, 0.01))
    accuracy = classification_metrics(result.predictions["test"], resamples=10)["accuracy"].value
    assert 0.88 < accuracy < 0.96
    assert "1257 examples" in result.note
    assert "not converged" not in result.note


def test_penalty_is_chosen_on_validation_and_subset_and_early_end_are_said():
    parts = {name: stripes(n, n) for name, n in [("train", 90), ("validation", 61), ("test", 30)]}
    data = dataset(parts, 3, lazy=True)
    result = logistic_regression(data, penalties=(100.0, 0.1), max_train=60)
    assert "L2 penalty 0.1 chosen on validation" in result.note
    assert "60 examples (a fixed subset of 90" in result.note
    assert data.splits["train"].images.read == 60
    early = logistic_regression(data, penalties=(1.0,), max_train=60, max_iterations=1)
    assert "not converged" in early.note
    assert "iterations: 1" in early.note


@pytest.mark.parametrize("kind", ["soft", "multilabel"])
def test_both_take_targets_of_any_kind(kind):
    parts = {}
    for name, seed in [("train", 0), ("validation", 1)]:
        images, labels = stripes(60, seed)
        parts[name] = images, np.eye(3, dtype=np.float32)[labels]
    data = dataset(parts, 3, kind)
    for result in (nearest_neighbour(data), logistic_regression(data)):
        figures = classification_metrics(result.predictions["validation"], resamples=10)
        assert figures["accuracy"].value > 0.8


def test_subset_keeps_the_shares_of_the_classes():
    labels = np.repeat([0, 1, 2], [600, 300, 100]).astype(np.int32)
    chosen = baselines.stratified_subset(labels, 50)
    assert len(np.unique(chosen)) == 50
    np.testing.assert_allclose(np.bincount(labels[chosen]), [30, 15, 5], atol=1)
    np.testing.assert_array_equal(chosen, baselines.stratified_subset(labels, 50))


def test_missing_parts_are_named():
    part = stripes(6, 0)
    with pytest.raises(DataError, match="no train examples"):
        nearest_neighbour(dataset({"test": part}, 3))
    with pytest.raises(DataError, match="neither a validation nor a test"):
        nearest_neighbour(dataset({"train": part}, 3))
    with pytest.raises(DataError, match="no target 'species': choose one of label"):
        nearest_neighbour(dataset({"train": part, "test": part}, 3), target="species")
    with pytest.raises(DataError, match="no validation split"):
        logistic_regression(dataset({"train": part, "test": part}, 3))
    with pytest.raises(DataError, match="at least one"):
        logistic_regression(dataset({"train": part, "validation": part}, 3), penalties=())
    volumes = (np.zeros((2, 4, 8, 8, 1), np.uint8), np.zeros(2, np.int32))
    with pytest.raises(DataError, match="the baselines take images"):
        nearest_neighbour(dataset({"train": volumes, "test": volumes}, 3))
