"""The figures of detectors, on made images."""

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.recipe import Recipe
from experiments.anomaly_detection import measure
from experiments.results import read


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Measures some detectors; returns the rows that there are then."""
    rng = np.random.default_rng(0)

    def part(normal, other):
        labels = np.repeat([0, 1], [normal, other])
        images = rng.integers(0, 120, (len(labels), 8, 8, 1)) + 100 * labels[:, None, None, None]
        return images.astype(np.uint8), labels

    images, labels = part(70, 2)
    parts = {"validation": part(70, 2), "test": part(20, 20)}
    made = data.from_arrays(images, labels, **parts, classes=["normal", "ill"], name="made")
    monkeypatch.setattr(measure, "loaded", lambda folder: (Recipe(), made))
    monkeypatch.setattr(measure, "PATH", tmp_path / "results.csv")

    def measured(*methods):
        monkeypatch.setattr(measure, "DETECTORS", tuple((method, "pixels") for method in methods))
        assert measure.main(["detectors", "--data-dir", "-"]) == 0
        return list(read(tmp_path / "results.csv"))

    return measured


def test_what_is_there_is_not_measured_again(run):
    first = run("neighbours")
    names = [row.experiment for row in first]
    assert names.count("neighbours of pixels") == len(measure.SHOWN)
    assert {"PCA of pixels", "neighbours of pixels minus PCA of pixels"} <= set(names)
    assert run("neighbours") == first
    more = run("neighbours", "mahalanobis")
    assert more[: len(first)] == first
    added = {row.experiment for row in more[len(first) :]}
    assert "mahalanobis of pixels minus PCA of pixels" in added and "PCA of pixels" not in added
