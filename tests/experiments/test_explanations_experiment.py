"""Planted evidence: where it is said to be it is, and nothing else tells the class."""

import numpy as np
import pytest

from cnn_jax.errors import DataError
from experiments.explanations import measure, planted


def test_evidence_is_where_the_stripes_are():
    pixels, labels, evidence = planted.images(40, 3)
    assert pixels.dtype == np.uint8 and pixels.shape == (40, 32, 32, 3)
    assert (evidence.sum(axis=(1, 2)) == 64).all() and np.bincount(labels).tolist() == [10] * 4
    inside = pixels.astype(float)[evidence].reshape(40, 8, 8, 3).mean(axis=-1) - 128
    for patch, label in zip(inside, labels, strict=True):
        scores = [float((patch * planted.stripes(k)).mean()) for k in range(4)]
        assert np.argmax(np.abs(scores)) == label and max(scores) > 20


def test_without_the_evidence_no_class_is_left():
    """A linear look at the rest: the mean image of each class is the same."""
    pixels, labels, evidence = planted.images(2000, 5)
    rest = np.where(evidence[..., None], 128, pixels).astype(float)
    means = np.stack([rest[labels == k].mean(axis=0) for k in range(4)])
    # Of 500 images each: what is left is noise, at most five of its standard errors.
    assert np.abs(means - means.mean(axis=0)).max() < 5 * 45 / np.sqrt(500)


def test_parts_differ_and_evidence_is_that_of_test():
    dataset = planted.load(train=40, others=16)
    parts = [dataset.splits[name].images for name in ("train", "validation", "test")]
    assert not np.array_equal(parts[1], parts[2])
    made = planted.images(16, 2)
    np.testing.assert_array_equal(parts[2], made[0])
    np.testing.assert_array_equal(planted.evidence_of_test(others=16), made[2])
    with pytest.raises(DataError, match="one at least"):
        planted.images(0, 0)


def test_stripes_are_of_their_direction():
    for label, (dy, dx) in enumerate(((1, 0), (0, 1), (1, 1), (1, -1))):
        pattern = planted.stripes(label)
        moved = np.roll(pattern, (dy, dx), axis=(0, 1))[1:-1, 1:-1]
        np.testing.assert_array_equal(moved, pattern[1:-1, 1:-1])


@pytest.mark.heavy
def test_rows_are_of_both_networks_and_of_every_method(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(measure, "LEARNING", {
        **measure.LEARNING, "train.epochs": 1, "model.options": {"widths": (4, 8), "units": 1},
    })  # fmt: skip
    monkeypatch.setattr(
        measure.explain, "METHODS", {"saliency": measure.explain.METHODS["saliency"]}
    )
    small = planted.load(train=40, others=24)
    monkeypatch.setattr(planted, "load", lambda: small)
    monkeypatch.setattr(measure, "digits", lambda folder: small.replace(name="mnist"))
    monkeypatch.setattr(planted, "evidence_of_test", lambda: rng.random((24, 32, 32)) < 0.5)
    found = list(measure.rows("-", tmp_path, images=8))
    metrics = {(row.data, row.experiment, row.metric) for row in found}
    for data in ("mnist", "planted"):
        assert (data, "the network minus nearest neighbour", "test accuracy") in metrics
        assert (data, "saliency", "left of maps") in metrics
    assert ("planted", "random maps", "pointing accuracy") in metrics
    assert ("mnist", "random maps", "pointing accuracy") not in metrics
